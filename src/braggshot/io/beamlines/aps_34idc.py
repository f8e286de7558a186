"""Read and write scans of APS 34-ID-C: a SPEC file of motors, and one int32 TIFF per point of the scan.

::

    <name>.spec                   #S 54  ascan  th -0.28 0.72  200 0.25; motors [deg, mm], Energy [keV], camdist [mm]
    AD34idcTIM2_<name>/<name>_S0054/<name>_S0054_00000.tif     counts in the region #UIMR5 (column, width, row, height)

The frames are searched beside the SPEC file and up to two folders below it. Dark and flat fields show the whole chip and are cut to
the region of the frames. The geometry is that of xrayutilities and cohere, already in the CXI frame: theta "y+", chi "z-" and phi
"y+" carry the sample; delta "y+" and gamma "x-" carry the detector; rows grow downwards ("y-") and columns outboard ("x+").

SPEC files do not say where the direct beam falls. It is taken to hit the middle of the detector, whatever the region, so that scans
of different regions agree. The four chips of the quad 34idcTIM2 are 5 rows and 4 columns further apart than its files say
(cohere, `insert_seam`); frames that show more than one chip get these lines, masked.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import tifffile
from numpy.typing import NDArray

from braggshot.errors import DataError, GeometryError
from braggshot.io.atomic import replacing
from braggshot.io.beamlines.aps_spec import (
    choose_places,
    find_images,
    list_measured,
    match_images,
    read_entry,
    read_monitor,
    read_spec,
)  # fmt: skip
from braggshot.io.beamlines.instruments import APS_34IDC as APS
from braggshot.io.beamlines.readings import Overrides, Readings, add_energies, geometry, match_points, rocking_angle
from braggshot.io.beamlines.spec import list_scans, read_head
from braggshot.io.beamlines.timepix import centred_region, find_direct_beam, from_zero, open_seam, read_region
from braggshot.io.beamlines.values import Value, read_value
from braggshot.io.beamlines.views import SeamFrames
from braggshot.io.files import read_array
from braggshot.io.frames import LazyFrames, TiffFrames
from braggshot.physics.geometry import KEV, mean_energy, scanned_values
from braggshot.physics.plausibility import DISTANCE, ENERGY
from braggshot.volumes import FloatArray, Geometry, Scan

PIXEL = 55e-6  # pixel size of Timepix chips [m]


def can_read(path: str | Path) -> bool:
    """Tell whether a file is a SPEC file of APS 34-ID-C.

    The header of such a file names the motor of the camera distance, or a detector of 34-ID-C.
    """
    head = read_head(path)
    return head is not None and (b"camdist" in head or b"34idc" in head)


def scans(path: str | Path) -> list[str]:
    """List the numbers of the scans whose frames lie beside the SPEC file."""
    return list_measured(path)


def read(
    path: str | Path, *, scan: float | str | None = None, frames: str | Path | None = None, dark: str | Path | None = None,
    flat: str | Path | None = None, **overrides: Unpack[Overrides],
) -> Scan:  # fmt: skip
    """Read one scan of a SPEC file, with its frames.

    Parameters
    ----------
    path : the SPEC file
    scan : scan number; not needed where frames of only one scan lie beside the SPEC file. Where the number stands twice in the
        file, 54.1 is the first and 54.2 the second
    frames : folder or pattern of the frames, if they lie elsewhere
    dark, flat : images of the whole chip (.tif, .npy); paths are relative to the working folder or to the SPEC file
    overrides : energy_ev, distance_m, pixel_size_m, direct_beam, which replace the values in the file

    Raises
    ------
    FormatError : if the scan or its frames are missing; the message lists the scans, or where frames were searched.
    DataError : if fewer than two frames belong to points of the scan, or a dark or flat field does not cover the frames.
    """
    spec, noticed = Path(path), []  # type: Path, list[str]
    content = read_spec(spec)
    places = choose_places(spec, list_scans(content), scan, scans)
    number = places[0].number
    files = find_images(spec, number, frames)
    entry = read_entry(spec, content, places, len(files), noticed)
    points, chosen = match_images(files, entry.points, noticed)
    readings: dict[str, float | FloatArray] = {**entry.motors, **{name: values[points] for name, values in entry.columns.items()}}
    circles = {circle.motor for circle in (*APS.sample, *APS.detector)}
    energy = read_value(ENERGY, readings.get("Energy"), None, f"Energy of {spec.name}", "keV")
    positions = add_energies({name: readings[name] for name in circles & {*readings}}, energy)
    kept, motors = match_points(len(points), positions, noticed)
    files, points = [chosen[index] for index in kept], points[kept]
    stored = TiffFrames(files)
    detector = entry.facts.get("UIMDET", "").rstrip(":")
    region = read_region(entry.facts, detector, stored.shape, noticed)
    shown = region or from_zero(stored.shape)
    stack = open_seam(stored, detector, region, noticed)
    values = Readings(
        motors,
        energy,
        read_value(DISTANCE, readings.get("camdist"), None, f"camdist of {spec.name}", "mm"),
        (Value(PIXEL, "the Timepix chip"),) * 2,
        *find_direct_beam(entry.facts, detector, region),
    )
    return Scan(
        frames=stack,
        name=f"{spec.stem}_S{number:04d}",
        valid=stack.measured if isinstance(stack, SeamFrames) else None,
        dark=_chip_image(spec, dark, shown, "dark field", stack),
        flat=_chip_image(spec, flat, shown, "flat field", stack),
        monitor=read_monitor(entry.columns, points, noticed),
        rocking_angle=rocking_angle(APS, motors, noticed),
        geometry=geometry(APS, values, stack.shape, overrides, noticed),
        provenance={
            "scan": entry.key, "command": entry.command, "time": entry.time, "detector": detector,
            "frames": str(files[0].parent), "region": [[cut.start, cut.stop] for cut in shown],
            "noticed": tuple(noticed),
        },
    )  # fmt: skip


def _chip_image(
    spec: Path, path: str | Path | None, region: tuple[slice, slice], what: str, stack: LazyFrames
) -> FloatArray | None:  # fmt: skip
    """Read a dark or flat field and cut it to the chip region of the frames; a field of the frames' shape is not cut."""
    if path is None:
        return None
    place = Path(path) if Path(path).exists() else spec.parent / path
    whole = np.asarray(read_array(place, what.split()[0]), float)
    wanted = tuple(cut.stop - cut.start for cut in region)
    if whole.shape == stack.shape[1:]:
        return whole
    image = whole if whole.shape == wanted else whole[region]
    if image.shape != wanted:
        raise DataError(f"{place}: the {what} has shape {whole.shape}, which does not cover the frames' region {region}.")
    return stack.open_seam(image, np.median(image)) if isinstance(stack, SeamFrames) else image


