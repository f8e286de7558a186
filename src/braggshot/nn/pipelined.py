"""Predict objects batch by batch: while one batch is computed, the next one is copied to the device and the last one back.

::

    pinned memory of the host  ->  device  ->  network, scale  ->  device  ->  pinned memory of the host
    batch k + 1                                batch k                         batch k - 1

Copying in, computation and copying back run at the same time, each on a CUDA stream of its own. On a CPU they run one after the
other, with the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from braggshot.iterative.spacing import Spacing, resample
from braggshot.nn.network import Measurement, magnitude_of, scale_to
from braggshot.nn.predict import apply_network
from braggshot.nn.resampling import to_original_grid
from braggshot.nn.two_scale import draw_start
from braggshot.physics.fourier import crop

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Stream:
    """Settings with which objects are predicted for patterns of one shape.

    Parameters
    ----------
    network : network, on the device to use
    how : grid to which the patterns are resampled for the network, the same for all patterns
    valid : (z, y, x) mask of the voxels that are good in all patterns, on the device
    starts : number of random starts for each pattern; the object with the lowest chi2 is kept
    seed : seed of the random starts; batch number k uses the seed `seed` + k
    """

    network: nn.Module
    how: Spacing
    valid: Tensor
    starts: int = 1
    seed: int = 0

    def answers(self, batches: Iterable[Tensor]) -> Iterator[Tensors]:
        """Yield, batch by batch, the predicted objects and their chi2 (n,), on the CPU.

        The objects (n, z / 2, y / 2, x / 2) are on the grid of the counts.

        Parameters
        ----------
        batches : counts (n, z, y, x) on the CPU, centred at N // 2 [photons]; counts that are negative or not finite are not
            valid. Only batches in pinned memory are copied while the device computes
        """
        device = self.valid.device
        there = enumerate(upload(batches, device))
        yield from download((self._answer(counts, number) for number, counts in there), device)

    def _answer(self, counts: Tensor, number: int) -> Tensors:
        generator = Generator(counts.device).manual_seed(self.seed + number)
        good = self.valid & (counts >= 0) & torch.isfinite(counts)
        return one_shot(self.network, torch.where(good, counts, 0), good, self.how, generator, self.starts)


@torch.no_grad()
def one_shot(
    network: nn.Module, counts: Tensor, valid: Tensor, how: Spacing, generator: Generator, starts: int = 1
) -> tuple[Tensor, Tensor]:
    """Predict one object for each pattern of a batch: the one of lowest chi2 from `starts` random starts.

    Objects are cropped to the central half of the array.

    Parameters
    ----------
    counts, valid : (n, z, y, x), centred at N // 2

    Returns
    -------
    rho : (n, z / 2, y / 2, x / 2) complex64 on the grid of the counts, scaled to the counts [sqrt(photons)]
    chi2 : (n,) misfit on the grid that the network was shown [1]
    """
    n = len(counts)
    seen = Measurement.of(*resample(counts, valid, how)).repeat(starts)
    boxes, chi2 = apply_network(network, seen, draw_start(network, seen, generator))
    best = chi2.view(n, starts).argmin(1) + starts * torch.arange(n, device=chi2.device)
    objects = to_original_grid(boxes[best], how)
    scale = scale_to(magnitude_of(objects, objects.shape[-3:])[1], Measurement.of(counts, valid))
    return (crop(objects, half_shape(counts.shape[-3:])) * scale).to(torch.complex64), chi2[best]


def half_shape(shape: Sequence[int]) -> list[int]:
    """Return the shape of the central half of an array, which holds any crystal with an oversampling of at least 2."""
    return [(n + 1) // 2 for n in shape]


def upload(batches: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield each batch on the device while the next batch is being copied to it."""
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    here, side = torch.cuda.current_stream(device), _new_stream(device)
    ready: tuple[Tensor, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(side):
            sent = batch.to(device, non_blocking=True), side.record_event()
        if ready is not None:
            yield _wait_for(ready, here)
        ready = sent
    if ready is not None:
        yield _wait_for(ready, here)


def _new_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's annotations lack it


def _wait_for(sent: tuple[Tensor, torch.cuda.Event], here: torch.cuda.Stream) -> Tensor:
    tensor, event = sent
    here.wait_event(event)
    tensor.record_stream(here)  # keeps its memory until this stream is done with it
    return tensor


def download(answers: Iterable[Tensors], device: torch.device) -> Iterator[Tensors]:
    """Yield each batch of results on the CPU, after the computation of the next batch has been started on the device."""
    if device.type != "cuda":
        yield from (tuple(part.cpu() for part in answer) for answer in answers)
        return
    here, side = torch.cuda.current_stream(device), _new_stream(device)
    coming: tuple[Tensors, torch.cuda.Event] | None = None
    for answer in answers:
        side.wait_stream(here)
        with torch.cuda.stream(side):
            sent = tuple(copy_to_host(part, side) for part in answer), side.record_event()
        if coming is not None:
            coming[1].synchronize()
            yield coming[0]
        coming = sent
    if coming is not None:
        coming[1].synchronize()
        yield coming[0]


def copy_to_host(part: Tensor, side: torch.cuda.Stream) -> Tensor:
    """Start to copy a tensor from the device to pinned memory of the host, on the CUDA stream `side`; do not wait for the end."""
    part.record_stream(side)
    return torch.empty_like(part, device="cpu", pin_memory=True).copy_(part, non_blocking=True)
