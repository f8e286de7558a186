"""Read SPEC files of the Advanced Photon Source and find the frames beside them, for all beamlines of the ring that work so.

::

    <name>.spec                             scans, motors, counters
    .../<anything>S0054<anything>.tif       one image for each point, or ...S0054_00000.h5 for all, up to two folders below

`Station` is the table of a beamline whose frames need nothing but its circles: `read_station` reads it. APS 34-ID-C, which has
regions and seams, has a module of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import DataError, FormatError, list_numbers
from braggshot.gate import explain_damage, refuse_irregular
from braggshot.io.beamlines.readings import (
    Diffractometer,
    Overrides,
    Readings,
    add_energies,
    geometry,
    match_points,
    no_count,
    rocking_angle,
)  # fmt: skip
from braggshot.io.beamlines.spec import Place, SpecScan, choose_scan, list_scans, read_head, read_scan
from braggshot.io.beamlines.tables import decode, split_names
from braggshot.io.beamlines.values import Value, read_value
from braggshot.io.beamlines.views import select_frames
from braggshot.io.formats.stacks import list_images, natural_order
from braggshot.io.frames import HDF5Frames, LazyFrames, TiffFrames
from braggshot.physics.plausibility import DISTANCE, ENERGY
from braggshot.volumes import FloatArray, Scan

TIFF, HDF5 = ".tif", ".h5"  # how the frames of a beamline are kept


@dataclass(frozen=True)
class Station:
    """A beamline whose SPEC files and frames are read by its table alone.

    Parameters
    ----------
    instrument : circles of the diffractometer
    distance : motor of the distance from sample to detector [mm]
    pixel : pixel size of its detector [m]
    kind : how the frames are kept, `TIFF` or `HDF5`
    fixed : circle that is no motor -> its angle [deg]
    raised : motor that moves the detector up, off the beam [mm]; empty if it only turns
    dataset : path of the frames in an HDF5 file
    """

    instrument: Diffractometer
    distance: str
    pixel: float
    kind: str = TIFF
    fixed: Mapping[str, float] = field(default_factory=dict)
    raised: str = ""
    dataset: str = "entry/data/data"


def has_motors(path: str | Path, station: Station) -> bool:
    """Tell whether a file is a SPEC file that names the circles of a beamline among its motors."""
    head = read_head(path)
    if head is None:
        return False
    names = {name for line in re.findall(r"^\s*#O\d+[ \t]+(.*)$", decode(head), re.MULTILINE) for name in split_names(line)}
    circles = {circle.motor for circle in (*station.instrument.sample, *station.instrument.detector)}
    return circles - {*station.fixed} | {station.distance} <= names


def read_station(
    path: str | Path, station: Station, scan: float | str | None, frames: str | Path | None, overrides: Overrides
) -> Scan:  # fmt: skip
    """Read one scan of a SPEC file of a beamline, with its frames.

    Raises
    ------
    FormatError : if the scan or its frames are missing; the message lists the scans, or where frames were searched.
    DataError : if fewer than two frames belong to points of the scan.
    """
    spec, noticed = Path(path), []  # type: Path, list[str]
    content = read_spec(spec)
    places = choose_places(spec, list_scans(content), scan, partial(list_measured, kind=station.kind))
    files = find_images(spec, places[0].number, frames, station.kind)
    stored: LazyFrames = TiffFrames(files) if station.kind == TIFF else HDF5Frames(_only(files), station.dataset)
    entry = read_entry(spec, content, places, stored.shape[0], noticed)
    readings: dict[str, float | FloatArray] = {**station.fixed, **entry.motors, **entry.columns}
    circles = {circle.motor for circle in (*station.instrument.sample, *station.instrument.detector)}
    noticed += [f"{name} is not in the file: {station.fixed[name]:g} degrees is assumed." for name in station.fixed
                if name not in {*entry.motors, *entry.columns}]  # fmt: skip
    points = np.arange(entry.points)
    if station.kind == TIFF:
        points, files = match_images(files, entry.points, noticed)
        stored = TiffFrames(files)
    positions = {
        name: value[points] if isinstance(value, np.ndarray) else value for name, value in readings.items() if name in circles
    }
    energy = read_value(ENERGY, readings.get("Energy"), None, f"Energy of {spec.name}", "keV")
    if energy.points is not None:
        energy = replace(energy, points=energy.points[points])
    kept, motors = match_points(stored.shape[0], add_energies(positions, energy), noticed)
    chosen = select_frames(stored, kept)
    values = {"energy": energy, **_read_values(spec, station, readings, chosen)}
    return Scan(
        frames=chosen,
        name=f"{spec.stem}_S{places[0].number:04d}",
        monitor=read_monitor(entry.columns, points[kept], noticed),
        rocking_angle=rocking_angle(station.instrument, motors, noticed),
        geometry=geometry(station.instrument, Readings(motors, **values), chosen.shape, overrides, noticed),
        provenance={
            "scan": entry.key, "command": entry.command, "time": entry.time, "detector": entry.facts.get("UIMDET", "").rstrip(":"),
            "frames": str(files[0].parent), "no_count": no_count(chosen.dtype), "noticed": tuple(noticed),
        },
    )  # fmt: skip


def read_spec(path: str | Path) -> bytes:
    """Return the content of a SPEC file.

    Raises
    ------
    FormatError : if it is no regular file, or cannot be read.
    """
    refuse_irregular(path)
    with explain_damage(path, "SPEC"):
        return Path(path).read_bytes()


def read_entry(spec: Path, content: bytes, places: Sequence[Place], n_files: int, noticed: list[str]) -> SpecScan:
    """Read the scan of one of `places`, which all have the number that was asked for.

    If several have it, the one with as many points as there are frames is meant; if that does not decide, the last one with points.
    """
    found: list[SpecScan] = []
    for place in places:
        try:
            found.append(read_scan(content, place))
        except (DataError, FormatError) as error:
            reason = type(error)(f"{spec}: {error}")
    if not found:
        raise reason
    fitting = [entry for entry in found if entry.points == n_files]
    taken = fitting[0] if len(fitting) == 1 else found[-1]
    if len(places) > 1:
        why = f"it has as many points as there are frames, {n_files}" if len(fitting) == 1 else "it is the last one with points"
        others = ", ".join(place.key for place in places)
        instead = next(place.key for place in places if place.key != taken.key)
        noticed.append(
            f"the file holds {len(places)} scans of number {places[0].number} ({others}): {taken.key} is taken, because {why}; "
            f"choose another one with scan={instead}."
        )
    noticed += taken.noticed
    return taken


def list_measured(path: str | Path, kind: str = TIFF) -> list[str]:
    """List the numbers of the scans whose frames, files of that kind, lie beside the SPEC file."""
    numbers = {place.number for place in list_scans(read_spec(path))}
    matches = (re.search(rf"S(\d{{4,}})[^/]*\{kind}f?$", file.name) for file in find_below(Path(path), f"*S[0-9]*{kind}*"))
    return [str(number) for number in sorted(numbers & {int(match.group(1)) for match in matches if match})]


def find_below(spec: Path, pattern: str) -> list[Path]:
    """List the files that fit a pattern beside the SPEC file and up to two folders below it."""
    folder = spec.absolute().parent
    return [file for depth in ("", "*/", "*/*/") for file in folder.glob(depth + pattern)]


def choose_places(
    spec: Path, places: list[Place], scan: float | str | None, measured: Callable[[Path], list[str]]
) -> list[Place]:  # fmt: skip
    """Return the scans of the file that `scan` can mean; `measured` lists those whose frames lie beside the file."""
    if scan is None:
        numbers = [int(number) for number in measured(spec)]
        if len(numbers) != 1:
            there = f"frames of scans {list_numbers(numbers)} lie beside it" if numbers else "no frames lie beside it"
            raise FormatError(f"{spec}: choose a scan with scan=...; {there}.")
        scan = numbers[0]
    try:
        return choose_scan(places, str(scan))
    except FormatError as error:
        raise FormatError(f"{spec}: {error}") from None


def find_images(spec: Path, number: int, frames: str | Path | None, kind: str = TIFF) -> list[Path]:
    """List the files of one scan; an error if they lie in several folders."""
    pattern = f"*S{number:04d}*{kind}*"
    if frames is not None and kind != TIFF:
        files = [file for file in (Path(frames), spec.parent / frames) if file.is_file()][:1]
        files = files or [file for file in Path(frames).glob(pattern) if file.is_file()]
        if not files:
            raise FormatError(f"{frames}: no frames ({kind}) in this folder or file.")
        return files
    if frames is not None:
        files = list_images(frames) or list_images(spec.parent / frames)
        mine = [file for file in files if f"S{number:04d}" in file.name] or files
        if not mine:
            raise FormatError(f"{frames}: no frames (.tif) in this folder or pattern.")
        return mine
    files = sorted(find_below(spec, pattern), key=natural_order)
    folders = sorted({file.parent for file in files})
    if len(folders) > 1:
        raise FormatError(f"{spec}: frames of scan {number} lie in {', '.join(map(str, folders))}; choose with frames=...")
    if not files:
        folder = spec.absolute().parent
        raise FormatError(
            f"{spec}: no frames of scan {number}: looked for {pattern} in {folder} and two folders below; say frames=..."
        )
    return files


def match_images(files: list[Path], n_points: int, noticed: list[str]) -> tuple[NDArray[np.intp], list[Path]]:
    """Match frames to points of the scan; return the numbers of the points that have a frame, and the files of these frames.

    A frame's file name ends in the number of its point. Points are numbered from 0, or, if every point has a frame, from the lowest
    number in the names, such as 1. If a name ends in no number, each point must have one file, and the order of the files decides.
    """
    endings = [re.search(r"(\d+)$", file.stem) for file in files]
    numbered = {int(ending.group(1)): file for ending, file in zip(endings, files, strict=True) if ending}
    if None in endings:
        if len(files) != n_points:
            raise FormatError(f"{files[0].parent}: {len(files)} frames for {n_points} points, and their names end in no number.")
        return np.arange(n_points), files
    first = min(numbered) if len(numbered) == n_points == max(numbered) - min(numbered) + 1 else 0
    points = [number - first for number in sorted(numbered) if number - first < n_points]
    empty = sorted(set(range(n_points)) - set(points))
    beyond = sorted(number for number in numbered if number - first >= n_points)
    if len(files) > len(numbered):
        noticed.append(f"{len(files) - len(numbered)} frames repeat the number of another one; the last one of each was taken.")
    if empty:
        noticed.append(f"{len(empty)} of {n_points} points have no frame (number {list_numbers(empty)}, counted from 0).")
    if beyond:
        noticed.append(
            f"{len(beyond)} frames lie beyond the last of {n_points} points and were left out (number {list_numbers(beyond)})."
        )
    if len(points) < 2:
        raise DataError(f"{files[0].parent}: {len(points)} frames belong to the {n_points} points of the scan; expected more.")
    return np.asarray(points), [numbered[point + first] for point in points]


def read_monitor(
    columns: Mapping[str, FloatArray], points: NDArray[np.intp], noticed: list[str], name: str = "Monitor"
) -> FloatArray | None:  # fmt: skip
    """Return the incident flux of each frame, in the column `name`; None if there is none, or none at most points.

    Where the column holds no number the median is assumed, because the frame itself was measured. A flux of zero stays: there was
    no beam.
    """
    flux = columns.get(name)
    if flux is None:
        return None
    flux = flux[points]
    known = np.isfinite(flux)
    if not (flux[known] > 0).sum() > len(flux) / 2:
        noticed.append(f"the column {name} has no flux at most points, and is not used.")
        return None
    if not known.all():
        noticed.append(f"the median flux is assumed for {int((~known).sum())} frames at which {name} is no number.")
    return np.where(known, flux, np.median(flux[known]))


def _only(files: list[Path]) -> Path:
    """Return the one file that holds all frames of a scan."""
    if len(files) != 1:
        raise FormatError(f"{files[0]}: {len(files)} files hold frames of this scan; choose one with frames=...")
    return files[0]


def _read_values(
    spec: Path, station: Station, readings: Mapping[str, float | FloatArray], frames: LazyFrames
) -> dict[str, Any]:  # fmt: skip
    """Return the values of a SPEC file but the energy.

    The direct beam is the middle of the frame, but for how far the detector is raised.
    """
    beam, notes = None, ()  # type: tuple[float, float] | None, tuple[str, ...]
    up = float(np.ravel(readings.get(station.raised, np.nan))[0])
    if station.raised and np.isfinite(up):
        beam = (frames.shape[1] - 1) / 2 + up * 1e-3 / station.pixel, (frames.shape[2] - 1) / 2
        notes = (
            f"the direct beam is {up:g} mm ({station.raised}) below the middle of the frame, where the detector is raised from.",
        )
    return {
        "distance": read_value(DISTANCE, readings.get(station.distance), None, f"{station.distance} of {spec.name}", "mm"),
        "pixel_size": (Value(station.pixel, "the beamline's detector"),) * 2,
        "direct_beam": beam,
        "direct_beam_notes": notes,
    }