def write_scan(
    folder: str | Path, frames: NDArray[Any], scanned: FloatArray, geometry: Geometry, scan: int,
    dark: NDArray[Any] | None = None, flat: NDArray[Any] | None = None, date: datetime.datetime | None = None,
) -> Path:  # fmt: skip
    """Write a scan in the format of APS 34-ID-C, so that `read` can read it.

    Parameters
    ----------
    folder : output folder; its name becomes the name of the experiment
    frames : (n, rows, columns) [counts]
    scanned : (n,) angles of the sample circle that `geometry` rocks [rad], or the energies of an energy scan [J]
    geometry : circles of APS 34-ID-C; the direct beam must hit the frame's centre, because the SPEC file does not store it: the
        region is written so that the frame's centre is that of a chip
    scan : scan number
    dark, flat : images of the frames' pixels or of the whole chip, written to dark.tif and whitefield.tif
    date : start of the scan; None is now

    Returns
    -------
    the SPEC file

    Raises
    ------
    GeometryError : if the circles or pixels are not those of APS 34-ID-C, the direct beam misses the frame's centre, or the number
        of moving sample circles is not one and the energy stands still.
    OutputError : if a file cannot be written.
    """
    folder = Path(folder)
    _check_writable(geometry, np.shape(frames))
    target = folder / f"AD34idcTIM2_{folder.name}" / f"{folder.name}_S{scan:04d}"
    for index, frame in enumerate(frames):
        _write_tiff(target / f"{folder.name}_S{scan:04d}_{index:05d}.tif", np.asarray(frame, np.int32))
    if dark is not None:
        _write_tiff(folder / "dark.tif", np.asarray(dark, np.int32))
    if flat is not None:
        _write_tiff(folder / "whitefield.tif", np.asarray(flat, np.float32))
    with replacing(folder / f"{folder.name}.spec") as temporary:
        temporary.write_text(_spec_text(folder.name, frames, scanned, geometry, scan, date or datetime.datetime.now()))
    return folder / f"{folder.name}.spec"


