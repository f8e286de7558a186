"""Objects of other programs against the counts: which are accepted, and whether their volume and strain are then right.

    python benchmarks/foreign_objects.py --crystals 10

Each simulated crystal is measured once, and phased as another program might: by error reduction from the true crystal, whole,
in a smaller window, or from binned counts. The file is then as that program or a careless copy may leave it: cropped to its
support, mirrored, conjugate. One object belongs to another crystal. `postprocess` must give each object the volume and strain of
the crystal, or refuse it; only the object of the other crystal may be refused.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import torch

from braggshot.crystal_frame import StrainConfig, strain_map
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.crystals.scan import gold_at_34idc
from braggshot.errors import DataError
from braggshot.iterative.iterate import Guess, IterativeConfig, run_starts
from braggshot.iterative.projections import ShrinkWrap, measured
from braggshot.physics import metrics
from braggshot.physics.fourier import crop, fourier, inverse_fourier, pad, to_centre, to_corner
from braggshot.physics.geometry import direct_basis, reciprocal_basis
from braggshot.physics.strain import summary_table
from braggshot.pipeline import drain
from braggshot.postprocess import postprocess
from braggshot.volumes import BoolArray, ComplexArray, DiffractionVolume, Quality, Reconstruction, Scan, StrainMap, Window

SETTINGS = CrystalSettings(shape=(64, 96, 80), oversampling=(2.6, 4.5), phase_range=(0.5, 5.0), steepest=1.5, counts=(1e4, 1e6))
LARGER = CrystalSettings(shape=(64, 96, 80), oversampling=(4.6, 7.0), phase_range=(0.5, 5.0), steepest=1.5, counts=(1e4, 1e6))
VOXEL = 6e-9  # edge of the voxels of all strain maps [m]
# A result is right within these: relative errors of volume, spread of strain and mean spacing at most, correlation at least [1].
VOLUME, STRAIN, SPACING, SAME = 0.05, 0.15, 2e-5, 0.95


@dataclass(frozen=True)
class Crystal:
    """A raw scan and what perfect phasing makes of it."""

    scan: Scan
    truth: ComplexArray
    support: BoolArray


@dataclass(frozen=True)
class Phased:
    """An object as another program stores it, and its support."""

    rho: ComplexArray
    support: BoolArray


def simulate(seed: int, settings: CrystalSettings = SETTINGS) -> Crystal:
    """Draw a crystal and its scan at APS 34-ID-C."""
    rho, volume = simulate_volume(seed, settings)
    scan = Scan(volume.intensity, name=f"crystal_{seed}", geometry=gold_at_34idc(settings.shape[0], np.radians(0.01)))
    amplitude = np.abs(rho)
    return Crystal(scan, rho, amplitude > 0.1 * np.percentile(amplitude[amplitude > 0], 90))


def phase(crystal: Crystal, window: Sequence[int], binning: Sequence[int] = (1, 1, 1), offset: Sequence[int] = (0, 0, 0)) -> Phased:
    """Phase a window of the scan, its width and offset from the middle in raw voxels, by error reduction from the true crystal."""
    shape = crystal.truth.shape
    part = tuple(slice(n // 2 + o - w // 2, n // 2 + o - w // 2 + w) for n, w, o in zip(shape, window, offset, strict=True))
    counts = np.asarray(crystal.scan.frames)[part]
    small = tuple(w // b for w, b in zip(window, binning, strict=True))
    counts = counts.reshape(small[0], binning[0], small[1], binning[1], small[2], binning[2]).sum((1, 3, 5))
    field = fourier(torch.from_numpy(crystal.truth))[part]
    rho = crop(inverse_fourier(field), small)
    amplitude = rho.abs()
    support = amplitude > 0.2 * torch.quantile(amplitude[amplitude > 0.1 * amplitude.max()], 0.9)
    valid = torch.ones(small, dtype=torch.bool)
    data = measured(torch.from_numpy(counts), valid, ~valid)
    scale = float(np.sqrt(counts.sum()) / torch.linalg.vector_norm(rho))
    guess = Guess(to_corner(rho * support * scale), to_corner(support))
    settings = IterativeConfig(recipe="60*ER", shrink_wrap=ShrinkWrap(period=0))
    (start,) = drain(run_starts(data, settings, 1, first=[guess]))
    return Phased(to_centre(start.rho).numpy(), support.numpy())


def cropped(phased: Phased, margin: int = 2) -> Phased:
    """Crop to the bounding box of the support with a margin."""
    inside = np.argwhere(phased.support)
    box = tuple(slice(max(0, low - margin), high + 1 + margin) for low, high in zip(inside.min(0), inside.max(0), strict=True))
    return Phased(phased.rho[box], phased.support[box])


def mirrored(phased: Phased, *axes: int) -> Phased:
    """Mirror along some axes."""
    return Phased(np.flip(phased.rho, axes), np.flip(phased.support, axes))


def conjugate(phased: Phased) -> Phased:
    """Take the complex conjugate."""
    return replace(phased, rho=phased.rho.conj())


def objects(crystal: Crystal, large: Crystal, other: Crystal) -> Iterator[tuple[str, Crystal, Phased, bool]]:
    """Yield name, the scan, the object, and whether it belongs to the scan."""
    shape = crystal.truth.shape
    whole = phase(crystal, shape)
    window = phase(crystal, [n - 16 for n in shape], offset=(2, -3, 4))
    yield "as phased", crystal, whole, True
    yield "another window", crystal, window, True
    yield "cropped", crystal, cropped(whole), True
    yield "cropped, another window", crystal, cropped(window), True
    for axis, name in enumerate(("rocking", "row", "column")):
        yield f"mirrored along {name}", crystal, mirrored(whole, axis), True
    yield "mirrored along row and column", crystal, mirrored(whole, 1, 2), True
    yield "mirrored, cropped", crystal, mirrored(cropped(whole), 2), True
    yield "conjugate", crystal, conjugate(whole), True
    yield "conjugate, cropped", crystal, conjugate(cropped(whole)), True
    binned = phase(large, shape, (1, 2, 2))
    yield "binned 1 x 2 x 2", large, binned, True
    yield "binned 2 x 2 x 2", large, phase(large, shape, (2, 2, 2)), True
    yield "binned, cropped", large, cropped(binned), True
    yield "another scan's", crystal, phase(other, other.truth.shape), False
    yield "another scan's, cropped", crystal, cropped(phase(other, other.truth.shape)), False


def store(path: Path, phased: Phased) -> None:
    """Write an object as a bare CXI."""
    with h5py.File(path, "w") as file:
        image = file.create_group("entry_1/image_1")
        image["data"], image["mask"] = phased.rho, phased.support.astype(np.int8)
        image["process_1/program"] = "another program"


def true_strain(crystal: Crystal) -> StrainMap:
    """Compute the strain map of the true crystal on the whole grid."""
    shape = crystal.truth.shape
    basis, q = reciprocal_basis(crystal.scan.geometry, Window((0, 0, 0), (1, 1, 1), shape), shape)
    volume = DiffractionVolume(np.asarray(crystal.scan.frames), np.ones(shape, bool), reciprocal_basis=basis, q_bragg=q)
    found = Reconstruction(crystal.truth, crystal.support, volume, Quality(0, 0, 0, 0), basis=direct_basis(basis, shape))
    return strain_map(found, StrainConfig(frame="lab", voxel_size=VOXEL))


@dataclass(frozen=True)
class Errors:
    """A result against the truth: relative error of volume and of strain's spread, error of mean spacing, correlation of fields."""

    volume: float
    strain: float
    spacing: float
    correlation: float

    @property
    def right(self) -> bool:
        """Tell whether volume, strain and shape are those of the crystal."""
        near = abs(self.volume) < VOLUME and abs(self.strain) < STRAIN and abs(self.spacing) < SPACING
        return near and self.correlation > SAME


