"""Refuse what must not be opened or does not fit into memory, and tell what a damaged file does to a reader in one line.

Every reader and loader passes this gate: `refuse_irregular` before it opens a file, `refuse_oversized` before it allocates what a
file declares, and `explain_damage` around the reading itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from braggshot.errors import BraggshotError, FormatError

SMALL = 2**28
"""Size that is never compared with the free memory [bytes]."""
DENSEST = 4000
"""How many bytes one byte of a file may stand for; no compressor of detector images reaches it [1]."""
LONGEST_REASON = 300
"""Most characters of an error of a library that a message quotes."""
# Files of Linux with the memory limit and the memory in use of a control group, in version 2 and in version 1.
_CGROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


def refuse_irregular(path: str | Path, error: type[BraggshotError] = FormatError, folders: bool = False) -> None:
    """Refuse to open what is no regular file, because a FIFO or a device would block the program or never end.

    Parameters
    ----------
    path : file that is about to be opened; of a symbolic link, its target counts
    error : class of the error
    folders : whether a folder is allowed, too

    Raises
    ------
    BraggshotError : of the class `error`, if the file is missing, is none, or has a name that results cannot hold.
    """
    try:
        os.fspath(path).encode() if isinstance(path, str) else str(path).encode()
        mode = os.stat(path).st_mode
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="replace")
        raise error(f"{shown}: its name is not UTF-8; rename it.") from None
    except FileNotFoundError as missing:
        raise error(f"{path}: no such file.") from missing
    except (OSError, ValueError) as reason:
        raise error(f"{str(path)[:LONGEST_REASON]}: cannot be opened ({getattr(reason, 'strerror', None) or reason}).") from reason
    if not stat.S_ISREG(mode) and not (folders and stat.S_ISDIR(mode)):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "no file")
        raise error(f"{path}: is {kind}, expected a file.")


def is_regular(path: str | Path) -> bool:
    """Tell whether a path leads to a regular file; False for every other kind, and where nothing is."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def refuse_oversized(place: str | Path, wanted: int, stored: int | None = None, error: type[BraggshotError] = FormatError) -> None:
    """Refuse to read or make an array that is larger than its file can hold, or than the free memory.

    Parameters
    ----------
    place : file and the place in it, or what the array is for, for the message
    wanted : size of the array in memory [bytes]
    stored : size of the file that holds it; None without a file, or if it is spread over several files [bytes]
    error : class of the error

    Raises
    ------
    BraggshotError : of the class `error`, if it is too large.
    """
    if wanted <= SMALL:
        return
    if stored is not None and wanted > DENSEST * stored:
        raise error(f"{place}: {_write_size(wanted)} are declared, but the file has {_write_size(stored)}; is it damaged?")
    free = free_memory()
    if free is not None and wanted > free:
        raise error(f"{place}: takes {_write_size(wanted)} of memory, and {_write_size(free)} are free.")


def lacks_memory(error: BaseException) -> bool:
    """Tell whether an error says that there is not enough memory; torch says so in a RuntimeError."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in ("allocate memory", "out of memory"))
    )


def _write_size(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e7 else f"{size} bytes"


@contextmanager
def explain_damage(path: str | Path, what: str, error: type[BraggshotError] = FormatError) -> Iterator[None]:
    """Turn whatever reading a damaged file raises into one line that names the file.

    Libraries raise errors of any class on damaged files, and so does code that meets a text where a number should be. The first
    error stays attached; ``--debug`` shows it.

    Parameters
    ----------
    path : the file
    what : what it is read as
    error : class of the error that is raised in place of another
    """
    try:
        yield
    except BraggshotError:
        raise
    except MemoryError as reason:
        raise error(f"{path}: reading it as {what} takes more memory than is free.") from reason
    except Exception as reason:
        raise error(f"{path}: cannot be read as {what} ({shorten(reason)}); is the file whole?") from reason


def shorten(reason: object) -> str:
    """Write an error, or another text, in one line of limited length."""
    text = " ".join(str(getattr(reason, "strerror", None) or reason).split())
    if isinstance(reason, Exception) and not isinstance(reason, OSError):
        text = f"{type(reason).__name__}: {text}" if text else type(reason).__name__
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "..."


def free_memory(cgroups: Path = Path("/sys/fs/cgroup"), meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Find how many bytes are free without swapping; a container or a batch job may allow less than the system has."""
    known = [_of_system(meminfo), *(_of_group(cgroups / most, cgroups / used) for most, used in _CGROUPS)]
    return min((free for free in known if free is not None), default=None)


def _of_system(meminfo: Path) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        pass
    try:  # a system that does not say what is free: all there is
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _of_group(most: Path, used: Path) -> int | None:
    """Read how many bytes a control group still allows; memory that only caches files counts as free."""
    try:
        statistics = dict(line.split() for line in (used.parent / "memory.stat").read_text().splitlines())
        kept = int(statistics.get("inactive_file", statistics.get("total_inactive_file", 0)))
        return max(0, int(most.read_text()) - int(used.read_text()) + kept)
    except (OSError, ValueError):  # no such group, or "max"
        return None
