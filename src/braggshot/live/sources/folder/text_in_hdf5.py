"""Refuse an HDF5 file whose text would hold up its reader for ever.

Text of any length lies in a heap of the file. HDF5 (2.0) reads a damaged heap in a loop without end, inside C, where nothing of
this process can stop it. So another process reads the text first, and is stopped when it takes too long.
"""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from braggshot.live.sources.limits import UnusableError

PATIENCE = 15.0
"""Time that the other process may take, most of it for its start on a busy machine [s]."""
MOST_NODES = 10_000
"""Number of groups and datasets whose attributes are read."""
_READ = """
import sys, h5py
from braggshot.io.swmr import open_swmr
path, is_swmr, most = sys.argv[1], sys.argv[2] == "True", int(sys.argv[3])
seen = []
def look(name, node):
    for attribute in node.attrs:
        try:
            node.attrs[attribute]
        except Exception:
            pass
    seen.append(name)
    return len(seen) >= most or None
with open_swmr(path) if is_swmr else h5py.File(path, "r", locking=False) as file:
    look("/", file)
    file.visititems(look)
"""


def refuse_endless_text(path: Path, is_swmr: bool) -> None:
    """Read all attributes of a file in another process; an error there is left to the one who reads the file here.

    Parameters
    ----------
    is_swmr : True to open the file in SWMR mode

    Raises
    ------
    UnusableError : if reading does not end.
    """
    known = path.stat() if path.exists() else None
    if known is not None and not _ends(path, is_swmr, (known.st_mtime_ns, known.st_size)):
        raise UnusableError("damaged", f"HDF5 reads its text without an end (stopped after {PATIENCE:g} s)")


@lru_cache(maxsize=256)
def _ends(path: Path, is_swmr: bool, state: tuple[int, int]) -> bool:
    """Tell whether all attributes of a file, in a state given by time [ns] and size [bytes], are read within `PATIENCE`."""
    command = [sys.executable, "-c", _READ, str(path), str(is_swmr), str(MOST_NODES)]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return False
    return True
