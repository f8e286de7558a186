r"""Find dislocations in atomistic crystals: is the line there, where, and how often does the phase turn around it?

    python benchmarks/dislocations.py -o DIR --stage true --first-seed 0 --n 100
    python benchmarks/dislocations.py -o DIR --stage auto --first-seed 0 --n 20
    python benchmarks/dislocations.py -o DIR --table

The patterns are sums over atoms, which are displaced by the elastic field of a line (Hirth & Lothe, Theory of Dislocations) or, for
half of the seeds, by a smooth field, or not at all. A third of the lines has G . b = 0, and is invisible. `true` takes the
true phases and draws only the photons, so it tests the finder; `auto` phases the counts. Rows are appended to DIR/rows.jsonl, and
a row that is there is not made again. Seeds below 1000 were looked at while limits were set; those from 1000 on were not.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import KDTree

from braggshot import reflections
from braggshot.crystal_frame.dislocations import dislocations
from braggshot.crystals import several
from braggshot.crystals.atomistic import AtomisticSettings, Particle, draw_sampling, lattice_sites
from braggshot.crystals.kinematic import diffract_atoms
from braggshot.crystals.loads import LOADS
from braggshot.crystals.relax import LATTICE_PARAMETER
from braggshot.crystals.several import Body, SeveralSettings
from braggshot.io import results
from braggshot.phasing.config import PhasingConfig
from braggshot.physics.fourier import fourier, inverse_fourier
from braggshot.physics.geometry import direct_basis, reciprocal_basis
from braggshot.pipeline import drain
from braggshot.reflections import burgers, combine, run
from braggshot.volumes import DiffractionVolume, Quality, Reconstruction, Window

SETTINGS = AtomisticSettings(cells=26.0, oversampling=(2.2, 4.0), anisotropy=1.4, shear=0.4)
KINDS = ("edge", "screw", "mixed", "loop")
SMOOTH = ("none", "cosine", "gaussians", "misfit", "bending", "torsion")
POISSON = 0.35


def straight(sites: np.ndarray, b: np.ndarray, xi: np.ndarray, plane: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Displace sites (n, 3) by a straight dislocation through `place` along `xi`, with `plane` the normal of its glide plane."""
    e, nu = np.cross(plane, xi), POISSON
    x, y = (sites - place) @ e, (sites - place) @ plane
    theta, radius = np.arctan2(y, x), np.maximum(np.hypot(x, y), 0.5)
    along = theta + np.sin(2 * theta) / (4 * (1 - nu))
    normal = (1 - 2 * nu) / (2 * (1 - nu)) * np.log(radius) + np.cos(2 * theta) / (4 * (1 - nu))
    return ((b @ e) * (along[:, None] * e - normal[:, None] * plane) + (b @ xi) * theta[:, None] * xi) / (2 * np.pi)


def loop(sites: np.ndarray, b: np.ndarray, corners: np.ndarray) -> np.ndarray:
    r"""Displace sites (n, 3) by a loop whose corners (m, 3) are joined by straight lines, in a plane that contains b.

    .. math:: u = -\frac{b\,\Omega}{4\pi} + \frac{1}{4\pi}\oint \frac{b \times dl'}{R}
              - \frac{1}{8\pi(1-\nu)} \nabla \oint \frac{(b \times R) \cdot dl'}{R}, \qquad R = r' - r

    Omega is the solid angle of the loop, summed over triangles (Van Oosterom & Strackee, IEEE Trans. Biomed. Eng. 30, 125 (1983)).
    """
    middle, ends = corners.mean(axis=0), np.roll(corners, -1, axis=0)
    omega, potential, slope = np.zeros(len(sites)), np.zeros((len(sites), 3)), np.zeros((len(sites), 3))
    for start, end in zip(corners, ends, strict=True):
        a, c, d = (point - sites for point in (middle, start, end))
        la, lc, ld = (np.linalg.norm(v, axis=1) for v in (a, c, d))
        triple = np.einsum("ij,ij->i", a, np.cross(c, d))
        dots = la * lc * ld + (a * c).sum(1) * ld + (a * d).sum(1) * lc + (c * d).sum(1) * la
        omega += 2 * np.arctan2(triple, dots)
        step = (end - start) / 8
        for share in (np.arange(8) + 0.5) / 8:
            r = start + share * (end - start) - sites
            far = np.maximum(np.linalg.norm(r, axis=1), 0.5)[:, None]
            potential += np.cross(b, step) / far
            # The gradient over the site of (b x R) . dl' / R, with dR / dr = -1.
            slope += -np.cross(step, b) / far + (np.cross(b, r) @ step)[:, None] * r / far**3
    return -b * omega[:, None] / (4 * np.pi) + potential / (4 * np.pi) - slope / (8 * np.pi * (1 - POISSON))


