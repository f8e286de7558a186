"""Read scans of HEPS ID05: a SPEC file of motors, and one TIFF for each point.

::

    <sample>.spec
        #o0 del eta chi phi nu mu               short names of the motors, by which the circles are known
        #S 191  ascan  eta 17.2 17.8  60 1
        #G4 0 0 0 1.2524 ...                    the fourth number is the wavelength [Å]
    images/<sample>/S191/A_000.tif              frames of the Eiger2 4M
    images/<sample>/S191/<sample>_S191_00000.tif     frames of the Pilatus 100K, which is mounted on its side

Source: pyCXIM 0.1.0 (github.com/RenZhe88/pyCXIM, `scan_reader/HEPS` and `RSM/RSM_6C`). Its axes are z up and x along the beam.
Its y is taken for outboard, which makes them right-handed. mu "y+", eta "x-", chi "z+" (which reads 90 deg at its zero) and phi
"y-" carry the sample; nu "y+" and del "x-" carry the detector. The diffractometer of four circles has the names thh, th, tthh and
tth for mu, eta, nu and del. Rows of the Eiger grow downwards ("y-") and columns inboard ("x-"). Rows of the Pilatus, as it is
stored, grow outboard ("x+") and columns downwards ("y-"). The files hold neither the distance nor the direct beam.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

from braggshot.errors import FormatError
from braggshot.io.beamlines.aps_spec import choose_places, match_images, read_entry, read_monitor, read_spec
from braggshot.io.beamlines.instruments import HEPS_ID05, HEPS_ID05_4C
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
from braggshot.io.beamlines.spec import SpecScan, list_scans, read_head, read_short_names
from braggshot.io.beamlines.tables import decode
from braggshot.io.beamlines.values import Value, choose_value, read_value
from braggshot.io.beamlines.views import select_frames
from braggshot.io.formats.stacks import list_images
from braggshot.io.frames import TiffFrames
from braggshot.physics.plausibility import ENERGY
from braggshot.volumes import FloatArray, Scan

EIGER, PILATUS = (2162, 2068), (195, 487)  # rows and columns of the frames of each detector
PITCHES = {EIGER: 75e-6, PILATUS: 172e-6}  # their pixel size [m]
NAMES = {EIGER: "Eiger2 4M", PILATUS: "Pilatus 100K"}
OTHERS = (b"camdist", b"#UMONO", b"#UDETCALIB")  # what stands in the SPEC files of 34-ID-C, 28-ID-B and ID01
UNNAMED = "the SPEC file names no beamline: by its circles and its folder of images it is taken for one of HEPS ID05."


def can_read(path: str | Path) -> bool:
    """Tell whether a file is a SPEC file that names the circles of ID05, with the folder of images beside it.

    Other beamlines name their circles alike, so the folder counts too.
    """
    head = read_head(path)
    if head is None or any(word in head for word in OTHERS) or not _folder(Path(path)).is_dir():
        return False
    return bool(_instruments(read_short_names(decode(head))))


def scans(path: str | Path) -> list[str]:
    """List the numbers of the scans whose frames lie beside the SPEC file."""
    numbers = sorted({place.number for place in list_scans(read_spec(path))})
    return [str(number) for number in numbers if any(_folder(Path(path), number).glob("*.tif*"))]


def read(
    path: str | Path, *, scan: float | str | None = None, frames: str | Path | None = None, monitor: str = "Monitor",
    **overrides: Unpack[Overrides],
) -> Scan:  # fmt: skip
    """Read one scan of a SPEC file, with its frames.

    Parameters
    ----------
    path : the SPEC file
    scan : scan number; not needed where frames of only one scan lie beside the SPEC file. Where the number stands twice in the
        file, 191.1 is the first and 191.2 the second
    frames : folder or pattern of the frames, if they lie elsewhere, or frames of two detectors lie there
    monitor : column that is proportional to the incident flux
    overrides : energy_ev, distance_m, pixel_size_m, direct_beam, which replace the values in the file

    Raises
    ------
    FormatError : if the scan, its circles or its frames are missing; the message lists the scans, or where frames were searched.
    DataError : if fewer than two frames belong to points of the scan.
    """
    spec, noticed = Path(path), [UNNAMED]
    content = read_spec(spec)
    places = choose_places(spec, list_scans(content), scan, scans)
    found = _find_images(spec, places[0].number, frames)
    entry = read_entry(spec, content, places, len(found), noticed)
    points, files = match_images(found, entry.points, noticed)
    stored = TiffFrames(files)
    instrument, pitch = _place(_choose(spec, entry), stored.shape[1:], files[0], noticed)
    readings: dict[str, float | FloatArray] = {**entry.motors, **{name: values[points] for name, values in entry.columns.items()}}
    circles = [circle.motor for circle in (*instrument.sample, *instrument.detector)]
    energy = _read_energy(entry, readings, spec.name)
    positions = {circle: readings[entry.names[circle]] for circle in circles if entry.names[circle] in readings}
    kept, motors = match_points(len(points), add_energies(positions, energy), noticed)
    chosen = select_frames(stored, kept)
    return Scan(
        frames=chosen,
        name=f"{spec.stem}_S{places[0].number:03d}",
        monitor=read_monitor(entry.columns, points[kept], noticed, monitor),
        rocking_angle=rocking_angle(instrument, motors, noticed),
        geometry=geometry(instrument, Readings(motors, energy, pixel_size=(pitch, pitch)), chosen.shape, overrides, noticed),
        detector="eiger2_4m" if chosen.shape[1:] == EIGER else None,
        provenance={
            "scan": entry.key, "command": entry.command, "time": entry.time, "detector": pitch.source,
            "frames": str(files[0].parent), "no_count": no_count(chosen.dtype), "noticed": tuple(noticed),
        },
    )  # fmt: skip


def _folder(spec: Path, number: int | None = None) -> Path:
    """Return the folder of the images of a SPEC file, or of one of its scans."""
    folder = spec.absolute().parent / "images" / spec.stem
    return folder if number is None else folder / f"S{number:03d}"


def _instruments(names: Mapping[str, str]) -> list[Diffractometer]:
    """List the diffractometers of ID05 all of whose circles are among the short names of motors."""
    known = (HEPS_ID05, HEPS_ID05_4C)
    return [one for one in known if {circle.motor for circle in (*one.sample, *one.detector)} <= {*names}]


def _choose(spec: Path, entry: SpecScan) -> Diffractometer:
    """Return the diffractometer whose circles a file names; of two, the one of which a circle was scanned."""
    there = _instruments(entry.names)
    if not there:
        raise FormatError(f"{spec}: the lines #o0, #o1, ... name the circles of no diffractometer of ID05 (eta, ... or th, ...).")
    scanned = [one for one in there if any(entry.names[circle.motor] in entry.columns for circle in one.sample)]
    return (scanned or there)[0]


def _find_images(spec: Path, number: int, frames: str | Path | None) -> list[Path]:
    """List the images of one scan; an error if there are none, or of several detectors."""
    place = _folder(spec, number) if frames is None else frames
    files = list_images(place) or list_images(spec.parent / place)
    kinds = sorted({re.sub(r"\d+$", "*", file.stem) + file.suffix for file in files})
    if len(kinds) > 1:
        raise FormatError(f"{spec}: images of {len(kinds)} kinds lie in {place} ({', '.join(kinds)}); choose with frames=...")
    if not files:
        raise FormatError(f"{spec}: no frames of scan {number}: looked for images (.tif) in {place}; say frames=...")
    return files


def _place(
    instrument: Diffractometer, shape: Sequence[int], image: Path, noticed: list[str]
) -> tuple[Diffractometer, Value]:  # fmt: skip
    """Return the diffractometer with its detector as it is mounted, and the pixel size.

    The shape of the frames tells the detector, or else the name of an image: that of the Pilatus holds the number of the scan.
    """
    size = (shape[0], shape[1])
    if size not in PITCHES:
        size = PILATUS if re.search(r"_S\d+_\d+$", image.stem) else EIGER
        noticed.append(
            f"frames of {tuple(shape)} pixels are of no detector of ID05: by the name {image.name} they are taken for a part of "
            f"the {NAMES[size]}, with its pixels of {PITCHES[size] * 1e6:g} µm and its directions of rows and columns."
        )
    if size == PILATUS:
        instrument = dataclasses.replace(instrument, row_axis="x+", column_axis="y-")
    return instrument, Value(PITCHES[size], f"the {NAMES[size]}")


def _read_energy(entry: SpecScan, readings: Mapping[str, float | FloatArray], name: str) -> Value:
    """Return the photon energy of the wavelength in the line #G4, or at each point, if a motor of that name stepped it."""
    words = entry.facts.get("G4", "").split()
    wavelength = read_value(ENERGY, words[3] if len(words) > 3 else None, "Å", f"the wavelength (#G4) of {name}", "Å")
    motor = readings.get(entry.names.get("energy", "Energy"))
    return choose_value(ENERGY, wavelength, read_value(ENERGY, motor, None, f"Energy of {name}", "keV"))