def _write_tiff(path: Path, image: NDArray[Any]) -> None:
    with replacing(path) as temporary:
        tifffile.imwrite(temporary, image, photometric="minisblack")


def _check_writable(geometry: Geometry, shape: Sequence[int]) -> None:
    axes = [circle.axis for circle in (*geometry.sample, *geometry.detector)]
    expected = [circle.axis for circle in (*APS.sample, *APS.detector)]
    if axes != expected or (geometry.row_axis, geometry.column_axis) != (APS.row_axis, APS.column_axis):
        raise GeometryError(f"circles {axes}, expected those of {APS.name}: {expected} (theta, chi, phi, delta, gamma).")
    centre = ((shape[1] - 1) / 2, (shape[2] - 1) / 2)
    if not np.allclose(geometry.direct_beam, centre) or not np.allclose(geometry.pixel_size, PIXEL):
        raise GeometryError(f"{APS.name} files cannot hold a direct beam other than {centre} or pixels other than {PIXEL} m.")
    scanned_values(geometry)  # refuses all but one sample circle that moves, or the energy


def _spec_text(
    name: str, frames: NDArray[Any], scanned: FloatArray, geometry: Geometry, scan: int, when: datetime.datetime
) -> str:  # fmt: skip
    """Return the text of a SPEC file: header, and one scan with the chip region and the summed counts of each frame."""
    circles = dict(zip((axis.motor for axis in (*APS.sample, *APS.detector)), (*geometry.sample, *geometry.detector), strict=True))
    stepped = next((motor for motor, circle in circles.items() if np.ndim(circle.angle)), "Energy")
    short = {"Theta": "th", "Chi": "chi", "Phi": "phi", "Delta": "del", "Gamma": "gam", "Energy": "energy"}
    values = scanned / KEV if stepped == "Energy" else np.rad2deg(scanned)
    motors = {motor: float(np.rad2deg(np.mean(circle.angle))) for motor, circle in circles.items()}
    motors |= {"camdist": geometry.distance * 1e3, "Energy": mean_energy(geometry) / KEV}
    date = when.strftime("%a %b %d %H:%M:%S %Y")
    rows, columns = np.shape(frames)[1:]
    lines = [
        f"#F {name}.spec", f"#D {date}", "#C sixc  User = user", "#C simulated by braggshot", "", f"#O0 {'  '.join(motors)}",
        f"#o0 {' '.join(short.get(motor, motor) for motor in motors)}", "",
        f"#S {scan}  ascan  {short[stepped]} {values[0]:.10g} {values[-1]:.10g}  {len(values) - 1} 1",
        f"#D {date}", "#T 1  (Seconds)",
        f"#P0 {' '.join(f'{value:.12g}' for value in motors.values())}", *centred_region(rows, columns), "#N 5",
        f"#L {stepped}  Seconds  ImageTot  ImageMax  Monitor",
        *(f"{at:.12g} 1 {int(frame.sum())} {int(frame.max())} 1000" for at, frame in zip(values, frames, strict=True)), "",
    ]  # fmt: skip
    return "\n".join(lines)
