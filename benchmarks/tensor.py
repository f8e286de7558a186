"""Measure `braggshot tensor` on strained crystals whose scans are sums over lattice points; print one row per crystal.

    python benchmarks/tensor.py -o DIR --n 20 --first-seed 0
    python benchmarks/tensor.py -o DIR --crystal ZrO2 --size 48 --n 2

Each crystal has four reflections of 1e6 photons at the peak, on 64 x 64 x 64 voxels, oversampling 2.3 to 3.5, a largest phase range
of 2 pi, and raw files with sample circles. A crystal that is in DIR/rows.jsonl is not done again; its scans are removed after it.
Strain and displacement are compared inside the found surface (density over half): the strain as it comes out, with the mean
lattice added, the displacement after a shift and a rotation, which the counts leave free. "off" is the angle between the found and
the true orientation; "indexed" says whether the program finds hkl without being told, up to rotations of the lattice, and with how
many rivals; "twins" whether all reflections came out as one and the same of both twins.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import KDTree

from braggshot import load_result, reflections
from braggshot.crystals import several
from braggshot.crystals.several import Body, Hkl, SeveralSettings
from braggshot.errors import BraggshotError
from braggshot.io.beamlines.aps_34idc import write_scan
from braggshot.physics.fourier import inverse_fourier, inverted
from braggshot.physics.lattice import Lattice, operations
from braggshot.physics.metrics import align
from braggshot.reflections import Tensor, combine, joint, run, tensor
from braggshot.volumes import Reconstruction

KINDS = ("substrate", "torsion", "bending", "contacts", "dislocation")
# Cell (edges [Å], angles [degrees]) and sets of reflections, of which any three span space.
CRYSTALS = {
    "gold": (
        ((4.078, 4.078, 4.078), (90, 90, 90)),
        (
            ((1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)),
            ((1, 1, 1), (-1, -1, 1), (2, 0, 0), (0, 2, 0)),
            ((1, 1, 1), (-1, 1, 1), (1, -1, 1), (2, 2, 0)),
        ),
    ),
    "BaTiO3": (
        ((3.994, 3.994, 4.038), (90, 90, 90)),
        (((1, 0, 1), (0, 1, 1), (1, 1, 0), (0, 0, 2)), ((1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1))),
    ),
    "ZnO": (
        ((3.2495, 3.2495, 5.2069), (90, 90, 120)),
        (((1, 0, 1), (0, 1, 1), (-1, 1, 1), (0, 0, 2)), ((1, 0, 2), (0, 1, 2), (-1, 1, 2), (1, 1, 0))),
    ),
    "ZrO2": (
        ((5.1505, 5.2116, 5.3173), (90, 99.23, 90)),
        (((1, 1, 1), (-1, 1, 1), (0, 0, 2), (1, 2, 0)), ((1, 1, 0), (0, 1, 1), (-1, 0, 2), (1, -1, 1))),
    ),
    "albite": (
        ((8.142, 12.785, 7.159), (94.19, 116.61, 87.68)),
        (((-2, 0, 1), (0, 4, 0), (0, 0, 2), (1, 3, 0)), ((1, 1, 1), (-2, 0, 2), (0, 4, 0), (1, -3, 0))),
    ),
}
NEAR = 64  # lattice points to which a paraboloid of the true displacement about a voxel is fitted
COLUMNS = (
    "crystal", "seed", "kind", "hkl", "off", "indexed", "twins", "alone", "joint", "u_pm", "strain", "covered", "missed", "verdict",
    "seconds",
)  # fmt: skip


def main() -> None:
    """Print one row per crystal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--phase-range", type=float, default=2.0, help="largest phase range [pi]")
    parser.add_argument("--crystal", choices=CRYSTALS, default="gold")
    parser.add_argument("--size", type=int, default=64, help="frames, rows and columns")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    table = arguments.output / "rows.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()] if table.exists() else []
    done = {row["seed"] for row in rows if row.get("crystal", "gold") == arguments.crystal}
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.n):
        if seed not in done:
            folder = arguments.output / f"{arguments.crystal}_{seed:03d}"
            row = measure(arguments.crystal, seed, arguments.phase_range * math.pi, arguments.size, folder)
            with table.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print("| " + " | ".join(str(row[name]) for name in COLUMNS) + " |", flush=True)


