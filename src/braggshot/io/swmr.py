"""Open HDF5 files that another program writes at the same time (single writer, multiple readers: SWMR)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import h5py
from h5py._objects import phil

READ_ATTEMPTS = 24
"""Number of times that HDF5 reads a block whose checksum is wrong, which may just be written.

It waits 2^n ns before attempt n, 34 ms in all. By default it tries 100 times, so a damaged file would hold up its reader for ever.
"""


def open_swmr(path: str | Path) -> h5py.File:
    """Open a file for reading while it may be written, without a lock.

    Raises
    ------
    OSError : if it cannot be opened so, such as a file that was not made for SWMR.
    """
    with phil:  # HDF5 serves one thread at a time; h5py takes this lock for its own calls alone
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_file_locking(False, True)
        _set_attempts()(access.id, READ_ATTEMPTS)
        return h5py.File(h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY | h5py.h5f.ACC_SWMR_READ, access))


@cache
def _set_attempts() -> Callable[[int, int], int]:
    """Return HDF5's function that limits the attempts, which h5py has not; where it is not found, it does nothing."""
    try:
        limit = ctypes.CDLL(h5py.h5p.__file__).H5Pset_metadata_read_attempts
    except (OSError, AttributeError):
        return lambda plist, attempts: 0
    limit.argtypes, limit.restype = (ctypes.c_int64, ctypes.c_uint), ctypes.c_int
    return limit
