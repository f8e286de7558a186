"""Find the axes of frames, rows and columns of an array, and refuse values that are no counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import DataError, FormatError


def image_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the axes of frames, rows and columns of an array: of more than three axes, those of length 1 are dropped."""
    axes = list(range(len(shape)))
    for axis in range(len(shape)):
        if shape[axis] == 1 and len(axes) > 3:
            axes.remove(axis)
    return tuple(axes)


def say_dropped(shape: Sequence[int]) -> tuple[str, ...]:
    """Say which axes of an array `image_axes` drops; empty where it drops none."""
    axes = image_axes(shape)
    if len(axes) == len(shape):
        return ()
    return (f"the data have the shape {' x '.join(map(str, shape))}: the axis of length 1 was dropped.",)


def drop_axes(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array without the axes that `image_axes` drops; nothing is copied."""
    return array.squeeze(tuple(sorted(set(range(array.ndim)) - set(image_axes(array.shape)))))


def fit_mask(mask: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Return a mask without the axes of length 1 that frames of the given shape do not have, such as (1, rows, columns)."""
    mask = drop_axes(mask)
    return mask[0] if mask.ndim == 3 and mask.shape[0] == 1 != shape[0] else mask


MOST_PIXELS, MOST_FRAMES = 2**27, 10**6
"""Most pixels of a frame, more than any detector has, and most frames of a scan."""


def refuse_odd_frames(shape: Sequence[int], name: str) -> None:
    """Refuse empty frames, and frames larger than a detector takes, before one is read; `name` is the file in the message.

    Raises
    ------
    DataError : if there are no frames, or they have no pixels.
    FormatError : if a frame has more than `MOST_PIXELS` pixels, or the scan more than `MOST_FRAMES` frames.
    """
    if len(shape) == 3 and 0 in shape:
        raise DataError(f"{name}: holds no counts, the frames have the shape {' x '.join(map(str, shape))}.")
    if len(shape) == 3 and (shape[0] > MOST_FRAMES or shape[1] * shape[2] > MOST_PIXELS):
        size = " x ".join(map(str, shape))
        raise FormatError(
            f"{name}: declares frames of {size} (frames, rows, columns); at most {MOST_FRAMES} of {MOST_PIXELS} pixels are read."
        )


def refuse_no_counts(dtype: np.dtype[Any], name: str) -> None:
    """Refuse values that cannot be counts; `name` is the file in the message.

    Raises
    ------
    DataError : if the values are neither whole numbers nor real floating-point numbers.
    """
    if dtype.kind not in "iuf":
        remedy = "; give |F|^2, not the complex amplitude" if dtype.kind == "c" else ""
        raise DataError(f"{name}: holds {dtype} values, expected counts{remedy}.")