def smooth(generator: torch.Generator, kind: str, sites: np.ndarray, g: np.ndarray, turns: float) -> np.ndarray:
    """Displace sites by a smooth field along g whose phase spans `turns` pi; a load is scaled to it too."""
    if kind == "none":
        return np.zeros_like(sites)
    random = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    size = np.ptp(sites, axis=0).min()
    if kind == "cosine":
        k = random.normal(size=3)
        value = np.cos(sites @ k / np.linalg.norm(k) * 2 * np.pi * random.uniform(0.5, 1.2) / size + random.uniform(0, 6.3))
    elif kind == "gaussians":
        value = np.zeros(len(sites))
        for _ in range(3):
            away = sites - random.uniform(-0.4, 0.4, 3) * size
            value += random.choice([-1, 1]) * np.exp(-(away**2).sum(1) / (2 * (random.uniform(0.15, 0.3) * size) ** 2))
    else:
        load = LOADS["substrate" if kind == "misfit" else kind]
        value = load(generator, torch.from_numpy(sites), 0.01)[0].numpy() @ g
    unit = g / np.linalg.norm(g)
    flat = value - np.c_[np.ones(len(sites)), sites] @ np.linalg.lstsq(np.c_[np.ones(len(sites)), sites], value, rcond=None)[0]
    scale = turns * np.pi / np.linalg.norm(g) / max(float(np.ptp(flat)), 1e-9)
    return np.outer(flat * scale, unit)


def draw(seed: int) -> tuple[dict[str, Any], Particle, np.ndarray, Any]:
    """Draw a crystal: its facts, its atoms, points along its true line [m] (none for a smooth field), and its sampling."""
    generator = torch.Generator().manual_seed(seed)
    random = np.random.default_rng(seed)
    element = str(random.choice(["Au", "Pt", "Ni"]))
    a = LATTICE_PARAMETER[element]
    sites = lattice_sites(generator, SETTINGS.cells).numpy()
    plane = random.permutation(np.array([1.0, 1.0, 1.0]) * random.choice([-1, 1], 3)) / math.sqrt(3)
    b = next(v for v in random.permutation(HALF_110) if abs(v @ plane) < 1e-9)
    kind = str(random.choice(KINDS)) if seed % 2 else "none"
    # A reflection that sees the line in two of three crystals, and one that does not in the third.
    sees = kind == "none" or seed % 6 != 5
    hkl = next(np.array(h) for h in random.permutation(REFLECTIONS) if kind == "none" or (abs(h @ b) > 0.5) == sees)
    facts: dict[str, Any] = {"seed": seed, "element": element, "hkl": hkl.tolist(), "kind": kind}
    g = 2 * np.pi * hkl
    points = np.zeros((0, 3))
    if kind == "none":
        facts["smooth"] = str(random.choice(SMOOTH))
        facts["range_pi"] = float(random.uniform(0.5, 4))
        moved = smooth(generator, facts["smooth"], sites, g, facts["range_pi"])
    else:
        angle = {"edge": 90.0, "screw": 0.0}.get(kind, float(random.choice([30.0, 60.0])))
        unit = b / np.linalg.norm(b)
        xi = math.cos(math.radians(angle)) * unit + math.sin(math.radians(angle)) * np.cross(plane, unit)
        radius = np.linalg.norm(sites, axis=1).max()
        place = random.normal(size=3)
        place *= random.uniform(0, 0.35) * radius / np.linalg.norm(place)
        height = sites @ plane
        place += plane * (
            math.floor((place @ plane - height[0]) * math.sqrt(3)) / math.sqrt(3) + height[0] + 0.5 / math.sqrt(3) - place @ plane
        )
        if kind == "loop":
            turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            size = random.uniform(0.3, 0.45) * radius
            across = np.cross(plane, unit)
            points = (
                0.5 * place + plane * (0.5 * place @ plane) + size * (np.cos(turn)[:, None] * unit + np.sin(turn)[:, None] * across)
            )
            moved = loop(sites, b, points)
            points = np.concatenate([np.linspace(p, q, 10) for p, q in zip(points, np.roll(points, -1, 0), strict=True)])
        else:
            moved = straight(sites, b, xi, plane, place)
            points = place + np.linspace(-2, 2, 800)[:, None] * radius * xi
        facts["smooth"] = str(random.choice(["none", "cosine", "gaussians"]))
        facts["range_pi"] = float(random.uniform(0, 1.5))
        moved = moved + smooth(generator, facts["smooth"], sites, g, facts["range_pi"])
        points = points[KDTree(sites).query(points)[0] < 0.75]
        facts |= {"angle": angle, "b": (2 * b).astype(int).tolist(), "g_b": abs(int(np.rint(hkl @ b)))}
    particle = Particle(element, "free", sites * a, (sites + moved) * a, np.zeros(len(sites), bool), {})
    settings = replace(SETTINGS, reflections=(tuple(hkl.tolist()),), elements=(element,))
    sampled = sampling_of(generator, particle, settings, hkl)
    shift = np.zeros(3)
    if len(points):  # the line moves with the atoms around it
        shift = (moved[KDTree(sites).query(points, k=12)[1]].mean(axis=1)) * a
    return facts, particle, points * a + shift, sampled


