"""Read scans of ESRF ID01 from before BLISS: a SPEC file, and one EDF image for each point.

::

    <name>.spec
        #S 54  ascan  eta 17.2 17.8  60 1
        #UMONO mononrj=8.00keV,...                                        photon energy
        #UDETCALIB cen_pix_x=11.2,cen_pix_y=281.1,...,det_distance_CC=1.434,det_distance_COM=1.193,...    [pixel, m; once mm]
        #L Eta  ...  mpx4inr                                              number of the image of each point
    data_mpx4_00123.edf.gz                                                the images, up to two folders below

Sources: bcdi (github.com/carnisj/bcdi, `LoaderID01`), cdiutils (`SpecLoader`), PyNX (`cen_pix`, distances). The circles are those
of `esrf_id01`. The distance is det_distance_CC, or else det_distance_COM.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import DataError, FormatError, list_numbers
from braggshot.io.beamlines.aps_spec import find_below, read_entry, read_spec
from braggshot.io.beamlines.instruments import ESRF_ID01
from braggshot.io.beamlines.readings import (
    Overrides,
    Readings,
    add_energies,
    geometry,
    match_points,
    no_count,
    rocking_angle,
)  # fmt: skip
from braggshot.io.beamlines.spec import Place, choose_scan, list_scans, read_head
from braggshot.io.beamlines.tables import decode
from braggshot.io.beamlines.values import Value, choose_centre, choose_value, read_pixel, read_value
from braggshot.io.beamlines.views import select_frames
from braggshot.io.formats.images import FabioFrames
from braggshot.io.formats.stacks import list_images
from braggshot.physics.plausibility import DISTANCE, ENERGY
from braggshot.volumes import FloatArray, Scan

NUMBERS = ("mpx4inr", "mpxinr", "ei2minr", "eiger2M", "mpx1x4", "mpxgaas", "ccd_n")  # columns that hold the number of the image
NAMES = {"mu": ("mu",), "eta": ("eta",), "phi": ("phi",), "nu": ("nu",), "delta": ("delta", "del")}  # circle -> names, any case
EDF = tuple(f".edf{packed}" for packed in ("", ".gz", ".bz2"))
SIZES = {(516, 516): ("maxipix", 55e-6), (2164, 1030): ("eiger2m", 75e-6)}  # shape of the frames -> detector, pixel size [m]


def can_read(path: str | Path) -> bool:
    """Tell whether a file is a SPEC file of ID01: its head holds the lines of its monochromator or of its detector."""
    head = read_head(path)
    return head is not None and (b"#UMONO" in head or b"#UDETCALIB" in head)


def scans(path: str | Path) -> list[str]:
    """List the numbers of the scans in the file."""
    return [str(number) for number in sorted({place.number for place in list_scans(read_spec(path))})]


def read(
    path: str | Path, *, scan: float | str | None = None, frames: str | Path | None = None, monitor: str = "exp1",
    **overrides: Unpack[Overrides],
) -> Scan:  # fmt: skip
    """Read one scan of a SPEC file, with its images.

    Parameters
    ----------
    path : the SPEC file
    scan : scan number; not needed where there is only one. Where the number stands twice in the file, 54.2 is the second
    frames : folder or pattern of the images, if they lie elsewhere, or images of several detectors lie there
    monitor : column that is proportional to the incident flux
    overrides : energy_ev, distance_m, pixel_size_m, direct_beam, which replace the values in the file

    Raises
    ------
    FormatError : if the scan or its images are missing; the message lists the scans, or where images were searched.
    DataError : if fewer than two images belong to points of the scan.
    """
    spec, noticed = Path(path), []  # type: Path, list[str]
    content = read_spec(spec)
    places = _choose(spec, list_scans(content), scan)
    entry = read_entry(spec, content, places, 0, noticed)
    column = next((name for name in NUMBERS if name in entry.columns), None)
    if column is None:
        raise FormatError(f"{spec}: scan {entry.key} has no column with the numbers of images ({', '.join(NUMBERS)}).")
    points, files = _match(spec, _find_images(spec, frames), entry.columns[column], noticed)
    stored = FabioFrames(files)
    readings: dict[str, float | FloatArray] = {name.casefold(): value for name, value in entry.motors.items()}
    readings |= {name.casefold(): value[points] for name, value in entry.columns.items()}
    motors = {circle: readings[name] for circle, names in NAMES.items() for name in names if name in readings}
    energy = read_value(ENERGY, readings.get("energy"), None, f"Energy of {spec.name}", "keV")
    kept, positions = match_points(len(points), add_energies(motors, energy), noticed)
    chosen = select_frames(stored, kept)
    flux = entry.columns.get(monitor)
    detector, pitch = SIZES.get((chosen.shape[1], chosen.shape[2]), (None, 55e-6))
    said = {
        **_words(decode(content[places[-1].header])),
        **_words("\n".join(f"#{key} {line}" for key, line in entry.facts.items())),
    }
    values = _read_values(said, energy, Value(pitch, f"the detector {detector or 'Maxipix'}"), chosen.shape, spec.name)
    return Scan(
        frames=chosen,
        name=f"{spec.stem}_S{places[0].number:04d}",
        monitor=None if flux is None else flux[points][kept],
        rocking_angle=rocking_angle(ESRF_ID01, positions, noticed),
        geometry=geometry(ESRF_ID01, Readings(positions, **values), chosen.shape, overrides, noticed),
        detector=detector,
        provenance={
            "scan": entry.key, "command": entry.command, "time": entry.time, "detector": column, "frames": str(files[0].parent),
            "no_count": no_count(chosen.dtype), "noticed": tuple(noticed),
        },
    )  # fmt: skip


def _choose(spec: Path, places: list[Place], scan: float | str | None) -> list[Place]:
    """Return the scans of the file that `scan` can mean."""
    numbers = sorted({place.number for place in places})
    if scan is None and len(numbers) != 1:
        raise FormatError(f"{spec}: choose a scan with scan=...; the file holds {list_numbers(numbers) or 'none'}.")
    try:
        return choose_scan(places, str(numbers[0] if scan is None else scan))
    except FormatError as error:
        raise FormatError(f"{spec}: {error}") from None


def _find_images(spec: Path, frames: str | Path | None) -> dict[int, Path]:
    """Return the images by their numbers, which their names end in; an error if two have one number, or there are none."""
    files = find_below(spec, "*.edf*") if frames is None else list_images(frames, EDF) or list_images(spec.parent / frames, EDF)
    found: dict[int, Path] = {}
    for file in files:
        ending = re.search(r"(\d+)\.edf(\.gz|\.bz2)?$", file.name.casefold())
        if ending is None:
            continue
        if int(ending[1]) in found:
            raise FormatError(f"{spec}: {found[int(ending[1])]} and {file} have one number; choose with frames=...")
        found[int(ending[1])] = file
    if not found:
        where = f"{spec.absolute().parent} and two folders below" if frames is None else str(frames)
        raise FormatError(f"{spec}: no images (.edf, .edf.gz): looked in {where}; say frames=...")
    return found


def _match(spec: Path, images: dict[int, Path], numbers: FloatArray, noticed: list[str]) -> tuple[NDArray[np.intp], list[Path]]:
    """Return the numbers of the points that have an image, and these images; `numbers` names the image of each point."""
    wanted = [int(number) if np.isfinite(number) else -1 for number in numbers]
    points = [point for point, number in enumerate(wanted) if number in images]
    lost = sorted(set(range(len(wanted))) - set(points))
    if lost:
        noticed.append(f"{len(lost)} of {len(wanted)} points have no frame (number {list_numbers(lost)}, counted from 0).")
    if len(points) < 2:
        raise DataError(f"{spec}: {len(points)} images belong to the {len(wanted)} points of the scan; say frames=...")
    return np.asarray(points), [images[wanted[point]] for point in points]


def _words(header: str) -> dict[str, str]:
    """Return the words ``name=value`` of the lines #UMONO and #UDETCALIB, which stand in the header of the file or of the scan."""
    lines = re.findall(r"^\s*#(?:UMONO|UDETCALIB)\s+(.*)$", header, re.MULTILINE)
    pairs = (word.partition("=") for line in lines for word in line.split(","))
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def _read_values(said: Mapping[str, str], energy: Value, pitch: Value, shape: tuple[int, ...], name: str) -> dict[str, Any]:
    """Return energy, distance, pixel size and direct beam (row, column)."""
    distances = [
        read_value(DISTANCE, said.get(key), None, f"{key} of {name}", "m") for key in ("det_distance_CC", "det_distance_COM")
    ]
    raw = [read_pixel(said.get(f"cen_pix_{axis}"), None, f"cen_pix_{axis} of {name}", pitch.amount) for axis in "yx"]
    centre, notes = choose_centre(raw, shape)
    return {
        "energy": choose_value(
            ENERGY, read_value(ENERGY, said.get("mononrj"), None, f"mononrj of {name}", "keV"), energy
        ),
        "distance": choose_value(DISTANCE, *distances),
        "pixel_size": (pitch, pitch),
        "direct_beam": centre,
        "direct_beam_notes": notes,
    }  # fmt: skip