def errors(found: StrainMap, truth: StrainMap) -> Errors:
    """Compare two strain maps of the same frame and voxel size; the twin, which no counts tell, is free."""
    ours, theirs = summary_table(found), summary_table(truth)
    size = [max(pair) for pair in zip(found.support.shape, truth.support.shape, strict=True)]
    fields = [one.amplitude * np.exp(1j * one.phase) * one.support for one in (found, truth)]
    both = metrics.align(*(pad(torch.from_numpy(field.astype(np.complex64)), size) for field in fields))
    return Errors(
        ours["volume_m3"] / theirs["volume_m3"] - 1,
        ours["strain_std"] / theirs["strain_std"] - 1,
        ours["d_spacing_m"] / theirs["d_spacing_m"] - 1,
        both.correlation,
    )


def attempt(folder: Path, crystal: Crystal, phased: Phased) -> Reconstruction | None:
    """Give an object to `postprocess`; None if it is refused."""
    store(folder / "object.cxi", phased)
    try:
        return postprocess(folder / "object.cxi", crystal.scan, {"strain": {"frame": "lab", "voxel_size": VOXEL}})
    except DataError:
        return None


def main() -> None:
    """Print one line per object, and how many were accepted wrongly or refused though they are right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystals", type=int, default=10)
    parser.add_argument("--first", type=int, default=31_000)
    arguments = parser.parse_args()
    counted: Counter[str] = Counter()
    print("| crystal | object | verdict | sqrt(chi2) | volume | strain | spacing | correlation | grid | seconds | outcome |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for seed in range(arguments.first, arguments.first + arguments.crystals):
        for line, outcome in rows(seed):
            counted[outcome] += 1
            print(f"| {seed} | {line} | {outcome} |", flush=True)
    print(", ".join(f"{number} {outcome}" for outcome, number in sorted(counted.items())))


def rows(seed: int) -> Iterator[tuple[str, str]]:
    """Try all objects of one crystal; yield the cells of each, and the outcome in words."""
    crystal, large, other = simulate(seed), simulate(seed + 1000, LARGER), simulate(seed + 2000)
    truths = {one.scan.name: true_strain(one) for one in (crystal, large)}
    with tempfile.TemporaryDirectory() as folder:
        for name, scan, phased, belongs in objects(crystal, large, other):
            began = time.perf_counter()
            found = attempt(Path(folder), scan, phased)
            seconds = f"{time.perf_counter() - began:.0f}"
            if found is None or found.strain is None:
                yield f"{name} | refused | | | | | | | {seconds}", "right refused" if belongs else "wrong refused"
                continue
            off = errors(found.strain, truths[scan.scan.name])
            right = belongs and off.right
            cells = f"{off.volume:+.3f} | {off.strain:+.3f} | {off.spacing:+.1e} | {off.correlation:.3f}"
            grid = found.choices["grid"].removeprefix("phased as ")
            yield (
                f"{name} | {found.verdict} | {found.quality.chi2**0.5:.3f} | {cells} | {grid} | {seconds}",
                "right accepted" if right else "accepted wrongly",
            )


if __name__ == "__main__":
    main()
