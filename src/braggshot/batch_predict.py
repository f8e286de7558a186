"""Phase a file of many patterns by one pass of the network for each.

While a thread reads the next batch of patterns, the network predicts the objects of the present batch (`braggshot.nn.pipelined`),
and finished objects are written. Thousands of patterns may come from a raster scan of a crystal, a simulated test set, or an
instrument that writes faster than iterative phasing works. The objects get no verdict. A high chi2 tells which patterns to phase
again with `braggshot reconstruct`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from braggshot.errors import DataError
from braggshot.io.atomic import refuse_target
from braggshot.io.formats import patterns
from braggshot.iterative.spacing import Spacing
from braggshot.nn.pipelined import Stream, half_shape
from braggshot.nn.predict import input_size
from braggshot.nn.resampling import sampling
from braggshot.nn.two_scale import coarse_network
from braggshot.nn.weights import SHIPPED, load_network
from braggshot.phasing.problem import device_of
from braggshot.physics.sampling import oversampling

T = TypeVar("T")

# Number of patterns, counted from the beginning of a file, whose oversampling is measured. The lowest values decide the grid on
# which the network sees all patterns of the file.
LOOKED_AT = 16
# Largest allowed distance, per axis, between the middle of the array and the Bragg peak [voxels]; the sum of the first patterns of
# the file shows where the peak is.
CENTRED = 3
ON_CPU, ON_GPU = 8, 1024  # number of patterns in a batch on a CPU, and largest number of patterns in a batch on a GPU
# GPU memory for one voxel of one random start of a pattern [bytes]; it decides how many patterns fit into a batch. It is an
# estimate: 174 bytes were measured, but on a CPU.
BYTES_PER_VOXEL = 200


@dataclass(frozen=True)
class StackConfig:
    """Settings of the phasing of a stack of patterns.

    Parameters
    ----------
    dataset : name of the dataset, in an HDF5 file that holds several
    network : name or file of the network
    starts : number of random starts for each pattern; the one with the lowest chi2 is kept
    quick : run the low resolution alone, which is several times as fast
    batch : number of patterns in a batch; 0 chooses it
    device : "auto", "cpu" or "cuda"
    seed : seed of the random starts
    """

    dataset: str | None = None
    network: str = SHIPPED
    starts: int = 1
    quick: bool = False
    batch: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0


def one_shot_stack(
    source: str | Path,
    output: str | Path,
    config: StackConfig | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    force: bool = True,
) -> Path:
    """Phase all patterns of a file, and write their objects into another file.

    Parameters
    ----------
    source : HDF5 or .npy, see `braggshot.io.formats.patterns`; each pattern has its peak in the middle; voxels that are not
        valid are negative or NaN
    output : HDF5 file to be written
    on_progress : called with the number of patterns that are done, and the number of all patterns
    force : replace also a file that braggshot did not write

    Raises
    ------
    FormatError : for a file without patterns.
    DataError : if the peak is not in the middle, or there are no counts.
    ConfigError : if the network or the device does not exist.
    OutputError : if the file cannot be written.
    """
    config = config or StackConfig()
    refuse_target(output, [source], force)
    device = device_of(config.device)
    network, card = load_network(config.network)
    network = coarse_network(network) if config.quick else network
    with patterns.open_patterns(source, config.dataset) as counts:
        n, *shape = counts.shape
        how, measured = _looked_at(counts, str(source), input_size(network))
        size = config.batch or _fitting(shape, config.starts, device)
        stream = Stream(network.to(device), how, torch.ones(shape, dtype=torch.bool, device=device), config.starts, config.seed)
        about = {
            "network": card.name,
            "seen": card.seen,
            "seed": config.seed,
            "quick": config.quick,
            "source": str(source),
            "oversampling": measured,
        }
        with (
            patterns.create_objects(output, n, half_shape(shape), about) as (file, disk),
            _one_ahead(_batches(counts, size, device)) as batches,
        ):
            done = 0
            for rho, chi2 in stream.answers(batches):
                file["object"][done : done + len(rho)] = rho.numpy()
                file["chi2"][done : done + len(rho)] = chi2.numpy()
                disk.check()
                done += len(rho)
                if on_progress is not None:
                    on_progress(done, n)
    return Path(output)


@contextmanager
def _one_ahead(items: Iterable[T]) -> Iterator[Iterator[T]]:
    """Fetch the next item of an iterable in a thread while the present item is in use; no item may be None.

    An error in the thread is raised when its item is asked for. The thread ends with the ``with`` block, also after an error.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, "braggshot-ahead") as thread:

        def draw() -> Iterator[T]:
            coming = thread.submit(next, source, None)
            while (item := coming.result()) is not None:
                coming = thread.submit(next, source, None)
                yield item

        yield draw()


def _batches(counts: Any, size: int, device: torch.device) -> Iterator[Tensor]:
    """Read the patterns in batches, as 32-bit floats; for a GPU into pinned memory, from which copies to the GPU are fast."""
    for first in range(0, len(counts), size):
        last = min(first + size, len(counts))
        batch = torch.empty((last - first, *counts.shape[1:]), pin_memory=device.type == "cuda")
        batch.numpy()[:] = counts[first:last]
        yield batch


def _looked_at(counts: Any, name: str, most: int) -> tuple[Spacing, tuple[float, float, float]]:
    """Choose one grid on which the network sees all patterns of a file; return the grid, and the oversampling used to choose it.

    On each axis the lowest oversampling of the first patterns is used. It belongs to the largest crystal, which then fits.
    """
    if not len(counts):
        raise DataError(f"{name}: holds no patterns.")
    first = np.asarray(counts[:LOOKED_AT], np.float32)
    valid = np.isfinite(first) & (first >= 0)
    first = np.where(valid, first, 0)
    peak = np.unravel_index(int(first.sum(0).argmax()), first.shape[1:])
    off = [int(p) - n // 2 for p, n in zip(peak, first.shape[1:], strict=True)]
    if max(map(abs, off)) > CENTRED:
        raise DataError(f"{name}: the peak of the first patterns is {off} voxels (z, y, x) off the middle N // 2; centre them.")
    z, y, x = np.min([oversampling(*pair) for pair in zip(first, valid, strict=True)], axis=0).tolist()
    return sampling(first.shape[1:], (z, y, x), most), (z, y, x)


def _fitting(shape: list[int], starts: int, device: torch.device) -> int:
    if device.type != "cuda":
        return ON_CPU
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(ON_GPU, int(0.6 * free) // (BYTES_PER_VOXEL * int(np.prod(shape)) * starts)))
