"""Place the frames of APS 34-ID-C on their detector: region, seam between the chips, middle of the detector.

34idcTIM1 is one Timepix chip of 256 x 256 pixels. 34idcTIM2 is a quad of four chips, 512 x 512 pixels in its files; the chips are
5 rows and 4 columns further apart than the files say (cohere, `insert_seam`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from braggshot.io.beamlines.views import SeamFrames
from braggshot.io.frames import LazyFrames

CHIPS = {"34idcTIM1": 256, "34idcTIM2": 512}  # rows, and columns, in the files of each detector
ONE_CHIP, QUAD = CHIPS  # detectors of one chip, and of four
SEAM_AT, SEAM = 256, (5, 4)  # pixel at which the chips of the quad meet; rows and columns that are missing there


def read_region(facts: dict[str, str], detector: str, shape: Sequence[int], noticed: list[str]) -> tuple[slice, slice] | None:
    """Return the rows and columns of the detector that the frames show; None, with a note, if the file does not say it."""
    words = facts.get("UIMR5", "").split()
    if len(words) >= 4 and all(re.fullmatch(r"\d+", word) for word in words[:4]):
        column, width, row, height = (int(word) for word in words[:4])
        if (height, width) == tuple(shape[1:]):
            return slice(row, row + height), slice(column, column + width)
    if shape[1] == shape[2] and shape[1] in ([CHIPS[detector]] if detector in CHIPS else CHIPS.values()):
        return from_zero(shape)
    noticed.append(f"the detector region (#UIMR5 {' '.join(words) or 'missing'}) does not fit {tuple(shape[1:])}: from pixel 0.")
    return None


def from_zero(shape: Sequence[int]) -> tuple[slice, slice]:
    """Return the region (rows, columns) of frames of `shape` that begins at the first pixel of the detector."""
    return slice(0, shape[1]), slice(0, shape[2])


def open_seam(stored: LazyFrames, detector: str, region: tuple[slice, slice] | None, noticed: list[str]) -> LazyFrames:
    """Return frames with the gap between the chips of the quad; the frames themselves if they show one chip or another detector."""
    crossing = [region is not None and cut.start < SEAM_AT < cut.stop for cut in region or ()]
    if not any(crossing):
        return stored
    assert region is not None
    if detector != QUAD:
        if detector not in CHIPS:
            noticed.append(
                f"the frames cross pixel {SEAM_AT} of the detector {detector or '(not named by #UIMDET)'}: its chips are taken to "
                f"touch; those of {QUAD} are {SEAM[0]} rows and {SEAM[1]} columns apart."
            )
        return stored
    seam = [(SEAM_AT - cut.start, width) if crosses else (0, 0) for cut, crosses, width in zip(region, crossing, SEAM, strict=True)]
    lines = [
        f"{width} {name} from {name[:-1]} {at} on" for (at, width), name in zip(seam, ("rows", "columns"), strict=True) if width
    ]
    noticed.append(
        f"the frames show several chips of {QUAD}, which lie further apart than the file says: {' and '.join(lines)} are inserted, "
        "masked; a direct_beam counts them too."
    )
    return SeamFrames(stored, seam)


def find_direct_beam(
    facts: dict[str, str], detector: str, region: tuple[slice, slice] | None
) -> tuple[tuple[float, float] | None, tuple[str, ...]]:  # fmt: skip
    """Return the middle of the detector (row, column) in pixels of the frames, and what is to be noticed about it.

    The line #Readout says how many pixels of the detector are read. Without that line, or where the region is not known or lies
    outside, the middle is None.
    """
    words = facts.get("Readout", "").split()
    if region is None or len(words) < 4 or not all(re.fullmatch(r"\d+", word) for word in words[:4]):
        return None, ()
    columns, rows = (int(words[at]) + int(words[at + 1]) for at in (0, 2))
    if any(cut.stop > size for cut, size in zip(region, (rows, columns), strict=True)):
        return None, (f"the region ends beyond the {rows} x {columns} pixels that are read of {detector or 'the detector'}.",)
    seam = SEAM if detector == QUAD else (0, 0)
    middle = [
        (size + width - 1) / 2 - cut.start - (width if cut.start >= SEAM_AT else 0)
        for size, width, cut in zip((rows, columns), seam, region, strict=True)
    ]
    return (middle[0], middle[1]), (
        f"the files do not say where the direct beam meets the detector: the middle of the {rows} x {columns} pixels of "
        f"{detector or 'the detector'} is assumed, ({middle[0]:g}, {middle[1]:g}) in these frames; volume, orientation and lattice "
        "spacing depend on it: give direct_beam=[row,column] if it is known.",
    )


def centred_region(rows: int, columns: int) -> list[str]:
    """Return the lines of a SPEC file by which the middle of frames of this shape is that of a detector.

    The lines are left out where no region has the same middle as a detector; the reader then assumes the frame's centre.
    """
    size = CHIPS[ONE_CHIP]
    if max(rows, columns) > size or rows % 2 or columns % 2:
        return []
    region = f"#UIMR5  {(size - columns) // 2} {columns} {(size - rows) // 2} {rows} 1"
    return [f"#UIMDET {ONE_CHIP}:", f"#Readout 0 {size} 0 {size}", "#UIMR Name minX sizeX minY sizeY BgdWidth", region]
