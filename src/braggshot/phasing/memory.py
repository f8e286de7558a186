"""Check before phasing that it fits into memory, and refuse it if not; a machine that swaps memory to disk hardly responds.

How much memory each method of phasing needs was measured with volumes from 64^3 to 256^3 voxels; see ``docs/benchmarks.md``.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from braggshot.errors import DataError

FIXED = 100_000_000  # memory that a phasing of any size takes: layers of the network, gaps between small arrays [bytes]
DEVICE = 40 + 72  # memory of a graphics card for the measurement (40) and for one start (72) [bytes per voxel]
# Files with the memory limit and the memory in use of a Linux control group, in version 2 and in version 1.
_CGROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def require(name: str, shape: Sequence[int], host_bytes: tuple[int, int], starts: int, device: torch.device) -> None:
    """Refuse a phasing that does not fit into the free memory.

    Parameters
    ----------
    name, shape : name and shape of the volume
    host_bytes : main memory per voxel for the volume and for each start, as in `Strategy`
    starts : number of starts that are kept
    device : where the phasing runs

    Raises
    ------
    DataError : if it does not fit; the message says how much is needed, how much is free, and what to do.
    """
    wants = [("memory", needed(shape, host_bytes, starts), available())]
    if device.type == "cuda":
        wants.append(("graphics memory", math.prod(shape) * DEVICE, torch.cuda.mem_get_info(device)[0]))
    for kind, bytes_needed, free in wants:
        if free is not None and bytes_needed > free:
            size = " x ".join(str(n) for n in shape)
            raise DataError(
                f"{name}: to phase {size} voxels with {starts} starts takes about {bytes_needed / 1e9:.3g} GB of {kind}, and "
                f"{free / 1e9:.3g} GB are free: crop (prepare.shape), bin (prepare.binning) or use fewer starts (phasing.starts); "
                "phasing.check_memory = false tries all the same."
            )


def needed(shape: Sequence[int], host_bytes: tuple[int, int], starts: int) -> int:
    """Estimate the bytes of main memory that phasing a volume takes: `host_bytes` per voxel, for the volume and for each start."""
    volume, start = host_bytes
    return FIXED + math.prod(shape) * (volume + start * starts)


def trim_heap() -> None:
    """Return freed memory to the system; the C library (glibc) otherwise keeps memory between arrays still in use."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def available(cgroups: Path = Path("/sys/fs/cgroup"), meminfo: Path = Path("/proc/meminfo")) -> int | None:
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