def sampling_of(generator: torch.Generator, particle: Particle, settings: AtomisticSettings, hkl: np.ndarray) -> Any:
    """Draw a grid for just this reflection, and not for one of those that are equal by symmetry."""
    want = torch.from_numpy(2 * math.pi / LATTICE_PARAMETER[particle.element] * hkl.astype(float))
    while True:
        sampled = draw_sampling(generator, particle, settings)
        if torch.allclose(sampled.g, want):
            return sampled


SIGNS = ((1, 1), (1, -1), (-1, 1), (-1, -1))
SETS = (
    ((1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)),
    ((1, 1, 1), (-1, -1, 1), (2, 0, 0), (0, 2, 0)),
    ((1, 1, 1), (-1, 1, 1), (1, -1, 1), (2, 2, 0)),
)
HALF_110 = np.array([[s, t, 0] for s, t in SIGNS] + [[s, 0, t] for s, t in SIGNS] + [[0, s, t] for s, t in SIGNS]) / 2
ALLOWED = "111 1-11 -111 11-1 200 020 002 220 2-20 022 311"
REFLECTIONS = [np.array([int(part) for part in re.findall("-?[0-9]", name)]) for name in ALLOWED.split()]


def measure(seed: int) -> tuple[dict[str, Any], np.ndarray, torch.Tensor, DiffractionVolume]:
    """Return the facts, the line [m] from the voxel N // 2, the complex amplitudes and the counts of a crystal."""
    facts, particle, points, sampled = draw(seed)
    generator = torch.Generator().manual_seed(seed + 7)
    r = torch.from_numpy(particle.positions) - sampled.origin
    field = diffract_atoms(r, sampled.q, sampled.basis, SETTINGS.shape)
    peak = 10 ** float(4 + 2 * torch.rand((), generator=generator))
    field = field * (math.sqrt(peak) / field.abs().max())
    counts = torch.poisson(field.abs() ** 2, generator=generator)
    volume = DiffractionVolume(
        counts.numpy().astype(np.float32),
        np.ones(SETTINGS.shape, bool),
        name=f"dislocation_{seed}",
        reciprocal_basis=sampled.basis.numpy(),
        q_bragg=sampled.q.numpy(),
        oversampling=sampled.oversampling,
    )
    return {**facts, "photons": peak}, points - sampled.origin.numpy(), field, volume


