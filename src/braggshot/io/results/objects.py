"""Read the object of PyNX, cohere, cdiutils or braggshot, and write it for another of these programs.

======== ==================== ========================= ====================== ===========================
program  axes of the object   object to detector        phase of u             counts
======== ==================== ========================= ====================== ===========================
ours     (frame, row, column) forward transform, ortho  -q.u                   photons, mask 0 good
PyNX     (frame, row, column) forward transform, ortho  -q.u                   none in its results
cdiutils (frame, row, column) as PyNX                   -q.u                   photons, in a file beside
cohere   (column, row, frame) inverse, unscaled         +q.u                   their square roots, no mask
======== ==================== ========================= ====================== ===========================

So PyNX, cdiutils and braggshot differ in their files only, and an object for cohere is transposed and conjugated. No axis is
mirrored: the crystal has the same handedness in all of them. An object alone has no metres; a CXI of braggshot keeps its geometry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from braggshot.errors import FormatError
from braggshot.io.atomic import refuse_target
from braggshot.io.results import cdiutils, cohere, cxi, npz
from braggshot.volumes import Reconstruction

Layout = Literal["cxi", "npz", "cohere", "cdiutils"]


def read_object(path: str | Path) -> Reconstruction:
    """Read the object of a file or folder, and bring it to the order of axes and the sign of braggshot.

    Parameters
    ----------
    path : result CXI of braggshot, PyNX or cdiutils, a folder of cdiutils, a results folder of cohere or the folder of its
        experiment, or its ``image.npy``

    Raises
    ------
    FormatError : if there is no object.
    """
    path = Path(path)
    if not path.exists():
        raise FormatError(f"{path}: no such file or folder.")
    if (path.is_dir() and cdiutils.list_objects(path)) or path.name.endswith(cdiutils.OBJECT):
        return cdiutils.read(path)
    return cohere.read(path) if path.is_dir() or path.suffix == ".npy" else cxi.read(path)


def write_object(
    found: Reconstruction,
    place: str | Path,
    layout: Layout,
    scan: int | None = None,
    inputs: Sequence[Path] = (),
    force: bool = False,
) -> list[Path]:
    """Write an object for a program, and return the paths of what was written.

    Parameters
    ----------
    found : object with its counts
    place : the file for "cxi" and "npz", the folder for "cohere" (of the experiment) and "cdiutils" (its ``dump_dir``)
    layout : "cxi" is the layout of PyNX with what braggshot adds; PyNX takes it as object and support to start from
    scan : number of the scan, by which cdiutils names its files; None takes it from the name of the volume
    inputs : files that are read, and must stay as they are
    force : replace files that braggshot did not write

    Raises
    ------
    OutputError : if a file cannot be written or must not be replaced, or a number is missing.
    """
    place = Path(place)
    targets: dict[str, list[Path]] = {
        "cxi": [place],
        "npz": [place],
        "cohere": [place / name for name in cohere.FILES],
        "cdiutils": [cdiutils.target_of(place, found.volume.name, scan)] if layout == "cdiutils" else [],
    }
    writers: dict[str, Callable[[], object]] = {
        "cxi": lambda: cxi.write(place, found),
        "npz": lambda: npz.write(place, found),
        "cohere": lambda: cohere.export(place, found),
        "cdiutils": lambda: cdiutils.export(place, found, scan),
    }
    for target in targets[layout]:
        refuse_target(target, inputs, force)
    writers[layout]()
    return targets[layout]
