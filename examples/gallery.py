"""Pictures of the manual's gallery: simulated crystals whose truth is known, phased by the public functions.

    python examples/gallery.py -o docs/images            # all, some minutes on one core
    python examples/gallery.py -o . --only growing --small

Every panel of an object shows the phase where the amplitude is above a quarter of its largest, in the central plane across the
rocking axis, after global phase, shift and twin are aligned to the truth.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import braggshot
from braggshot.crystals.sample import CrystalSettings
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import phase
from braggshot.physics.metrics import align
from braggshot.pipeline import drain
from braggshot.volumes import ComplexArray, DiffractionVolume, Reconstruction

SEED = 3
STILL = {"shear": 0.0, "shift": 0.0, "tilt": 0.0, "shapes": ("fcc",), "redraws": 10, "anisotropy": 1.2}


def crystal(size: int, turns: float, counts: float, field: str = "correlated") -> tuple[ComplexArray, DiffractionVolume]:
    """Draw the same crystal whatever the arguments: a facetted one whose phase spans `turns` times 2 pi."""
    span = 2 * math.pi * turns
    settings = CrystalSettings(
        (size,) * 3, (2.4, 2.8), phase_range=(span, span), counts=(counts, counts), displacements=(field,), **STILL
    )
    return braggshot.simulate_volume(SEED, settings)


def phased(volume: DiffractionVolume, method: str, starts: int = 5) -> Reconstruction:
    """By the pipeline's own stage; full coherence, as these crystals have."""
    return drain(phase(volume, PhasingConfig(method=method, starts=starts, partial_coherence="off")))


def aligned(found: Reconstruction, truth: ComplexArray) -> tuple[ComplexArray, float]:
    """Align the object to the truth; return it and their correlation."""
    result = align(torch.from_numpy(found.rho), torch.from_numpy(truth))
    return result.field.numpy(), result.correlation


def draw_object(axes: Axes, rho: ComplexArray, title: str) -> None:
    """Phase in the central plane, white outside the crystal."""
    plane = rho[rho.shape[0] // 2]
    inside = np.abs(plane) > 0.25 * np.abs(rho).max()
    axes.imshow(np.where(inside, np.angle(plane), np.nan), cmap="twilight", vmin=-math.pi, vmax=math.pi, origin="upper")
    quarter = plane.shape[0] // 5
    axes.set(xlim=(quarter, plane.shape[1] - quarter), ylim=(plane.shape[0] - quarter, quarter))
    finish_panel(axes, title)


def draw_counts(axes: Axes, volume: DiffractionVolume, title: str, across: int = 0) -> None:
    """Draw counts in a central plane, logarithmic; grey where not valid."""
    index = volume.shape[across] // 2
    counts, valid = (array.take(index, axis=across) for array in (volume.intensity, volume.valid))
    shades = mpl.colormaps["magma"].with_extremes(bad="0.6")
    norm = mpl.colors.LogNorm(0.5, max(volume.intensity.max(), 2))
    axes.imshow(np.where(valid, np.maximum(counts, 0.5), np.nan), cmap=shades, norm=norm)
    finish_panel(axes, title)


def finish_panel(axes: Axes, title: str) -> None:
    """Title and no ticks."""
    axes.set_title(title, fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])


