"""One shot for pattern after pattern: while a batch is computed, the next one travels to the device and the last one back.

::

    memory that the device reads by itself  ->  device  ->  network, scale  ->  device  ->  such memory again
    batch k + 1                                             batch k                         batch k - 1

The three run beside each other on streams of their own; on a CPU they are one after the other, with the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from braggshot.nn.network import Measurement, magnitude_of, scale_to
from braggshot.nn.predict import answered
from braggshot.nn.resampling import Sampling, to_network_grid, to_original_grid
from braggshot.nn.two_scale import start
from braggshot.physics.fourier import crop

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Stream:
    """How patterns of one shape are answered.

    Parameters
    ----------
    network : on the device to use
    how : the change of grid, which all of them share
    valid : (z, y, x) pixels that are good in all patterns, on the device
    starts : of each pattern, of which the best by chi2 is kept
    seed : of the starts; batch k draws from seed + k
    """

    network: nn.Module
    how: Sampling
    valid: Tensor
    starts: int = 1
    seed: int = 0

    def answers(self, batches: Iterable[Tensor]) -> Iterator[Tensors]:
        """Objects (n, z / 2, y / 2, x / 2) on the grid of the counts and their chi2 (n,), on the CPU, batch after batch.

        Parameters
        ----------
        batches : counts (n, z, y, x) on the CPU, in pinned memory where they shall travel by themselves, centred at N // 2; a
            count that is negative or no number is not valid [photons]
        """
        device = self.valid.device
        there = enumerate(uploaded(batches, device))
        yield from downloaded((self._answer(counts, number) for number, counts in there), device)

    def _answer(self, counts: Tensor, number: int) -> Tensors:
        generator = Generator(counts.device).manual_seed(self.seed + number)
        good = self.valid & (counts >= 0) & torch.isfinite(counts)
        return one_shot(self.network, torch.where(good, counts, 0), good, self.how, generator, self.starts)


@torch.no_grad()
def one_shot(
    network: nn.Module, counts: Tensor, valid: Tensor, how: Sampling, generator: Generator, starts: int = 1
) -> tuple[Tensor, Tensor]:
    """What `predict` answers, for a batch of patterns: the best of `starts` by chi2, cropped to where a crystal can be.

    Parameters
    ----------
    counts, valid : (n, z, y, x), centred at N // 2

    Returns
    -------
    rho : (n, z / 2, y / 2, x / 2) complex64 on the grid of the counts, scaled to them [sqrt(photons)]
    chi2 : (n,) of what the network was shown [1]
    """
    n = len(counts)
    seen = Measurement.of(*to_network_grid(counts, valid, how)).repeated(starts)
    boxes, chi2 = answered(network, seen, start(network, seen, generator))
    best = chi2.view(n, starts).argmin(1) + starts * torch.arange(n, device=chi2.device)
    found = to_original_grid(boxes[best], how)
    scale = scale_to(magnitude_of(found, found.shape[-3:])[1], Measurement.of(counts, valid))
    return (crop(found, half(counts.shape[-3:])) * scale).to(torch.complex64), chi2[best]


def half(shape: Sequence[int]) -> list[int]:
    """The middle of an array, which holds any crystal that is sampled finely enough."""
    return [(n + 1) // 2 for n in shape]


def uploaded(batches: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Each batch on the device, the next one on its way while it is worked on."""
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    here, side = torch.cuda.current_stream(device), _another(device)
    ready: tuple[Tensor, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(side):
            sent = batch.to(device, non_blocking=True), side.record_event()
        if ready is not None:
            yield _arrived(ready, here)
        ready = sent
    if ready is not None:
        yield _arrived(ready, here)


def _another(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's annotations lack it


def _arrived(sent: tuple[Tensor, torch.cuda.Event], here: torch.cuda.Stream) -> Tensor:
    tensor, event = sent
    here.wait_event(event)
    tensor.record_stream(here)  # its memory is not given away before this stream is done with it
    return tensor


def downloaded(answers: Iterable[Tensors], device: torch.device) -> Iterator[Tensors]:
    """Each answer on the CPU, given once the next one has been asked of the device."""
    if device.type != "cuda":
        yield from (tuple(part.cpu() for part in answer) for answer in answers)
        return
    here, side = torch.cuda.current_stream(device), _another(device)
    coming: tuple[Tensors, torch.cuda.Event] | None = None
    for answer in answers:
        side.wait_stream(here)
        with torch.cuda.stream(side):
            sent = tuple(_copied(part, side) for part in answer), side.record_event()
        if coming is not None:
            coming[1].synchronize()
            yield coming[0]
        coming = sent
    if coming is not None:
        coming[1].synchronize()
        yield coming[0]


def _copied(part: Tensor, side: torch.cuda.Stream) -> Tensor:
    part.record_stream(side)
    return torch.empty_like(part, device="cpu", pin_memory=True).copy_(part, non_blocking=True)
