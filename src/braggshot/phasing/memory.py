"""Check before phasing that it fits into memory, and refuse it if not; a machine that swaps memory to disk hardly responds.

How much memory each method of phasing needs was measured with volumes from 64^3 to 256^3 voxels; see ``docs/benchmarks.md``.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from contextlib import suppress

import torch

from braggshot.errors import DataError
from braggshot.gate import free_memory

FIXED = 100_000_000  # memory that a phasing of any size takes: layers of the network, gaps between small arrays [bytes]
DEVICE = 40 + 72  # memory of a graphics card for the measurement (40) and for one start (72) [bytes per voxel]


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
    wants = [("memory", needed(shape, host_bytes, starts), free_memory())]
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
