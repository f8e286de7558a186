"""Refuse to add scans that were not measured in the same way; tell in which direction a scan was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from braggshot.errors import DataError
from braggshot.physics.geometry import KEV, mean_energy
from braggshot.prepare.rocking import stepped_values
from braggshot.volumes import Circle, FloatArray, Geometry, Scan

ENERGY = 2e-4  # largest relative difference of photon energies that repeats may have [1]
LENGTH = 1e-3  # largest relative difference of distances and pixel sizes [1]
STEP = 1e-2  # largest relative difference of the ranges of angles or energies [1]
DETECTOR = 1e-3  # largest difference of the detector's angles [rad]
SAMPLE = 1e-2  # largest difference of the sample's angles, at the middle of a scan [rad]


def refuse_others(scans: Sequence[Scan]) -> None:
    """Refuse scans that cannot be added.

    Raises
    ------
    DataError : for fewer than two scans, a scan given twice, or scans of another shape, detector, photon energy or geometry.
    """
    if len(scans) < 2:
        name = scans[0].name if scans else "nothing"
        raise DataError(f"{name}: a sum needs two scans or more; give all repeats, or leave the sum out.")
    seen: dict[tuple[str, ...], str] = {}
    for scan in scans:
        path, options = scan.provenance.get("path"), dict(scan.provenance.get("options") or {})
        if path is not None:
            key = (str(Path(path).resolve()), *(f"{name}={options[name]}" for name in sorted(options)))
            if key in seen:
                raise DataError(f"{scan.name}: the same scan is given twice ({path}); its counts would be added twice.")
            seen[key] = scan.name
    for scan in scans[1:]:
        for what in _differences(scans[0], scan):
            raise DataError(f"{scan.name} is no repeat of {scans[0].name}: {what}.")


def runs_down(scan: Scan) -> bool:
    """Tell whether the rocking angle or the photon energy falls from frame to frame."""
    values = None if scan.prepared else stepped_values(scan)[0]
    if values is None:
        return False
    known = np.asarray(values, dtype=float)[np.isfinite(values)]
    return known.size > 1 and float(known[known.size // 2 :].mean()) < float(known[: known.size // 2].mean())


def _differences(one: Scan, two: Scan) -> Iterator[str]:
    """Say in words how two scans differ in what must be the same."""
    shapes = tuple(one.frames.shape), tuple(two.frames.shape)
    if shapes[0] != shapes[1]:
        yield f"it has the shape {shapes[1]}, not {shapes[0]} (frames, rows, columns)"
    if one.detector != two.detector:
        yield f"its detector is {two.detector}, not {one.detector}"
    if one.prepared != two.prepared:
        yield "one of them is prepared already, the other is raw"
    first, second = one.geometry, two.geometry
    if first is None or second is None:
        if (first is None) != (second is None):
            yield "the geometry of only one of them is known"
        return
    yield from _other_geometry(first, second)
    values, others = stepped_values(one)[0], stepped_values(two)[0]
    if values is not None and others is not None:
        ratio = _range(others) / max(_range(values), 1e-30)
        if abs(ratio - 1) > STEP:
            yield f"its steps are {ratio:.3f} times as large"


def _other_geometry(first: Geometry, second: Geometry) -> Iterator[str]:
    energies = mean_energy(first), mean_energy(second)
    if abs(energies[1] / energies[0] - 1) > ENERGY:
        yield f"its photon energy is {energies[1] / KEV:.4f} keV, not {energies[0] / KEV:.4f} keV"
    if not np.isclose(first.distance, second.distance, rtol=LENGTH):
        yield f"its detector is {second.distance:.4g} m away, not {first.distance:.4g} m"
    if not np.allclose(first.pixel_size, second.pixel_size, rtol=LENGTH):
        yield "its pixels have another size"
    axes = [(geometry.row_axis, geometry.column_axis) for geometry in (first, second)]
    if axes[0] != axes[1]:
        yield "the image is turned"
    for what, limit, circles, others in (
        ("detector", DETECTOR, first.detector, second.detector),
        ("sample", SAMPLE, first.sample, second.sample),
    ):
        if [circle.axis for circle in circles] != [circle.axis for circle in others]:
            yield f"the {what} stands on other circles"
            continue
        for circle, other in zip(circles, others, strict=True):
            apart = abs(_middle(other) - _middle(circle))
            if apart > limit:
                yield f"the {what} stands elsewhere: {other.name or other.axis} differs by {np.degrees(apart):.3f} degrees"


def _range(values: FloatArray) -> float:
    return float(np.nanmax(values) - np.nanmin(values))


def _middle(circle: Circle) -> float:
    return float(np.nanmean(circle.angle))
