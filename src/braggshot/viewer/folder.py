"""List the scans of a folder with their state; sum their frames; write what a user chose for one of them as a command.

Nothing outside the folder is listed, read by name, or written. What comes from the browser chooses from lists, or is a number.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon2mask

from braggshot.errors import BraggshotError, ConfigError
from braggshot.io import registry
from braggshot.volumes import FloatArray, Scan

RESULTS = "braggshot-results"
"""Folder, inside the folder of the scans, that holds what is made from the page."""
METHODS = ("auto", "refine", "oneshot", "iterative")
"""Methods that a user may choose on the page."""
_CHUNK = 64 * 2**20  # memory for the frames that are read in one step [bytes]
_LEAST = 8  # shortest side of a region [pixels]
_MOST_POINTS = 20_000  # largest number of corners of an outline
_SHOWN = 400  # longest side of the picture of summed frames [pixels]


@dataclass(frozen=True)
class RawScan:
    """A measured scan: the name of its results, its file or folder, and its number in a file of several."""

    name: str
    path: Path
    number: str | None = None

    def read(self) -> Scan:
        """Open the scan; its frames stay on disk."""
        return registry.read(self.path, **({} if self.number is None else {"scan": self.number}))


@dataclass(frozen=True, eq=False)
class Summed:
    """The frames of a scan, summed and binned for a picture, with the shape of the scan (n, rows, columns)."""

    image: FloatArray
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Drawn:
    """What a user has drawn on the summed frames, in pixels of the detector.

    Parameters
    ----------
    region : first row, row after the last, first column, column after the last; None if no rectangle was drawn
    outlines : outlines of what is to be masked, each a list of corners (row, column)
    """

    region: tuple[int, int, int, int] | None = None
    outlines: tuple[tuple[tuple[float, float], ...], ...] = ()


@dataclass(frozen=True)
class Order:
    """A phasing that a user has ordered: the arguments of `braggshot`, its output, and the mask to write before it begins."""

    scan: RawScan
    arguments: tuple[str, ...]
    output: Path
    mask_file: Path | None = None
    mask: NDArray[np.uint8] | None = field(default=None, compare=False)

    @property
    def command(self) -> str:
        """The command that does the same in a shell."""
        return shlex.join(["braggshot", *self.arguments])


def is_inside(path: Path, folder: Path) -> bool:
    """Tell whether a path lies in a folder when all links are followed."""
    return path.resolve().is_relative_to(folder.resolve())


def raw_scans(folder: Path) -> tuple[RawScan, ...]:
    """List the measured scans of a folder, in the order of their names; results and what cannot be a scan are left out."""
    found: list[RawScan] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == RESULTS or not is_inside(path, folder) or is_result(path):
            continue
        try:
            module = registry.choose(path)[1]
            numbers = [str(number) for number in module.scans(path)] if hasattr(module, "scans") else []
            several = [RawScan(f"{_name(path)}_{_clean(number)}", path, number) for number in numbers]
            listed = several if len(numbers) > 1 else [RawScan(_name(path), path)]
            listed[0].read()
        except (BraggshotError, OSError, ValueError, KeyError):
            continue
        found += listed
    return tuple(found)


def is_result(path: Path) -> bool:
    """Tell whether a file is a result of a phasing."""
    from braggshot.errors import FormatError
    from braggshot.io.files import find_node, open_hdf5

    try:
        if path.suffix != ".cxi":
            return False
        with open_hdf5(path) as file:
            return find_node(file, "entry_1/image_1/data") is not None
    except FormatError:
        return False


def results_of(folder: Path) -> tuple[Path, ...]:
    """List the result files of a folder and of what was made from the page, the newest last."""
    places = [*folder.glob("*.cxi"), *(folder / RESULTS).glob("*.cxi")]
    found = [path for path in places if is_inside(path, folder) and is_result(path)]
    return tuple(sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name)))


def sum_frames(scan: Scan) -> Summed:
    """Sum all frames of a scan, a few at a time; sides beyond 400 pixels are binned."""
    n, rows, columns = (int(size) for size in scan.frames.shape)
    total = np.zeros((rows, columns))
    step = max(1, _CHUNK // (rows * columns * 8))
    for first in range(0, n, step):
        total += np.nan_to_num(np.asarray(scan.frames[first : first + step], dtype=np.float64)).clip(0).sum(axis=0)
    if scan.valid is not None:
        total[~(scan.valid if scan.valid.ndim == 2 else scan.valid.any(axis=0))] = 0
    side = -(-max(rows, columns) // _SHOWN)
    padded = np.pad(total, ((0, -rows % side), (0, -columns % side)))
    image = padded.reshape(padded.shape[0] // side, side, padded.shape[1] // side, side).sum(axis=(1, 3))
    return Summed(image, (n, rows, columns))


def read_shapes(shapes: Any, rows: int, columns: int) -> Drawn:
    """Read what the browser says was drawn: the last rectangle is the region, every closed outline masks what is inside it.

    Coordinates are held within the frame; what is no shape is left out.
    """
    region, outlines = None, []
    for shape in shapes if isinstance(shapes, list) else []:
        if not isinstance(shape, Mapping):
            continue
        if shape.get("type") == "rect":
            ends = [shape.get(name) for name in ("y0", "y1", "x0", "x1")]
            if all(isinstance(end, int | float) and np.isfinite(end) for end in ends):
                region = _region(np.array(ends, dtype=float), rows, columns) or region
        elif shape.get("type") == "path" and isinstance(shape.get("path"), str):
            pairs = re.findall(r"(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?)", shape["path"])[:_MOST_POINTS]
            corners = tuple((min(max(float(y), 0), rows), min(max(float(x), 0), columns)) for x, y in pairs)
            outlines += [corners] if len(corners) > 2 else []
    return Drawn(region, tuple(outlines))


def _region(ends: FloatArray, rows: int, columns: int) -> tuple[int, int, int, int] | None:
    """Return whole pixels inside the frame, an even number of them on each side; None if they are too few."""
    limits = np.array([rows, rows, columns, columns])
    top, bottom, left, right = (int(value) for value in np.clip(np.round(ends), 0, limits))
    top, bottom, left, right = min(top, bottom), max(top, bottom), min(left, right), max(left, right)
    bottom, right = bottom - (bottom - top) % 2, right - (right - left) % 2
    return (top, bottom, left, right) if min(bottom - top, right - left) >= _LEAST else None


def order(folder: Path, scan: RawScan, opened: Scan, method: str, drawn: Drawn) -> Order:
    """Write what a user chose as a command.

    Raises
    ------
    ConfigError : for a method that is not offered, or a scan outside the folder.
    """
    place = folder.resolve() / RESULTS
    if method not in METHODS or not is_inside(scan.path, folder) or not is_inside(place, folder):
        raise ConfigError("the page offers no such method or scan.")
    run = 1 + max(
        [int(found[1]) for found in map(re.compile(rf"{re.escape(scan.name)}-(\d+)[-.]").match, _names(place)) if found] or [0]
    )
    output = place / f"{scan.name}-{run}.cxi"
    words = ["reconstruct", str(scan.path.resolve())]
    words += [] if scan.number is None else ["--scan", scan.number]
    words += ["--method", method]
    mask_file = mask = None
    if drawn.outlines:
        mask_file, mask = place / f"{scan.name}-{run}-mask.npy", _mask(drawn.outlines, opened.frames.shape[1:])
        words += ["--mask", str(mask_file)]
    for name, value in _preparation(opened, drawn).items():
        words += ["--set", f"prepare.{name}={','.join(map(str, value))}"]
    return Order(scan, (*words, "-o", str(output)), output, mask_file, mask)


def _preparation(scan: Scan, drawn: Drawn) -> dict[str, tuple[int, int, int]]:
    """Return the settings that cut a region out: all frames, unbinned, about the brightest frame."""
    if drawn.region is None:
        return {}
    top, bottom, left, right = drawn.region
    n = int(scan.frames.shape[0])
    bright = [np.nan_to_num(np.asarray(scan.frames[k, top:bottom, left:right], dtype=float)).clip(0).sum() for k in range(n)]
    centre = int(np.argmax(bright)), (top + bottom) // 2, (left + right) // 2
    return {"centre": centre, "shape": (n + n % 2, bottom - top, right - left), "binning": (1, 1, 1)}


def _mask(outlines: Sequence[Sequence[tuple[float, float]]], shape: Sequence[int]) -> NDArray[np.uint8]:
    """Return a mask of a frame, 1 inside the outlines; pixel k reaches from k to k + 1."""
    rows, columns = shape
    to_mask: Callable[..., NDArray[np.bool_]] = polygon2mask
    inside = [to_mask((rows, columns), np.asarray(corners) - 0.5) for corners in outlines]
    return np.logical_or.reduce(inside).astype(np.uint8)


def _name(path: Path) -> str:
    return _clean(path.stem if path.is_file() else path.name)


def _clean(text: str) -> str:
    """Return a text that may be part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip("-.") or "scan"


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []
