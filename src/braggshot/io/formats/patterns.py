"""Read many patterns of one shape from a file, and write the objects that a network predicts for them.

Patterns come from an HDF5 file with a dataset (n, z, y, x), or from a numpy file (``.npy``) of that shape. Objects are written to
HDF5,

::

    /object   (n, z / 2, y / 2, x / 2) complex64, on the direct-space grid of a pattern, cut to the middle half of each axis
              [sqrt(photons)]
    /chi2     (n,) misfit between object and pattern, on the grid of the network's input [1]

with attributes of the file that say how the objects were made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from braggshot.errors import FormatError
from braggshot.gate import refuse_irregular
from braggshot.io.atomic import CheckedStream, check_room, filling_hdf5
from braggshot.io.files import is_hdf5, open_hdf5, read_npy, starts_with
from braggshot.io.frames import NPY


@contextmanager
def open_patterns(path: str | Path, dataset: str | None = None) -> Iterator[Any]:
    """Open the patterns (n, z, y, x) of a file; only the patterns that are indexed are read.

    Parameters
    ----------
    path : HDF5 or .npy file
    dataset : path of the patterns inside an HDF5 file; not needed where only one dataset has four axes

    Raises
    ------
    FormatError : if the file holds no patterns, or holds several datasets with four axes and `dataset` is not given.
    """
    if is_hdf5(path):
        with open_hdf5(path) as file:
            yield _dataset(file, Path(path), dataset)
        return
    if not starts_with(path, *NPY):
        refuse_irregular(path)
        raise FormatError(f"{path}: patterns are read from HDF5 or .npy files; this is neither.")
    array = read_npy(path)
    if array.ndim != 4:
        raise FormatError(f"{path}: expected patterns (n, z, y, x), found {array.shape}.")
    yield array


def _dataset(file: h5py.File, path: Path, name: str | None) -> h5py.Dataset:
    if name is not None:
        stack = file.get(name)
        if not isinstance(stack, h5py.Dataset) or stack.ndim != 4:
            raise FormatError(f"{path}: {name} is no dataset (n, z, y, x).")
        return stack
    stacks: list[h5py.Dataset] = []
    file.visititems(lambda _, item: stacks.append(item) if isinstance(item, h5py.Dataset) and item.ndim == 4 else None)
    if len(stacks) != 1:
        which = ", ".join(str(item.name) for item in stacks) or "none"
        raise FormatError(f"{path}: expected one dataset (n, z, y, x), found {which}; name it as dataset.")
    return stacks[0]


@contextmanager
def create_objects(
    path: str | Path, n: int, shape: Sequence[int], about: Mapping[str, Any]
) -> Iterator[tuple[h5py.File, CheckedStream]]:
    """Create a file of `n` objects under a temporary name, to be filled part by part; at the end the file is renamed to `path`.

    Parameters
    ----------
    path : output file
    n : number of objects
    shape : (z, y, x) of one object
    about : attributes that the file gets

    Yields
    ------
    file : the file, with datasets ``object`` and ``chi2``
    disk : its `CheckedStream.check` raises if the disk did not take a part

    Raises
    ------
    OutputError : if the disk has no room, or the file cannot be written.
    """
    check_room(Path(path).parent, 8 * n * int(np.prod(shape)), f"a file of {n} objects")
    with filling_hdf5(path) as (file, disk):
        objects = file.create_dataset("object", (n, *shape), np.complex64, chunks=(1, *shape))
        objects.attrs["units"] = "sqrt(photons)"
        file.create_dataset("chi2", (n,), np.float32)
        file.attrs.update(about)
        yield file, disk
