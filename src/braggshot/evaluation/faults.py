"""Write raw scans of known crystals with one fault each, as they come from beamlines, and say what a careful user would mask.

Every fault is written to a file or folder of a real format and read back by the readers, so reading is part of the test.
A group of the suite "faults" holds scans of one fault. The group of the same name with "by hand" holds the same scans without the
fault, their lost planes and pixels masked: what can be reached at best. Where nothing is lost, this is the group "no fault".
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.io import registry
from braggshot.io.beamlines import aps_34idc
from braggshot.io.beamlines.instruments import GeometrySettings, build_geometry
from braggshot.prepare import prepare
from braggshot.volumes import BoolArray, ComplexArray, DiffractionVolume, Scan

Counts = NDArray[np.int64]
BY_HAND = ", by hand"  # ending of the name of a group without the fault
CLEAN = "no fault"  # name of the group of scans without a fault
STEP = 0.01  # rocking step of the scans that are written with motors [deg]


@dataclass(frozen=True)
class Fault:
    """A fault of raw scans.

    Parameters
    ----------
    write : write a scan with the fault from its counts into a folder; return the file or folder to read
    lost : (counts) -> True on voxels that the fault takes away, and that a careful user masks; None where it takes none away
    options : options of the reader
    """

    write: Callable[[Path, Counts], Path]
    lost: Callable[[Counts], BoolArray] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def draw(group: str, seed: int, settings: CrystalSettings) -> Callable[[], tuple[ComplexArray, DiffractionVolume]]:
    """Return a function that gives a true crystal, and its pattern as braggshot reads and prepares it."""
    fault = FAULTS.get(group.removesuffix(BY_HAND))

    def drawn() -> tuple[ComplexArray, DiffractionVolume]:
        truth, volume = simulate_volume(seed, settings)
        counts = np.asarray(volume.intensity, np.int64)
        if fault is None or group.endswith(BY_HAND):
            lost = None if fault is None or fault.lost is None else fault.lost(counts)
            return truth, prepare(Scan(counts, volume.name, None if lost is None else ~lost))
        with tempfile.TemporaryDirectory() as folder:
            return truth, prepare(registry.read(fault.write(Path(folder), counts), **fault.options))

    return drawn


def _frames(*numbers: int) -> Callable[[Counts], BoolArray]:
    """Return a function that marks frames, counted from the middle frame."""

    def marked(counts: Counts) -> BoolArray:
        lost = np.zeros(counts.shape, dtype=bool)
        lost[[len(counts) // 2 + number for number in numbers]] = True
        return lost

    return marked


_FLANK = _frames(3, 4, 5)


def _end(counts: Counts) -> BoolArray:
    return np.broadcast_to((np.arange(len(counts)) >= len(counts) - 8)[:, None, None], counts.shape)


def _gap(counts: Counts) -> BoolArray:
    """Mark three columns beside the peak, and a block of bad pixels in a corner."""
    lost = np.zeros(counts.shape, dtype=bool)
    column = counts.shape[2] // 2 + 5
    lost[:, :, column : column + 3] = lost[:, 1:5, 1:6] = True
    return lost


def _write_tiffs(folder: Path, counts: Counts, left_out: BoolArray | None = None) -> Path:
    for number, frame in enumerate(counts):
        if left_out is None or not left_out[number].all():
            tifffile.imwrite(folder / f"img_{number:04d}.tif", frame.astype(np.int32), photometric="minisblack")
    return folder


def _write_lost_numbers(folder: Path, counts: Counts) -> Path:
    return _write_tiffs(folder, counts, _FLANK(counts))


def _write_other_images(folder: Path, counts: Counts) -> Path:
    _write_tiffs(folder, counts)
    for name, image in (("img_sum", counts.sum(0)), ("dark", np.zeros(counts.shape[1:]))):
        tifffile.imwrite(folder / f"{name}.tif", image.astype(np.int32), photometric="minisblack")
    return folder


def _write_hdf5(folder: Path, frames: NDArray[Any]) -> Path:
    with h5py.File(folder / "scan.h5", "w") as file:
        file["entry/data/data"] = frames
    return folder / "scan.h5"


def _write_beam_lost(folder: Path, counts: Counts) -> Path:
    return _write_hdf5(folder, (counts * ~_FLANK(counts)).astype(np.int32))


def _write_unfinished(folder: Path, counts: Counts) -> Path:
    """Write a scan that stopped before its last frames, for which the file already has places."""
    with h5py.File(folder / "scan.h5", "w") as file:
        data = file.create_dataset("entry/data/data", counts.shape, np.int32, chunks=(1, *counts.shape[1:]), compression="gzip")
        data[: len(counts) - 8] = counts[: len(counts) - 8]
    return folder / "scan.h5"


def _write_surplus(folder: Path, counts: Counts) -> Path:
    full = np.full((8, *counts.shape[1:]), 2**16 - 1)
    return _write_hdf5(folder, np.concatenate([counts, full]).astype(np.uint16))


def _write_no_count(folder: Path, counts: Counts) -> Path:
    return _write_hdf5(folder, np.where(_gap(counts), 2**32 - 1, counts).astype(np.uint32))


def _write_unreadable_rows(folder: Path, counts: Counts) -> Path:
    """Write a SPEC file in which a counter of every fifth point is no number."""
    rocking = STEP * (np.arange(len(counts)) - len(counts) // 2)
    angles: dict[str, float | tuple[float, ...]] = {"Theta": tuple(rocking.tolist()), "Delta": 30.0, "Gamma": 10.0}
    settings = GeometrySettings(9000.0, 0.5, aps_34idc.PIXEL, angles, instrument="34idc")
    geometry = build_geometry(settings, counts.shape)
    spec = aps_34idc.write_scan(folder / "scan", counts, np.deg2rad(rocking), geometry, 1)
    lines = spec.read_text().splitlines()
    points = [number for number, line in enumerate(lines) if re.match(r"-?\d", line)]
    for number in points[::5]:
        words = lines[number].split()
        lines[number] = " ".join([*words[:3], "nan", *words[4:]])
    spec.write_text("\n".join(lines) + "\n")
    return spec


def _write_scaled(folder: Path, counts: Counts) -> Path:
    return _write_hdf5(folder, (counts / 1000).astype(np.float32))


def _write_magnitudes(folder: Path, counts: Counts) -> Path:
    tifffile.imwrite(folder / "data.tif", np.sqrt(counts).astype(np.float32), photometric="minisblack")
    return folder / "data.tif"


def _write_signed(folder: Path, counts: Counts) -> Path:
    return _write_hdf5(folder, counts.astype(np.uint16).view(np.int16))


FAULTS = {
    "three numbers of a folder lost": Fault(_write_lost_numbers, _FLANK),
    "a sum and a dark image among the frames": Fault(_write_other_images),
    "three frames without beam": Fault(_write_beam_lost, _FLANK),
    "eight frames never written": Fault(_write_unfinished, _end),
    "eight surplus frames at the maximum": Fault(_write_surplus),
    "2^32 - 1 where nothing is counted": Fault(_write_no_count, _gap),
    "a counter that is no number in every fifth row": Fault(_write_unreadable_rows, options={"scan": 1}),
    "counts divided by 1000": Fault(_write_scaled),
    "square roots of counts": Fault(_write_magnitudes),
    "16-bit counts stored as negative numbers": Fault(_write_signed),
}
"""Faults of raw scans, by the name of their group in the suite "faults"."""

GROUPS = (CLEAN, *FAULTS, *(name + BY_HAND for name, fault in FAULTS.items() if fault.lost is not None))
"""Names of the groups of the suite "faults"."""


def reference(group: str) -> str:
    """Return the name of the group that holds the same scans without their fault."""
    return group + BY_HAND if FAULTS[group].lost is not None else CLEAN