def draw(crystal: str, seed: int, phase_range: float, size: int) -> tuple[str, tuple[Hkl, ...], SeveralSettings]:
    """Return the kind of field, the reflections and the settings of a crystal."""
    (edges, angles), sets = CRYSTALS[crystal]
    cell = Lattice((edges[0] * 1e-10, edges[1] * 1e-10, edges[2] * 1e-10), tuple(map(math.radians, angles)))
    kinds = KINDS if crystal == "gold" else KINDS[:-1]  # the dislocations are those of a cubic lattice
    kind = kinds[seed % len(kinds)]
    load, lines = ("substrate", 1) if kind == "dislocation" else (kind, 0)
    wanted = phase_range / 2 if lines else phase_range  # a dislocation itself turns the phase by 2 pi
    stride = 2 * round(6 * 4.078 / np.prod(edges) ** (1 / 3))
    grid = {"cells": 0.625 * size, "stride": stride, "shape": (size, size, size)}
    return kind, sets[seed % len(sets)], SeveralSettings(cell=cell, load=load, dislocations=lines, phase_range=wanted, **grid)


def measure(crystal: str, seed: int, phase_range: float, size: int, folder: Path) -> dict[str, Any]:
    """Simulate, write, phase and join the reflections of one crystal, and compare with the truth."""
    generator = torch.Generator().manual_seed(seed)
    kind, hkls, settings = draw(crystal, seed, phase_range, size)
    body, orientation = several.strained_crystal(generator, hkls, settings), several.draw_orientation(generator)
    paths, truths = [], []
    for number, g in enumerate(several.scattering_vectors(hkls, settings.cell)):
        name = f"s{seed:03d}r{number}"
        scan, rho = several.simulate_reflection(generator, body, g, orientation, settings, name)
        assert scan.geometry is not None
        paths.append(write_scan(folder / name, np.asarray(scan.frames), np.asarray(scan.rocking_angle), scan.geometry, 1))
        truths.append(rho)
    began = time.perf_counter()
    cell = {"lattice": list(settings.cell.edges), "lattice_angles_deg": np.degrees(settings.cell.angles).tolist()}
    given = {"strain": {**cell, "facets": False}, "input": {"scan": 1}}
    found = reflections.join_reflections(list(paths), hkls, given, place=folder / "out")
    seconds = time.perf_counter() - began
    single = [load_result(folder / "out" / f"{row.name}.cxi").reconstruction for row in found.reflections]
    row = {
        "crystal": crystal,
        "seed": seed,
        "kind": kind,
        "hkl": " ".join("".join(map(str, h)) for h in hkls),
        "seconds": round(seconds, 1),
    }
    row |= {"verdict": found.verdict, "missed": [round(one.missed, 3) for one in found.reflections]}
    row |= {"alone": [round(_correlation(one.rho, rho), 4) for one, rho in zip(single, truths, strict=True)]}
    row |= {"off": round(_angle(found.orientation.rotation, orientation), 3), "indexed": _indexed(single, hkls, given)}
    row |= {"twins": _twins(found, single, truths)}
    row |= {"joint": _joint_correlations(found, single, truths, given), **compare(found, body)}
    for name in paths:
        shutil.rmtree(name.parent)
    return row


def _correlation(rho: Any, truth: Any) -> float:
    return align(torch.from_numpy(rho), torch.from_numpy(truth)).correlation


def _angle(one: Any, other: Any) -> float:
    """Return the angle between two orientations [degrees]."""
    return math.degrees(2 * math.asin(min(float(np.linalg.norm(one - other)) / math.sqrt(8), 1.0)))


def _indexed(single: list[Reconstruction], hkls: tuple[Hkl, ...], given: dict[str, Any]) -> str:
    """Say whether hkl are found without being told, up to rotations of the lattice, and how many other sets fit as well."""
    try:
        _, found = run.orient_singles(single, [one.volume.name for one in single], None, reflections.resolve(given))
    except BraggshotError as error:
        return str(error)
    turns = [turn for turn in operations(found.cell) if np.linalg.det(turn) > 0]
    right = any(np.array_equal(np.array(hkls) @ turn.T, np.array(found.hkls)) for turn in turns)
    return f"{'right' if right else 'wrong'}, {found.rivals} rivals"


def _twins(found: Tensor, single: list[Reconstruction], truths: list[Any]) -> str:
    """Say whether all reflections were joined in the same of both twins."""
    pairs = zip(found.reflections, single, truths, strict=True)
    turned = {row.twin ^ align(torch.from_numpy(one.rho), torch.from_numpy(rho)).twin for row, one, rho in pairs}
    return "one" if len(turned) == 1 else "mixed"