def true_object(field: torch.Tensor, volume: DiffractionVolume, blur: float = 0.0) -> Reconstruction:
    """Make the crystal that the true phases and the drawn photons give, in a support where it is bright."""
    shape = volume.shape
    phased = torch.polar(torch.from_numpy(np.sqrt(volume.intensity)), field.angle())
    if blur:
        where = [(torch.arange(n) - n // 2) / n for n in shape]
        squared = where[0][:, None, None] ** 2 + where[1][:, None] ** 2 + where[2] ** 2
        phased = phased * torch.exp(-2 * math.pi**2 * blur**2 * squared)
    rho = inverse_fourier(phased.to(torch.complex64)).numpy()
    amplitude = np.abs(rho)
    smoothed = np.abs(np.fft.ifftn(np.fft.fftn(amplitude) * _gauss(shape, 1.0)))
    support = smoothed > 0.25 * np.percentile(smoothed[smoothed > 0.3 * smoothed.max()], 80)
    basis = direct_basis(volume.reciprocal_basis, shape)
    rho = np.where(support, rho, 0).astype(np.complex64)
    return Reconstruction(rho, support, volume, Quality(0.0, 0.0, 0.0, 0.0), basis=basis, verdict="good")


def _gauss(shape: tuple[int, ...], width: float) -> np.ndarray:
    where = [np.fft.fftfreq(n) for n in shape]
    return np.exp(-2 * np.pi**2 * width**2 * (where[0][:, None, None] ** 2 + where[1][:, None] ** 2 + where[2] ** 2))


def compare(found: Reconstruction, points: np.ndarray, facts: dict[str, Any], flipped: bool = False) -> dict[str, Any]:
    """Compare the lines that were found with the true one: distances in voxels, turns, and the share that was found."""
    began = time.perf_counter()
    lines = dislocations(found, np.eye(3))
    spent = time.perf_counter() - began
    voxel = abs(np.linalg.det(found.basis)) ** (1 / 3)
    row: dict[str, Any] = {
        "lines": len(lines),
        "turns": [line.winding for line in lines],
        "confidence": [round(line.confidence, 3) for line in lines],
        "length_voxels": [round(line.length / voxel, 1) for line in lines],
        "closed": [line.is_closed for line in lines],
        "finding_s": round(spent, 3),
    }
    if len(points) and facts.get("g_b") and lines:
        points = -points if flipped else points
        tree = KDTree(points)
        away = [tree.query(line.points)[0] / voxel for line in lines]
        row["away_voxels"] = [round(float(np.median(one)), 3) for one in away]
        depth = points @ np.linalg.inv(found.basis).T + np.array(found.rho.shape) // 2
        inside = found.support[tuple(np.clip(np.rint(depth).astype(int), 0, 63).T)]
        back = KDTree(np.concatenate([line.points for line in lines])).query(points[inside])[0] / voxel
        row["seen_share"] = round(float((back < 2).mean()), 3) if inside.any() else None
    return row


def phase(volume: DiffractionVolume, seed: int, kept: Path) -> Reconstruction:
    """Phase the counts by the default method, or read what an earlier run kept, so that a new finder meets the same crystals."""
    from braggshot.phasing.strategies import phase as run

    if not kept.exists():
        results.write(kept, drain(run(volume, PhasingConfig(seed=seed))))
    return results.read(kept)


def make_row(stage: str, seed: int, folder: Path) -> dict[str, Any]:
    """Make one row: a crystal and what was found in it."""
    began = time.perf_counter()
    facts, points, field, volume = measure(seed)
    if stage.startswith("true"):
        found = true_object(field, volume, float(stage[4:] or 0))
        row = compare(found, points, facts)
    else:
        found = phase(volume, seed, folder / f"phased_{seed}.cxi")
        truth = true_object(field, volume)
        offset, flipped = register(found.rho, truth.rho, truth.basis)
        row = {
            **compare(found, points + (-offset if flipped else offset), facts, flipped),
            "verdict": found.verdict,
            "flipped": flipped,
        }
    return {
        "stage": stage,
        **facts,
        "size_voxels": float(np.cbrt(found.support.sum())),
        **row,
        "seconds": time.perf_counter() - began,
    }


def burgers_row(seed: int) -> dict[str, Any]:
    """Make one row: a line seen by four reflections, each with true phases and drawn photons, and its Burgers vector."""
    began = time.perf_counter()
    generator, random = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    settings = SeveralSettings(cells=26.0, counts=10 ** random.uniform(4, 6))
    hkls = SETS[seed % len(SETS)]
    points = lattice_sites(generator, settings.cells).numpy()
    plane = random.permutation(np.array([1.0, 1.0, 1.0]) * random.choice([-1, 1], 3)) / math.sqrt(3)
    b = next(v for v in random.permutation(HALF_110) if abs(v @ plane) < 1e-9)
    kind = ("edge", "screw", "mixed")[int(random.integers(3))]
    angle = {"edge": 90.0, "screw": 0.0, "mixed": 60.0}[kind]
    unit = b / np.linalg.norm(b)
    xi = math.cos(math.radians(angle)) * unit + math.sin(math.radians(angle)) * np.cross(plane, unit)
    place = random.normal(size=3)
    place *= random.uniform(0, 0.3) * np.linalg.norm(points, axis=1).max() / np.linalg.norm(place)
    moved = straight(points, b, xi, plane, place)
    edge = settings.cell.edges[0]
    body = Body(points[:, ::-1] * settings.stride * edge, moved[:, ::-1] * edge)
    orientation = several.draw_orientation(generator)
    found = []
    for number, g in enumerate(several.scattering_vectors(hkls, settings.cell)):
        scan, rho = several.simulate_reflection(generator, body, g, orientation, settings, f"r{number}")
        window = Window((0, 0, 0), (1, 1, 1), settings.shape)
        basis, q = reciprocal_basis(scan.geometry, window, settings.shape)
        counts = np.asarray(scan.frames).astype(np.float32)
        volume = DiffractionVolume(counts, counts >= 0, f"r{number}", window, basis, q, geometry=scan.geometry)
        found.append(true_object(fourier(torch.from_numpy(rho)), volume))
    table = reflections.resolve({"strain": {"lattice": [edge]}})
    singles, oriented = run.orient_singles(found, [one.volume.name for one in found], hkls, table)
    common = combine.combinations(singles, [True] * len(singles))[0]
    slips = burgers.slips(common, [True] * len(singles), oriented.hkls, oriented.cell)
    row: dict[str, Any] = {"stage": "burgers", "seed": seed, "kind": kind, "angle": angle, "photons": settings.counts}
    row |= {"b": b.tolist(), "turns_true": [int(np.rint(np.dot(h, b))) for h in hkls], "lines": len(slips)}
    if slips:
        first = slips[0]
        row |= {"turns": list(first.turns), "explained": first.explained, "said": burgers.sentence(first)}
        row["found_b"] = None if first.indices is None else [float(part) for part in first.indices]
        known = row["found_b"] is not None
        row["right"] = known and bool(abs(abs(np.dot(row["found_b"], b)) - b @ b) < 1e-9)
        row["angle_found"] = None if first.angles is None else float(np.degrees(np.median(first.angles)))
    return {**row, "seconds": time.perf_counter() - began}


def register(rho: np.ndarray, truth: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, bool]:
    """Find by how much a phased crystal is shifted from the true one [m], and whether it is the twin."""
    found = np.fft.fftn(np.abs(rho))
    best = []
    for flipped in (False, True):
        target = np.abs(truth)
        if flipped:
            target = np.roll(target[::-1, ::-1, ::-1], 1, axis=(0, 1, 2))
        product = np.fft.ifftn(found * np.fft.fftn(target).conj()).real
        place = np.array(np.unravel_index(product.argmax(), product.shape))
        n = np.array(product.shape)
        shift = np.where(place > n // 2, place - n, place)
        moved = np.roll(np.conj(truth[::-1, ::-1, ::-1]) if flipped else truth, 1 if flipped else 0, axis=(0, 1, 2))
        moved = np.roll(moved, shift, axis=(0, 1, 2))
        both = np.abs(moved) * np.abs(rho)
        ramped = [abs(np.fft.fftn(both * np.exp(1j * (np.angle(rho) - np.angle(moved))))).max()]
        best.append((max(ramped), flipped, basis @ shift))
    _, flipped, offset = max(best, key=lambda one: one[0])
    return offset, flipped


def table(rows: list[dict[str, Any]]) -> str:
    """Sum rows up: per stage and kind, how many lines were found, how far off, turns right, false ones."""
    text = [
        "| stage | kind | n | found | median off [voxels] | G.b right | seen | false lines |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for stage in sorted({row["stage"] for row in rows}):
        chosen = [row for row in rows if row["stage"] == stage and row.get("verdict") != "failed"]
        for kind in (*KINDS, "all lines", "invisible", "none"):
            if kind in ("none", "invisible"):
                some = [row for row in chosen if (row["kind"] == "none" if kind == "none" else row.get("g_b") == 0)]
                text.append(f"| {stage} | {kind} | {len(some)} | | | | | {sum(row['lines'] > 0 for row in some)} |")
                continue
            some = [row for row in chosen if row.get("g_b") and kind in (row["kind"], "all lines")]
            hits = [row for row in some if row["lines"]]
            off = [min(row["away_voxels"]) for row in hits]
            right = sum(row["turns"][int(np.argmin(row["away_voxels"]))] == row["g_b"] for row in hits)
            extra = sum(any(one > 3 for one in row["away_voxels"]) for row in hits)
            seen = float(np.mean([row["seen_share"] for row in hits])) if hits else math.nan
            middle = float(np.median(off)) if off else math.nan
            numbers = f"{len(some)} | {len(hits)} | {middle:.2f} | {right} | {seen:.2f} | {extra}"
            text.append(f"| {stage} | {kind} | {numbers} |")
    return "\n".join(text)


def main() -> None:
    """Make the rows that are missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--stage", default="true", help="true, true1 (blurred by one voxel), auto, or burgers (four reflections)")
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if arguments.table:
        print(table(rows))
        return
    done = {(row["stage"], row["seed"]) for row in rows}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.n):
        if (arguments.stage, seed) in done:
            continue
        row = burgers_row(seed) if arguments.stage == "burgers" else make_row(arguments.stage, seed, arguments.output)
        with path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