def sheet(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """Make a figure of panels that needs no screen."""
    figure = Figure(figsize=(2.1 * columns, 2.3 * rows), dpi=110, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def strain(small: bool) -> Figure:
    """Show how strain changes a pattern."""
    size = 32 if small else 64
    kinds = [("no strain", 0.0, "correlated"), ("phase over 1 pi", 0.5, "correlated"), ("3 pi", 1.5, "correlated"),
             ("screw dislocation", 0.25, "screw")]  # fmt: skip
    figure, panels = sheet(2, len(kinds))
    for column, (title, turns, field) in zip(panels.T, kinds, strict=True):
        truth, volume = crystal(size, turns, 1e6, field)
        draw_object(column[0], truth, title)
        draw_counts(column[1], volume, f"brightest voxel: {volume.intensity.max():.0e} photons")
    return figure


def methods(small: bool) -> Figure:
    """One mildly strained crystal by each method."""
    truth, volume = crystal(32 if small else 64, 0.5, 1e6)
    names = ["oneshot", "refine", "iterative"]
    figure, panels = sheet(1, 1 + len(names))
    draw_object(panels[0, 0], truth, "truth")
    for axes, name in zip(panels[0, 1:], names, strict=True):
        found = phased(volume, name)
        rho, correlation = aligned(found, truth)
        draw_object(axes, rho, f"{name}: {found.verdict}\ncorrelation {correlation:.3f}")
    return figure


def photons(small: bool) -> Figure:
    """Show the same crystal with fewer and fewer photons."""
    return row_of(
        [(f"{counts:.0e} photons", *crystal(32 if small else 48, 0.5, counts)) for counts in (1e2, 1e3, 1e4, 1e6)],
        lambda volume: phased(volume, "iterative"),
    )


def growing(small: bool) -> Figure:
    """Show a scan that is not over: frames that have not come are not valid, and float."""
    truth, volume = crystal(32 if small else 64, 0.25, 1e6)
    parts = [(f"{share:.0%} of the frames", truth, cut_short(volume, share)) for share in (0.45, 0.55, 0.7, 1.0)]
    return row_of(parts, lambda part: phased(part, "refine"), across=1)


def cut_short(volume: DiffractionVolume, share: float) -> DiffractionVolume:
    """Keep the first frames of a scan."""
    come = np.arange(volume.shape[0]) < round(share * volume.shape[0])
    valid = volume.valid & come[:, None, None]
    return replace(volume, valid=valid, intensity=np.where(valid, volume.intensity, 0))


def row_of(
    cases: Sequence[tuple[str, ComplexArray, DiffractionVolume]],
    solve: Callable[[DiffractionVolume], Reconstruction],
    across: int = 0,
) -> Figure:
    """Draw counts above, and below the crystal that they give."""
    figure, panels = sheet(2, len(cases))
    for column, (title, truth, volume) in zip(panels.T, cases, strict=True):
        found = solve(volume)
        rho, correlation = aligned(found, truth)
        draw_counts(column[0], volume, title, across)
        draw_object(column[1], rho, f"{found.verdict}, correlation {correlation:.3f}")
    return figure


def twin(small: bool) -> Figure:
    """Show a crystal and its twin, conj(rho(-r)): phase, strain along q and counts."""
    truth, volume = crystal(32 if small else 64, 0.5, 1e6)
    centred = np.fft.ifftshift(truth)
    turned = np.fft.fftshift(np.roll(centred[::-1, ::-1, ::-1], 1, axis=(0, 1, 2)).conj())
    figure, panels = sheet(2, 3)
    for row, rho, name in zip(panels, (truth, turned), ("crystal", "its twin"), strict=True):
        draw_object(row[0], rho, f"{name}: phase")
        draw_strain(row[1], rho, "strain (q up)")
        counts = np.abs(np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(rho), norm="ortho"))) ** 2
        scale = volume.intensity.max() / counts.max()
        draw_counts(row[2], replace(volume, intensity=counts * scale, valid=np.ones_like(volume.valid)), "counts")
    return figure


def draw_strain(axes: Axes, rho: ComplexArray, title: str) -> None:
    """Draw the strain along the rows' axis in the central plane, -d(phase)/dy without unwrapping, white outside the crystal."""
    plane = rho[rho.shape[0] // 2]
    step = np.angle(plane[:-1] * plane[1:].conj())
    level = 0.25 * np.abs(rho).max()
    inside = (np.abs(plane[:-1]) > level) & (np.abs(plane[1:]) > level)
    axes.imshow(np.where(inside, step, np.nan), cmap="RdBu_r", vmin=-0.2, vmax=0.2, origin="upper")
    quarter = plane.shape[0] // 5
    axes.set(xlim=(quarter, plane.shape[1] - quarter), ylim=(plane.shape[0] - quarter, quarter))
    finish_panel(axes, title)


SHEETS: dict[str, Callable[[bool], Figure]] = {
    "strain": strain, "methods": methods, "photons": photons, "growing": growing, "twin": twin,
}  # fmt: skip


def main(folder: Path, only: Sequence[str] = (), small: bool = False) -> list[Path]:
    """Write ``gallery-NAME.png`` of each sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in only or SHEETS:
        written.append(folder / f"gallery-{name}.png")
        SHEETS[name](small).savefig(written[-1])
        print(written[-1], flush=True)
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery"))
    parser.add_argument("--only", nargs="+", choices=SHEETS, default=())
    parser.add_argument("--small", action="store_true", help="small crystals, as the tests run it")
    arguments = parser.parse_args()
    main(arguments.output, arguments.only, arguments.small)
