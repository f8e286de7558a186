r"""Add repeats of one scan: align them, leave out those in which the crystal changed or moved away, and sum the counts.

Each scan is corrected as `prepare` does it, on the raw voxels of the detector and the rocking grid. Its pattern is aligned, by
whole voxels with its mask; what they leave is interpolated, because it would blur the sum. Where fractions are left as they are,
the offset common to all is chosen so that they are small. The sum is

.. math:: I(x) = \frac{\sum_k s_k}{\sum_k s_k v_k(x)} \sum_k v_k(x)\, I_k(x + u_k),

with the shift u, the mask v and the relative counts s of each scan. A voxel that no scan has measured is masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.config import Changes
from braggshot.errors import ConfigError, DataError
from braggshot.prepare.alignment import Difference, compare, interpolate, measure_shift
from braggshot.prepare.config import DEFAULTS, PrepareConfig
from braggshot.prepare.region import Region, read_corrected, region_about_peak
from braggshot.prepare.same_setup import refuse_others
from braggshot.prepare.window import cut
from braggshot.volumes import BoolArray, FloatArray, Geometry, Scan

BOX = 96  # largest edge of the box about the peak in which scans are aligned and compared [voxels]
PAIRED = 64  # largest edge of the box in which each scan is compared with each other [voxels]
SIGMAS = 5.0  # standard deviations of chi2 by which it must lie above 1, so that photon noise alone is no reason [1]
HARMLESS = 0.05  # fraction of a voxel up to which counts are left where they are [voxels]
WHOLE = 0.999  # share of the full exposure from which a voxel counts as fully exposed [1]
Vector = NDArray[np.float64]
Pattern = tuple[FloatArray, BoolArray]  # counts and their mask


@dataclass(frozen=True, repr=False)
class RepeatsConfig(Changes):
    """Settings of the sum of repeats.

    Parameters
    ----------
    keep : "auto" leaves out scans in which the crystal changed or moved too far; "all" keeps every scan
    unlike : largest difference of magnitudes beyond photon noise, relative to the magnitudes, with which a scan is kept [1]
    moved : largest shift with which a scan is kept [voxels]
    interpolate : interpolate what whole voxels leave of a shift, from 0.05 voxels on; the noise is then no longer quite that of
        photons. Without it fractions are left as they are, which blurs the pattern
    """

    keep: Literal["auto", "all"] = "auto"
    unlike: float = 0.04
    moved: float = 10.0
    interpolate: bool = True

    def __post_init__(self) -> None:
        if not (self.unlike > 0 and self.moved > 0):
            raise ConfigError(f"repeats.unlike and repeats.moved must be positive, found {self.unlike} and {self.moved}.")


REPEATS = RepeatsConfig()
"""Settings of a sum about which nothing is said."""


@dataclass(frozen=True)
class Match:
    """How a scan matches the others: its `shift` relative to them [voxels], how it differs, and why it is left out ("" if not)."""

    shift: Vector
    difference: Difference
    fault: str = ""


def sum_repeats(scans: Sequence[Scan], preparation: PrepareConfig = DEFAULTS, settings: RepeatsConfig = REPEATS) -> Scan:
    """Add repeats of one scan.

    Parameters
    ----------
    scans : raw scans of one crystal, measured in the same way
    preparation : settings of the corrections
    settings : settings of the sum

    Returns
    -------
    A scan of corrected counts, the sum of all scans that were kept. Its provenance names all scans; `provenance["repeats"]` says in
    words what was done; its ``provenance["kept"]`` names the scans in the sum. If only one scan is kept, it is this one, as it was
    measured.

    Raises
    ------
    DataError : for a single scan, a scan given twice, or scans of another energy, geometry or detector.
    """
    refuse_others(scans)
    region = region_about_peak(scans[0], preparation)
    patches = [_read_box(scan, preparation, region) for scan in scans]
    _refuse_unfit(scans, patches)
    first, shifts = choose_reference(patches)
    matches = match(patches, first, shifts, settings)
    kept = [index for index, found in enumerate(matches) if not found.fault]
    said = describe(scans, matches, settings)
    if len(kept) == 1:
        only = scans[kept[0]]
        return replace(only, provenance=_name_scans(only, scans, said) | {"kept": [only.name]})
    about = scans[first if first in kept else kept[0]]
    total, geometry, remarks = _add(scans, matches, (preparation, settings, region))
    counts, valid = total.pattern()
    share = float((valid & (total.exposure <= WHOLE * total.full)).mean())
    if share > 0:
        said += (f"{100 * share:.2g} % of the voxels are masked in some scans: their counts are scaled to the full exposure",)
    mixed = any(scans[index].flat is not None or np.rint(matches[index].shift)[1:].any() for index in kept)
    names = [scans[index].name for index in kept]
    provenance = _name_scans(about, scans, said, remarks) | {"corrected": True, "pixels_mixed": mixed, "kept": names}
    return replace(
        about, frames=counts, valid=valid, name=f"{about.name}_sum{len(kept)}", dark=None, flat=None, monitor=None,
        rocking_angle=None, arrived=None, geometry=geometry, provenance=provenance,
    )  # fmt: skip


def choose_reference(patches: Sequence[Pattern]) -> tuple[int, list[Vector]]:
    """Return the scan that resembles the others most, and the shift of each scan relative to it.

    Scans are aligned with the one of most counts and compared in pairs. The reference has the least median difference from the
    others.
    """
    brightest = int(np.argmax([float(counts.sum()) for counts, _ in patches]))
    shifts = [measure_shift(*patch, *patches[brightest]) for patch in patches]
    middle = [size // 2 for size in patches[0][0].shape]
    boxes = [_central(patch, middle, PAIRED) for patch in patches]
    unlike = np.zeros((len(patches), len(patches)))
    for one in range(len(patches)):
        for two in range(one):
            found = compare(*boxes[one], *boxes[two], shifts[one] - shifts[two]).unlike
            unlike[one, two] = unlike[two, one] = 1.0 if np.isnan(found) else found
    others = unlike[~np.eye(len(patches), dtype=bool)].reshape(len(patches), -1)
    typical = np.median(others, axis=1)
    alike = np.flatnonzero(typical <= typical.min() + 1e-3).tolist()
    counts = [float(patches[index][0].sum()) for index in alike]
    first: int = alike[int(np.argmax(counts))]
    return first, [np.zeros(3) if patch is patches[first] else measure_shift(*patch, *patches[first]) for patch in patches]


def match(patches: Sequence[Pattern], first: int, shifts: Sequence[Vector], settings: RepeatsConfig) -> list[Match]:
    """Compare each scan with the reference, and then with the sum of all others that were kept; decide which to keep."""
    matches = [judge(Match(shift, compare(*patch, *patches[first], shift)), settings)
               for patch, shift in zip(patches, shifts, strict=True)]  # fmt: skip
    matches[first] = replace(matches[first], fault="")
    sums = [_total(patches, matches, index) for index in range(len(patches))]
    for index, total in enumerate(sums):
        if total is not None and not (index == first and len(patches) == 2):
            shift = measure_shift(*patches[index], *total)
            difference = replace(compare(*patches[index], *total, shift), scale=matches[index].difference.scale)
            matches[index] = judge(Match(shift, difference), settings)
    if all(found.fault for found in matches):
        matches[first] = replace(matches[first], fault="")
    kept = [found.shift for found in matches if not found.fault]
    offset = np.zeros(3) if settings.interpolate else common_offset(np.array(kept))
    return [replace(found, shift=found.shift - offset) for found in matches]


def judge(found: Match, settings: RepeatsConfig) -> Match:
    """Say why a scan is left out; the fault stays empty if it is kept."""
    moved, difference, fault = float(np.abs(found.shift).max()), found.difference, ""
    if settings.keep == "all":
        return found
    if moved > settings.moved:
        fault = f"it moved by {moved:.1f} voxels"
    elif np.isnan(difference.unlike):
        fault = f"only {difference.voxels} voxels of it are bright enough to be compared"
    elif difference.unlike > settings.unlike and difference.chi2 > 1 + SIGMAS * np.sqrt(2.25 / difference.voxels):
        fault = f"its magnitudes differ by {100 * difference.unlike:.0f} % beyond photon noise (chi2 {difference.chi2:.1f})"
    return replace(found, fault=fault)


def common_offset(shifts: NDArray[np.float64]) -> Vector:
    """Return the offset which, taken off all shifts (n, 3), leaves the least from whole voxels; at most half a voxel."""
    tried = np.linspace(-0.5, 0.5, 41)[:, None, None]
    left = shifts[None] - tried
    squared = ((left - np.rint(left)) ** 2).sum(1) + 1e-6 * tried[:, 0] ** 2  # of equal ones, the nearest to zero
    return np.asarray(tried[:, 0, 0][squared.argmin(0)])


def move(pattern: Pattern, shift: Vector, fractions: bool) -> Pattern:
    """Move a pattern that lies at `shift` back, by whole voxels with its mask; with `fractions`, interpolate what they leave."""
    counts, valid = pattern
    if not fractions or np.abs(shift - np.rint(shift)).max() < HARMLESS:
        whole = np.rint(shift).astype(int).tolist()
        return cut(counts, whole, counts.shape), cut(valid, whole, valid.shape)
    valid = cut(ndimage.binary_erosion(valid), np.rint(shift).astype(int).tolist(), valid.shape)
    return np.maximum(interpolate(counts, -shift), 0) * valid, valid


def _total(patches: Sequence[Pattern], matches: Sequence[Match], left_out: int) -> Pattern | None:
    """Return the sum of the kept patterns except one, interpolated so that no shift blurs it; None if there is none."""
    total = Total.empty(patches[0][0].shape)
    for index, (patch, found) in enumerate(zip(patches, matches, strict=True)):
        if index != left_out and not found.fault:
            total.add(*move(patch, found.shift, fractions=True), found.difference.scale)
    return total.pattern() if total.full > 0 else None


@dataclass
class Total:
    """Counts that are being summed, the exposure of each voxel, and the exposure of a voxel that every scan has measured."""

    counts: NDArray[np.float32]
    exposure: NDArray[np.float32]
    full: float = 0.0

    @classmethod
    def empty(cls, shape: Sequence[int]) -> Total:
        """Return a sum of no scans."""
        return cls(np.zeros(tuple(shape), np.float32), np.zeros(tuple(shape), np.float32))

    def add(self, counts: FloatArray, valid: BoolArray, weight: float) -> None:
        """Add the counts of a scan, whose exposure relative to the others is `weight`."""
        self.counts += counts * valid
        self.exposure += np.float32(weight) * valid
        self.full += weight

    def pattern(self) -> Pattern:
        """Return the counts at full exposure, and the mask of the voxels that any scan has measured."""
        valid = self.exposure > 0
        is_full = self.exposure > WHOLE * self.full  # there the counts stay whole numbers
        return self.counts * np.where(is_full | ~valid, 1, np.float32(self.full) / np.where(valid, self.exposure, 1)), valid


def _read_box(scan: Scan, preparation: PrepareConfig, region: Region) -> Pattern:
    """Return the corrected counts of a scan in a box about the peak, with their mask."""
    read = read_corrected(scan, preparation, region)
    return _central((read.counts, read.valid), region.peak, BOX)


def _central(pattern: Pattern, centre: Sequence[int], edge: int) -> Pattern:
    """Cut a box of at most `edge` voxels per axis about a voxel, or about as near as the pattern allows."""
    shape = pattern[0].shape
    size = [min(edge, full) for full in shape]
    start = [min(max(0, index - part // 2), full - part) for index, part, full in zip(centre, size, shape, strict=True)]
    return cut(pattern[0], start, size), cut(pattern[1], start, size)


def _refuse_unfit(scans: Sequence[Scan], patches: Sequence[Pattern]) -> None:
    """Refuse scans whose frames lie on another grid, and copies."""
    for one in range(len(scans)):
        for two in range(one):
            counts, others = patches[one][0], patches[two][0]
            if counts.shape != others.shape:
                raise DataError(f"{scans[one].name} is no repeat of {scans[two].name}: frames are missing in one of them.")
            if np.array_equal(counts, others):
                raise DataError(f"{scans[one].name} holds the same counts as {scans[two].name}: a copy adds nothing; leave it out.")


def describe(scans: Sequence[Scan], matches: Sequence[Match], settings: RepeatsConfig) -> tuple[str, ...]:
    """Say in words which scans were added and how, and which were left out and why."""
    kept = [(scan.name, found) for scan, found in zip(scans, matches, strict=True) if not found.fault]
    gone = [f"left out {scan.name}: {found.fault}" for scan, found in zip(scans, matches, strict=True) if found.fault]
    if len(kept) == 1:
        return f"of {len(scans)} scans only {kept[0][0]} is phased, the others do not match it", *gone
    shifts = np.array([found.shift for _, found in kept])
    left = float(np.abs(shifts - np.rint(shifts)).max())
    how = "interpolated" if settings.interpolate else "left as they are"
    listed = ", ".join(f"{name} ({', '.join(f'{part:+.2f}' for part in found.shift)})" for name, found in kept)
    return (
        f"sum of {len(kept)} of {len(scans)} scans, aligned; fractions of a voxel, up to {left:.2f}, were {how}; "
        f"shifts in voxels: {listed}",
        *gone,
    )


def _add(
    scans: Sequence[Scan], matches: Sequence[Match], how: tuple[PrepareConfig, RepeatsConfig, Region]
) -> tuple[Total, Geometry | None, list[str]]:  # fmt: skip
    """Read the kept scans again, one after the other, and add them.

    Return the sum, the geometry of the kept scan that lies nearest to the origin of the shifts, and remarks in words.
    """
    preparation, settings, region = how
    total: Total | None = None
    nearest: tuple[float, Geometry | None] = (np.inf, None)
    remarks: dict[str, list[str]] = {}
    for scan, found in zip(scans, matches, strict=True):
        if found.fault:
            continue
        read = read_corrected(scan, preparation, region)
        total = total or Total.empty(read.counts.shape)
        total.add(*move((read.counts, read.valid), found.shift, settings.interpolate), found.difference.scale)
        for words in read.noticed:
            remarks.setdefault(words, []).append(scan.name)
        nearest = min(nearest, (float(np.abs(found.shift).max()), read.geometry), key=lambda pair: pair[0])
    assert total is not None
    number = sum(not found.fault for found in matches)
    said = [words if len(names) == number else f"{', '.join(names)}: {words}" for words, names in remarks.items()]
    return total, nearest[1], said


def _name_scans(scan: Scan, scans: Sequence[Scan], said: Sequence[str], remarks: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the provenance of a sum: that of `scan`, the names and files of all scans, and what was done in words."""
    files = [str(Path(path).resolve()) for one in scans if (path := one.provenance.get("path")) is not None]
    before = scan.provenance.get("noticed", ()) if remarks is None else remarks
    return {
        **scan.provenance, "scans": [one.name for one in scans], "paths": list(dict.fromkeys(files)),
        "repeats": "; ".join(said), "noticed": tuple(dict.fromkeys((*before, *said))),
    }  # fmt: skip
