"""Look at the files of many images, one each, before the images are read: which can be read, and which have another shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from braggshot.errors import FormatError
from braggshot.io.files import starts_with


class Head(NamedTuple):
    """Shape and type of the image in one file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read_heads(paths: Sequence[Path], head: Callable[[Path], Head], signatures: Sequence[bytes]) -> dict[Path, Head | str]:
    """Read the heads of files with `head`; in place of a head stands the reason why a file cannot be read.

    Of the files with the most common size, one is read, and of the others only the first bytes, because this is much faster.

    Parameters
    ----------
    paths : files of one image each
    head : reader of the head of one file, which raises FormatError
    signatures : first bytes that a file may have
    """
    sizes = {path: path.stat().st_size if path.exists() else -1 for path in paths}
    common = Counter(sizes.values()).most_common(1)[0][0]
    known: Head | None = None
    found: dict[Path, Head | str] = {}
    for path, size in sizes.items():
        if size == common and known is not None and starts_with(path, *signatures):
            found[path] = known
            continue
        try:
            read = head(path)
        except FormatError as error:
            found[path] = str(error)
            continue
        found[path], known = read, read if size == common else known
    return found


def say_fault(path: Path, head: Head | str, shape: tuple[int, ...]) -> str:
    """Say why an image cannot be one of images of the given shape; "" if it can."""
    if isinstance(head, str):
        return head
    return "" if head.shape == shape else f"{path}: the image is {head.shape}, the others {shape}."