def _joint_correlations(found: Tensor, single: list[Reconstruction], truths: list[Any], given: dict[str, Any]) -> list[float]:
    """Compare each reflection's object by the joint fit with the truth; nan for one that was left out."""
    settings = reflections.resolve(given)
    names, hkls = [row.name for row in found.reflections], [row.hkl for row in found.reflections]
    singles, _ = run.orient_singles(single, names, hkls, settings)
    usable, twins = [row.verdict != "failed" for row in found.reflections], tuple(row.twin for row in found.reflections)
    common = next(one for one in combine.combinations(singles, usable) if one.twins == twins)
    windows, _ = run.lay_out(singles, common, np.stack([one.q for one in singles]), usable, settings)
    kept = [number for number, row in enumerate(found.reflections) if row.misfit is not None]
    windows = [windows[number] for number in kept]
    result = [math.nan] * len(singles)
    for number, field in zip(kept, joint.amplitudes(windows, found.crystal), strict=True):
        result[number] = round(_correlation(inverse_fourier(field).numpy(), truths[number]), 4)
    return result


def compare(found: Tensor, body: Body) -> dict[str, Any]:
    """Compare displacement and strains with those of the atoms, on the found crystal and on its twin, and keep the better."""
    voxel, inside = found.crystal.voxel, found.fields.support
    positions = body.sites + body.displacement
    density = _gridded(positions - positions.mean(axis=0), inside.shape, voxel)
    options = []
    for twin in (False, True):
        own = torch.from_numpy(found.crystal.density)
        own = (inverted(own) if twin else own).to(torch.complex128)
        shift = np.array(align(own, torch.from_numpy(density).to(torch.complex128), allow_twin=False).shift) * voxel
        place = (np.argwhere(inside) - np.array(inside.shape) // 2) * voxel * (-1 if twin else 1)
        options.append(_errors(found, body, place + shift + positions.mean(axis=0), -1 if twin else 1))
    return min(options, key=lambda one: float(one["u_pm"]))


def _gridded(positions: Any, shape: tuple[int, ...], voxel: float) -> Any:
    index = np.round(positions / voxel).astype(int) + np.array(shape) // 2
    counts = np.zeros(shape)
    np.add.at(counts, tuple(index.T), 1.0)
    return ndimage.gaussian_filter(counts, 0.8)


def _errors(found: Tensor, body: Body, points: Any, sign: int) -> dict[str, Any]:
    """Return rms errors of displacement [pm] and strain [1], and the share of strains within one sigma."""
    inside = found.fields.support
    true_u, jacobian, smooth = truth_at(body, points)
    strain = tensor.six_of(jacobian)
    assert found.mean_strain is not None
    error = found.fields.strain[:, inside] + np.asarray(found.mean_strain)[:, None] - strain
    mean = tensor.matrix_of(np.asarray(found.mean_strain))
    centred = points - points.mean(axis=0)
    u = sign * found.fields.displacement[:, inside].T + centred @ mean.T - true_u
    kept = smooth & np.isfinite(error).all(axis=0)
    off = _without_rotation(u[kept], centred[kept])
    covered = math.nan
    if found.sigma is not None:
        covered = float(np.mean(np.abs(error[:, kept]) < found.sigma.strain[:, inside][:, kept]))
    return {
        "u_pm": round(1e12 * float(np.sqrt((off**2).mean(axis=0)).max()), 2),
        "strain": float(f"{np.sqrt((error[:, kept] ** 2).mean(axis=1)).max():.2e}"),
        "covered": round(covered, 3),
        "compared": round(float(kept.mean()), 3),
    }


def truth_at(body: Body, points: Any) -> tuple[Any, Any, Any]:
    """Fit the atoms around points (n, 3): displacement (n, 3), J (3, 3, n), and where they are not across a slip (n,)."""
    positions = body.sites + body.displacement
    distance, near = KDTree(positions).query(points, k=NEAR)
    unit = float(np.median(distance))
    local = (positions[near] - points[:, None]) / unit
    squares = local[..., [0, 0, 0, 1, 1, 2]] * local[..., [0, 1, 2, 1, 2, 2]]
    design = np.concatenate([np.ones((*local.shape[:2], 1)), local, squares], axis=2)
    moved = body.displacement[near]
    solved = np.linalg.solve(design.transpose(0, 2, 1) @ design, design.transpose(0, 2, 1) @ moved)
    smooth = np.abs(design @ solved - moved).max(axis=(1, 2)) < 20e-12
    return solved[:, 0], solved[:, 1:4].transpose(2, 1, 0) / unit, smooth


def _without_rotation(u: Any, points: Any) -> Any:
    """Take off the shift and the small rotation that fit best."""
    skew = np.zeros((len(u), 3, 6))
    skew[:, range(3), range(3)] = 1.0
    for column, (a, b) in enumerate(((0, 1), (0, 2), (1, 2)), 3):
        skew[:, a, column], skew[:, b, column] = points[:, b], -points[:, a]
    scale = np.abs(skew).max(axis=(0, 1))
    design = (skew / scale).reshape(-1, 6)
    return u - (design @ np.linalg.lstsq(design, u.ravel())[0]).reshape(u.shape)


if __name__ == "__main__":
    main()
