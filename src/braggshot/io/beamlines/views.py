"""Show frames otherwise than they are stored: some of them only, or with the gap between the chips of a detector.

Both views read on demand, as the frames do that they show, and keep what is known of each frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.io.archives import Image
from braggshot.io.frames import LazyFrames
from braggshot.volumes import BoolArray


class SelectedFrames(LazyFrames):
    """Frames of the given `indices`, in that order."""

    def __init__(self, frames: LazyFrames, indices: NDArray[np.intp]) -> None:
        self.frames, self.indices, self.paths = frames, indices, frames.paths
        self.shape, self.dtype = (len(indices), *frames.shape[1:]), frames.dtype
        self.arrived = None if frames.arrived is None else frames.arrived[indices]
        self.filled, self.noticed = frames.filled, frames.noticed

    def read(self, indices: NDArray[np.intp], rows: slice, columns: slice) -> Image:
        """Read the selected frames of these `indices`, cut to `rows` and `columns`."""
        return self.frames.read(self.indices[indices], rows, columns)


def select_frames(frames: LazyFrames, indices: NDArray[np.intp]) -> LazyFrames:
    """Return the frames of the given `indices`; the same frames if these are all of them."""
    return frames if np.array_equal(indices, np.arange(frames.shape[0])) else SelectedFrames(frames, indices)


class SeamFrames(LazyFrames):
    """Frames whose chips lie further apart than the file says: lines of zeros stand where nothing was measured.

    Parameters
    ----------
    frames : frames as they are stored, chips without a gap
    seam : for rows and for columns, the stored index before which the gap lies, and its width [pixels]; (0, 0) for no gap
    """

    def __init__(self, frames: LazyFrames, seam: Sequence[tuple[int, int]]) -> None:
        self.frames, self.seam, self.paths, self.dtype = frames, tuple(seam), frames.paths, frames.dtype
        # For each row and each column that is shown, the one that is stored; -1 in the gap.
        self.stored = tuple(
            np.insert(np.arange(size), np.full(width, at), -1) for size, (at, width) in zip(frames.shape[1:], seam, strict=True)
        )
        self.shape = (frames.shape[0], *(lines.size for lines in self.stored))
        self.arrived, self.noticed = frames.arrived, frames.noticed
        self.filled = None if frames.filled is None else self.open_seam(frames.filled, True)

    @property
    def measured(self) -> BoolArray:
        """Pixels (rows, columns) that are not in the gap."""
        rows, columns = (lines >= 0 for lines in self.stored)
        return np.asarray(rows[:, None] & columns)

    def open_seam(self, image: NDArray[Any], fill: Any = 0) -> NDArray[Any]:
        """Put `fill` into the gap of an image (..., rows, columns) of the stored pixels."""
        for axis, (at, width) in zip((-2, -1), self.seam, strict=True):
            image = np.insert(image, np.full(width, at), fill, axis=axis)
        return image

    def read(self, indices: NDArray[np.intp], rows: slice, columns: slice) -> Image:
        """Read the frames of `indices`, cut to `rows` and `columns`, with zeros in the gap."""
        wanted = [lines[cut] for lines, cut in zip(self.stored, (rows, columns), strict=True)]
        out = np.zeros((len(indices), wanted[0].size, wanted[1].size), self.dtype)
        there = [lines[lines >= 0] for lines in wanted]
        if not all(lines.size for lines in there):
            return out
        cuts = [slice(int(lines[0]), int(lines[-1]) + 1) for lines in there]
        block = self.frames.read(indices, *cuts)
        block = block[:, there[0] - cuts[0].start][:, :, there[1] - cuts[1].start]
        out[np.ix_(np.arange(len(indices)), wanted[0] >= 0, wanted[1] >= 0)] = block
        return out
