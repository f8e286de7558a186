"""Choose the reader of a file: a built-in one, or one that a package registers as entry point ``braggshot.formats``.

A format is a module with two functions: ``can_read(path) -> bool`` looks at the file and never raises; ``read(path, **options) ->
Scan`` reads it. Where a file may hold several scans, the module also has ``scans(path) -> list[str]``. A module with ``PARENT =
"nexus"`` is a child of that format: where both can read a file, the child reads it. It is an error if two unrelated formats can
read a file, or if no format can. Modules are imported only when a file is opened.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import inspect
import os
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from braggshot.errors import ConfigError, FormatError
from braggshot.gate import explain_damage, is_regular, refuse_irregular, shorten
from braggshot.volumes import Geometry, Scan


@dataclass(frozen=True)
class Format:
    """A format of input files, and the module that reads this format.

    Parameters
    ----------
    name : value of the option ``--format``
    module : import path of the reader
    summary : one line that describes the format
    needs : package to install first; empty where braggshot's own packages suffice
    begins : what its files begin as, "HDF5" or "SPEC"; the module is not imported for other files. Empty where that cannot be said
    """

    name: str
    module: str
    summary: str
    needs: str = ""
    begins: str = ""


# Formats whose readers belong to braggshot.
BUILT_IN = (
    Format("cxi", "braggshot.io.formats.cxi", "CXI: counts as PyNX and braggshot write them, with mask; result files too"),
    Format("stacks", "braggshot.io.formats.stacks", ".npy, .npz, .mat, TIFF, or a folder or pattern of images"),
    Format("images", "braggshot.io.formats.images", "EDF, CBF, MarCCD, SPE and other detector images, by fabio"),
    Format("nexus", "braggshot.io.formats.nexus", "any HDF5 file, by the path of a dataset", begins="HDF5"),
    Format("aps_34idc", "braggshot.io.beamlines.aps_34idc", "APS 34-ID-C: SPEC file and TIFF frames", begins="SPEC"),
    Format("esrf_id01", "braggshot.io.beamlines.esrf_id01", "ESRF ID01: BLISS HDF5", begins="HDF5"),
    Format("petra_p10", "braggshot.io.beamlines.petra_p10", "PETRA III P10: Eiger master HDF5 and .fio", begins="HDF5"),
    Format("nanomax", "braggshot.io.beamlines.nanomax", "MAX IV NanoMAX: HDF5 of contrast", begins="HDF5"),
    Format(
        "diamond_i16", "braggshot.io.beamlines.diamond_i16", "Diamond I16: NeXus of GDA, with HDF5 or TIFF frames", begins="HDF5"
    ),
    Format("soleil_sixs", "braggshot.io.beamlines.soleil_sixs", "SOLEIL SIXS: NeXus since 2019", begins="HDF5"),
    Format("soleil_cristal", "braggshot.io.beamlines.soleil_cristal", "SOLEIL CRISTAL: NeXus", begins="HDF5"),
    Format("aps_1ide", "braggshot.io.beamlines.aps_1ide", "APS 1-ID-E: SPEC file and TIFF frames", begins="SPEC"),
    Format("aps_7idd", "braggshot.io.beamlines.aps_7idd", "APS 7-ID-D: SPEC file and TIFF frames", begins="SPEC"),
    Format("aps_20ide", "braggshot.io.beamlines.aps_20ide", "APS 20-ID-E: HDF5", begins="HDF5"),
    Format("aps_28idb", "braggshot.io.beamlines.aps_28idb", "APS 28-ID-B: SPEC file and HDF5 frames", begins="SPEC"),
    Format(
        "esrf_id01_spec", "braggshot.io.beamlines.esrf_id01_spec", "ESRF ID01 before BLISS: SPEC file and EDF images", begins="SPEC"
    ),
    Format("heps_id05", "braggshot.io.beamlines.heps_id05", "HEPS ID05: SPEC file and TIFF frames", begins="SPEC"),
    Format("esrf_id27", "braggshot.io.beamlines.esrf_id27", "ESRF ID27: BLISS HDF5", begins="HDF5"),
    Format("recorded", "braggshot.io.formats.recorded", "folder that braggshot records while a scan is measured"),
)


# First bytes or suffix of files that no reader knows, what they are, and how they are converted.
CONVERSIONS: dict[bytes | str, tuple[str, str]] = {
    b"version https://git-lfs": ("a pointer of Git LFS", "run 'git lfs pull'"),
    b"\x0e\x03\x13\x01": ("an HDF4 file", "convert it with 'h4toh5 FILE'"),
    b"\x1f\x8b": ("a packed file", "unpack it with 'gunzip' or 'tar -xzf'"),
    b"PK\x03\x04": ("a packed file", "unpack it with 'unzip'"),
    b"\x89PNG": ("a picture, which holds no counts", "give the detector's own files"),
    b"\xff\xd8\xff": ("a picture, which holds no counts", "give the detector's own files"),
    ".mib": ("a Merlin file", "pip install rosettasciio, then in Python: numpy.save('scan.npy', "
             "rsciio.quantumdetector.file_reader('FILE')[0]['data'])"),
    ".raw": ("a file of bare numbers", "in Python: numpy.save('scan.npy', "
             "numpy.fromfile('FILE', 'uint16').reshape(frames, rows, columns))"),
    ".h5": ("a file that does not begin like HDF5", "copy it again; it may be incomplete"),
    ".mat": ("a MATLAB file of version 4, or text", "save it in MATLAB with save(..., '-v7.3')"),
    ".txt": ("a text file", "in Python: numpy.save('scan.npy', numpy.loadtxt('FILE').reshape(frames, rows, columns))"),
    ".fio": ("a table of motors", "give the master file (..._master.h5) beside it"),
}  # fmt: skip
SAME_SUFFIX = {".bin": ".raw", ".dat": ".txt", ".csv": ".txt", ".nxs": ".h5", ".hdf5": ".h5", ".hdf": ".h5", ".cxi": ".h5"}


def formats() -> tuple[Format, ...]:
    """List all known formats, without importing their modules."""
    plugins = []
    for point in importlib.metadata.entry_points(group="braggshot.formats"):
        package = point.dist.name if point.dist else ""
        plugins.append(Format(point.name, point.value, f"from the package {package or '?'}", package))
    return (*BUILT_IN, *plugins)


def read(path: str | Path, format: str | None = None, **options: Any) -> Scan:
    """Open a scan; its frames stay on disk until they are indexed.

    Parameters
    ----------
    path : file, folder of images, or pattern
    format : name from `formats`; None finds the format by looking at the file
    options : keyword parameters of the format's reader, such as ``scan=54``. Every format also takes those of
        `braggshot.io.stated.state_values`, such as ``dark``, ``mask``, ``energy_ev`` and ``geometry``.

    Raises
    ------
    FormatError : if no reader or more than one can read the file, or reading fails.
    DataError : if the content cannot be a scan.
    ConfigError : if the format or an option is unknown.
    """
    return _read(*choose(path, format), path, options)


def _read(chosen: Format, module: ModuleType, path: str | Path, options: dict[str, Any]) -> Scan:
    from braggshot.io.axes import refuse_no_counts, refuse_odd_frames  # here, because the shell asks for the formats at TAB
    from braggshot.io.stated import state_values
    from braggshot.physics.plausibility import refuse_impossible_geometry

    own, common = option_names(module), keyword_names(state_values)
    unknown = set(options) - {*own, *common}
    if unknown:
        known = ", ".join(dict.fromkeys([*own, *common]))
        raise ConfigError(f"format {chosen.name} has no option {', '.join(sorted(unknown))}; known: {known}.")
    stated = {name: _find_beside(path, value) for name, value in options.items() if name not in own}
    with explain_damage(path, chosen.name):
        scan: Scan = module.read(path, **{name: value for name, value in options.items() if name in own})
        refuse_no_counts(scan.frames.dtype, str(path))
        refuse_odd_frames(scan.frames.shape, str(path))
        scan = state_values(_add_what_frames_notice(scan), **stated)
        if scan.geometry is not None:
            refuse_impossible_geometry(scan.geometry, str(path))
    seen = {"format": chosen.name, "path": str(path), "options": {name: _plain(value) for name, value in options.items()}}
    return dataclasses.replace(scan, provenance={**scan.provenance, **seen})


def _add_what_frames_notice(scan: Scan) -> Scan:
    """Return the scan with what its frames know: which of them and which of their pixels are there, and what was left out."""
    here, said = getattr(scan.frames, "arrived", None), getattr(scan.frames, "noticed", ())
    filled = getattr(scan.frames, "filled", None)
    if here is None and not said:
        return scan
    valid = scan.valid if filled is None else filled if scan.valid is None else scan.valid & filled
    arrived = scan.arrived if here is None else here if scan.arrived is None else scan.arrived & here
    noticed = (*scan.provenance.get("noticed", ()), *said)
    return dataclasses.replace(scan, valid=valid, arrived=arrived, provenance={**scan.provenance, "noticed": noticed})


def _find_beside(path: str | Path, value: Any) -> Any:
    """Return the path of a file that is named relative to the folder of the scan; any other value is returned as it is."""
    is_file = isinstance(value, str | Path) and not Path(value).exists() and (Path(path).parent / value).is_file()
    return Path(path).parent / value if is_file else value


def choose(path: str | Path, format: str | None = None) -> tuple[Format, ModuleType]:
    """Return the format of a file and the module that reads it.

    Raises
    ------
    FormatError : if the file is missing or may not be read, or if no reader or more than one can read it.
    ConfigError : if the format is unknown.
    """
    from braggshot.io.files import expand_pattern  # here, because the shell asks for the formats at TAB

    if not os.path.exists(path) and not os.path.islink(path) and not expand_pattern(path):
        raise FormatError(f"{shorten(path)}: no such file, folder or pattern.")
    if not expand_pattern(path):
        refuse_irregular(path, folders=True)
    if os.path.exists(path) and not os.access(path, os.R_OK):
        raise FormatError(f"{path}: you have no permission to read it.")
    known = {candidate.name: candidate for candidate in formats()}
    if format is not None:
        if format not in known:
            raise ConfigError(f"unknown format {format!r}; known: {', '.join(known)}.")
        return known[format], load_reader(known[format])
    claims, absent = {}, []
    for name, candidate in known.items():
        if candidate.begins and not _begins_as(path, candidate.begins):
            continue
        try:
            module = load_reader(candidate)
        except FormatError as error:
            absent.append(str(error))
            continue
        try:
            if module.can_read(path):
                claims[name] = module
        except (FormatError, MemoryError, OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
            absent.append(f"{name} cannot look at it ({shorten(error)}).")
    parents = {getattr(module, "PARENT", None) for module in claims.values()}
    claims = {name: module for name, module in claims.items() if name not in parents}
    if len(claims) == 1:
        return next((known[name], module) for name, module in claims.items())
    if claims:
        raise FormatError(f"{path}: {' and '.join(claims)} can both read this; choose one as the format.")
    raise FormatError(" ".join([f"{path}: {_what_it_is(path)}; tried {', '.join(known)}.", *_how_to_convert(Path(path)), *absent]))


def _begins_as(path: str | Path, kind: str) -> bool:
    """Tell whether a file begins as HDF5, or as the text of SPEC does, with a line of its header."""
    from braggshot.io.files import is_hdf5  # here, because the shell asks for the formats at TAB

    if kind == "HDF5":
        return is_hdf5(path)
    if not is_regular(path):
        return False
    try:
        with Path(path).open("rb") as stream:
            return stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"#")
    except OSError:
        return False


def load_reader(candidate: Format) -> ModuleType:
    """Import the reader of a format."""
    try:
        return importlib.import_module(candidate.module)
    except ImportError as error:
        hint = f"pip install {candidate.needs or error.name}"
        raise FormatError(f"Format {candidate.name} needs {error.name or 'a package'} that is not installed: {hint}.") from error


def _what_it_is(path: str | Path) -> str:
    if Path(path).is_dir():
        return "this folder holds no TIFF, .npy, EDF or CBF images"
    if Path(path).is_file() and not Path(path).stat().st_size:
        return "this file is empty"
    return "no reader knows this file"


def _how_to_convert(path: Path) -> list[str]:
    """Say what a file is, and how it is converted to one that can be read; empty if this is not known."""
    from braggshot.io.files import starts_with

    suffix = SAME_SUFFIX.get(path.suffix.lower(), path.suffix.lower())
    found = [told for key, told in CONVERSIONS.items() if key == suffix or (isinstance(key, bytes) and starts_with(path, key))]
    return [f"It looks like {found[0][0]}: {found[0][1].replace('FILE', path.name)}."] if found and path.is_file() else []


def option_names(module: ModuleType) -> list[str]:
    """List the options that the reader of a format takes itself."""
    return keyword_names(module.read)


def keyword_names(function: Callable[..., Any]) -> list[str]:
    """List the keyword parameters of a function, including those that a ``**options: Unpack[...]`` declares."""
    hints = typing.get_type_hints(function)
    names = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            names += [key for table in typing.get_args(hints.get(name)) for key in typing.get_type_hints(table)]
        elif parameter.kind is parameter.KEYWORD_ONLY:
            names.append(name)
    return names


def describe(path: str | Path, format: str | None = None, **options: Any) -> dict[str, Any]:
    """Describe what a reader finds in a file, without reading the frames.

    Values are in users' units (keV, degrees, mm) and of types that JSON can hold.

    Raises
    ------
    FormatError : if no reader or more than one can read the file, or reading fails.
    DataError : if the content cannot be a scan.
    ConfigError : if the format or an option is unknown.
    """
    chosen, module = choose(path, format)
    scan = _read(chosen, module, path, options)
    with explain_damage(path, chosen.name):
        return _describe(chosen, module, path, scan)


def _describe(chosen: Format, module: ModuleType, path: str | Path, scan: Scan) -> dict[str, Any]:
    rocking = None if scan.rocking_angle is None else np.rad2deg(scan.rocking_angle)
    return {
        "format": chosen.name,
        "name": scan.name,
        "shape": list(scan.frames.shape),
        "dtype": str(scan.frames.dtype),
        "scans": module.scans(path) if hasattr(module, "scans") else [],
        "rocking_deg": None if rocking is None else [float(rocking[0]), float(rocking[-1]), float(np.median(np.diff(rocking)))],
        "geometry": None if scan.geometry is None else _in_user_units(scan.geometry),
        "monitor": None if scan.monitor is None else [float(scan.monitor.min()), float(scan.monitor.max())],
        "masked_share": None if scan.valid is None else float(1 - scan.valid.mean()),
        "dark": scan.dark is not None,
        "flat": scan.flat is not None,
        "detector": scan.detector,
        "prepared": scan.prepared,
        "noticed": list(scan.provenance.get("noticed", ())),
        **{key: _plain(scan.provenance[key]) for key in ("scan", "command", "time", "dataset", "frames") if key in scan.provenance},
    }


def _in_user_units(geometry: Geometry) -> dict[str, Any]:
    from scipy.constants import electron_volt  # here, because the shell asks for the formats at TAB

    def degrees(angle: Any) -> Any:
        turned = np.rad2deg(angle)
        return [float(turned[0]), float(turned[-1])] if np.ndim(turned) else float(turned)

    energies = (np.ravel(geometry.energy) / (1e3 * electron_volt)).tolist()
    return {
        "instrument": geometry.instrument,
        "energy_kev": energies[0] if len(energies) == 1 else [energies[0], energies[-1]],
        "distance_mm": geometry.distance * 1e3,
        "pixel_size_um": [pitch * 1e6 for pitch in geometry.pixel_size],
        "direct_beam_pixel": list(geometry.direct_beam),
        "sample_deg": {circle.name or circle.axis: degrees(circle.angle) for circle in geometry.sample},
        "detector_deg": {circle.name or circle.axis: degrees(circle.angle) for circle in geometry.detector},
    }


def _plain(value: Any) -> Any:
    """Convert a value to a type that JSON can hold: paths and other objects become text."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
