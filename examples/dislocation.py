"""A screw dislocation in a gold crystal: a raw scan on disk, the public command, and the line that it finds against the true one.

    python examples/dislocation.py [DIR]

The scan is a sum over lattice points, so it holds no field on a grid. Direction, length and distance from the middle of the crystal
are compared in the frame of the sample; they are the same in the twin, which one scan cannot tell from the crystal.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from braggshot import cli, load_result
from braggshot.crystals import several
from braggshot.crystals.atomistic import lattice_sites
from braggshot.crystals.several import Body, SeveralSettings
from braggshot.io.beamlines.aps_34idc import write_scan

SEED, HKL = 3, (1, 1, 1)
SCREW = np.array([0.0, 1.0, 1.0]) / np.sqrt(2)  # direction [110] of line and Burgers vector, components (z, y, x) = c, b, a
PLACE = np.array([0.0, 0.16, -0.16])  # a point of the line, over the extent of the crystal


def main(folder: Path) -> dict[str, tuple[float, float]]:
    """Simulate, write, reconstruct, compare; return what was found and what is true."""
    generator = torch.Generator().manual_seed(SEED)
    settings = SeveralSettings(cells=26.0)
    body, ends = draw_crystal(generator, settings)
    orientation = several.draw_orientation(generator)
    (g,) = several.scattering_vectors([HKL], settings.edge)
    scan, _ = several.simulate_reflection(generator, body, g, orientation, settings, "dislocation")
    assert scan.geometry is not None
    spec = write_scan(folder / "raw", np.asarray(scan.frames), np.asarray(scan.rocking_angle), scan.geometry, 1)
    options = ["--scan", "1", "--hkl", "1,1,1", "--lattice", f"{settings.edge * 1e10:g}", "--set", "strain.frame=sample"]
    print("braggshot reconstruct", spec, *options, "-o", folder / "out")
    if cli.main(["reconstruct", str(spec), *options, "-o", str(folder / "out")]):
        raise SystemExit(1)
    strain = load_result(next((folder / "out").glob("*.cxi"))).strain
    assert strain is not None
    if not strain.lines:
        raise SystemExit("no line was found")
    line = strain.lines[0]
    middle = np.argwhere(strain.support).mean(axis=0) - np.array(strain.support.shape) // 2
    found = describe(line.points[[0, -1]] - strain.basis @ middle)
    true = describe(ends @ orientation.T)
    angle = float(np.degrees(np.arccos(min(1.0, abs(found["along"] @ true["along"])))))
    compared = {
        "G.b": (float(line.winding), 1.0),
        "length [nm]": (1e9 * line.length, 1e9 * true["length"]),
        "distance from the middle [nm]": (1e9 * found["away"], 1e9 * true["away"]),
        "angle to the true line [deg]": (angle, 0.0),
    }
    for name, (measured, known) in compared.items():
        print(f"{name:32} found {measured:7.2f}   true {known:7.2f}")
    (folder / "compared.json").write_text(json.dumps(compared))
    return compared


def draw_crystal(generator: torch.Generator, settings: SeveralSettings) -> tuple[Body, np.ndarray]:
    r"""Draw a facetted crystal with a screw dislocation, :math:`u = b \theta / 2\pi`, and the two ends of its line."""
    points = lattice_sites(generator, settings.cells).flip(1).numpy()
    place = PLACE * np.ptp(points, axis=0)
    across, beside = np.array([1.0, 0.0, 0.0]), np.cross(SCREW, [1.0, 0.0, 0.0])
    theta = np.arctan2((points - place) @ beside, (points - place) @ across)
    slip = settings.edge / np.sqrt(2) * np.outer(theta / (2 * np.pi), SCREW)
    sites = points * settings.stride * settings.edge
    sites = sites - sites.mean(axis=0)
    line = place * settings.stride * settings.edge - (points * settings.stride * settings.edge).mean(axis=0)
    near = np.linalg.norm(np.cross(sites - line, SCREW), axis=1) < 1.5 * settings.stride * settings.edge
    heights = (sites[near] - line) @ SCREW
    return Body(sites, slip), line + np.outer([heights.min(), heights.max()], SCREW)


def describe(ends: np.ndarray) -> dict[str, np.ndarray]:
    """Return the direction of a straight line between two ends, its length, and its distance from the origin."""
    length = np.linalg.norm(ends[1] - ends[0])
    along = (ends[1] - ends[0]) / length
    return {"along": along, "length": length, "away": np.linalg.norm(np.cross(ends[0], along))}


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "dislocation-output"))
