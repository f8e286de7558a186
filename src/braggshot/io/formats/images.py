"""Read detector images that the library fabio knows, such as EDF and CBF: one file of many images, a folder or a pattern.

fabio fills what a truncated file lacks with zeros, and only logs the fault. Here such a log message becomes an error.
"""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import FormatError
from braggshot.gate import refuse_irregular, shorten
from braggshot.io.archives import Image
from braggshot.io.files import complaints_of
from braggshot.io.formats.numbered import find_series
from braggshot.io.formats.stacks import list_images, name_scan
from braggshot.io.frames import FileFrames
from braggshot.io.heads import Head
from braggshot.volumes import Scan

# Suffixes of each kind of image: ESRF, Dectris, MarCCD, Mar345, ADSC and others, Bruker, Gatan, Princeton Instruments, KappaCCD.
KINDS = [
    tuple(f".{name}{packed}" for name in kind for packed in ("", ".gz", ".bz2"))
    for kind in (("edf",), ("cbf",), ("mccd",), ("mar2300", "mar3450"), ("img",), ("sfrm",), ("dm3",), ("spe",), ("kcd",))
]

CBF_START = b"\x0c\x1a\x04\xd5"
"""Bytes that stand before the image of a CBF file."""
CBF_HEAD = 2**20
"""Longest head of a CBF file [bytes]."""
CBF_WORDS = (b"_array_data.data", b"--CIF-BINARY-FORMAT-SECTION--", b"X-Binary-Size")
"""Words in the head of a CBF file that lead to its image."""


def can_read(path: str | Path) -> bool:
    """Tell whether the path is named like an image of these kinds, or is a folder or pattern of such images and of no others."""
    if Path(path).is_file():
        return Path(path).name.lower().endswith(tuple(suffix for kind in KINDS for suffix in kind))
    return bool(list_images(path, *KINDS)) and not list_images(path)


def read(path: str | Path) -> Scan:
    """Read images, one for each frame.

    Parameters
    ----------
    path : file, folder or pattern

    Raises
    ------
    FormatError : if a file is damaged, or more than a tenth of many files; if the folder holds several series.
    """
    series = find_series(list_images(path, *KINDS) or [Path(path)])
    frames = FabioFrames(series.files)
    frames.noticed = (*series.noticed, *frames.noticed)
    return Scan(frames=frames, name=name_scan(path))


class FabioFrames(FileFrames):
    """Frames in files that fabio reads: many files of one image each, or one file of many images.

    Raises
    ------
    FormatError : if the one file, or more than a tenth of many files, cannot be read.
    """

    def __init__(self, paths: Sequence[str | Path | None]) -> None:
        self.stacked = len(paths) == 1 and paths[0] is not None
        if not self.stacked:
            super().__init__(paths)
            return
        self.files = self.paths = (Path(str(paths[0])),)
        with _open_image(self.paths[0]) as file:
            first = file.get_frame(0).data
            self.shape, self.dtype = (file.nframes, *first.shape), first.dtype
            last = file.nframes - 1
        try:
            with _open_image(self.paths[0]) as file:
                file.get_frame(last).data  # noqa: B018  an interrupted writer leaves the last image incomplete
        except FormatError:
            if not last:
                raise
            self.arrived = np.arange(last + 1) < last
            self.noticed = (f"the last of the {last + 1} images of {self.paths[0].name} is incomplete: left as a masked plane.",)

    def head(self, path: Path) -> Head:
        """Read the shape and the type of the image of a file."""
        image = self.image(path)
        return Head(image.shape, image.dtype)

    def image(self, path: Path) -> Image:
        """Read the whole image of a file."""
        with _open_image(path) as file:
            if file.nframes > 1:
                raise FormatError(f"{path}: holds {file.nframes} images; expected one in each of the {len(self.paths)} files.")
            return np.asarray(file.data)

    def read(self, indices: NDArray[np.intp], rows: slice, columns: slice) -> Image:
        """Read the frames of `indices`, cut to `rows` and `columns`; images are read whole, one at a time."""
        if not self.stacked:
            return super().read(indices, rows, columns)
        with _open_image(self.paths[0]) as file:
            return self.gather(lambda index: np.asarray(file.get_frame(index).data), indices, rows, columns)


@contextmanager
def _open_image(path: Path) -> Iterator[Any]:
    """Open a file with fabio; whatever fabio's parsers raise or log as an error becomes a FormatError that names the file."""
    try:
        import fabio  # here, because it takes long to import and few scans need it
    except ImportError:
        raise FormatError(f"{path}: this kind of image is read with fabio, which is not installed: pip install fabio.") from None
    refuse_irregular(path)
    with complaints_of("fabio") as complaints:
        try:
            if ".cbf" in map(str.lower, path.suffixes):
                _refuse_cbf_without_image(path)
            with fabio.open(str(path)) as file:
                yield file
        except FormatError:
            raise
        except Exception as error:
            said = shorten(complaints[0] if complaints else error)
            raise FormatError(f"{path}: fabio cannot read it ({said}); is the file whole?") from error
    if complaints:
        raise FormatError(f"{path}: the file is damaged or truncated ({shorten(complaints[0])}).")


def _refuse_cbf_without_image(path: Path) -> None:
    """Refuse a CBF file whose head is damaged, or does not say where the image begins; fabio would look for that for ever."""
    packed: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}
    with packed.get(path.suffix.lower(), open)(path, "rb") as stream:
        head, start, _ = stream.read(CBF_HEAD).partition(CBF_START)
    if not start or b"\0" in head or any(word not in head for word in CBF_WORDS):
        raise FormatError(f"{path}: this CBF file holds no image: its head is damaged or cut short; is the file whole?")
