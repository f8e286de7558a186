"""What a CUDA machine makes of braggshot, beside what the machine can do: one shot, network, engine, training, simulation.

    python gpu.py                                 # 64^3; the table, some minutes
    python gpu.py --batches 64 1024 --seconds 0.1 --tune --compile
    python gpu.py --device cpu --tiny             # every path once, on any machine

The ceilings are measured first: a copy on the device, one from pinned memory, a matrix product in bfloat16.

one shot    what `braggshot stack` does between its files (`braggshot.nn.pipelined`): from counts in pinned memory (32-bit
            floats) to objects on their grid and scale there. The network sees the central 32^3 voxels; other batches travel
            meanwhile
network     alone: patterns of 32^3, on the device already; the share of the product is its own
engine      an iteration of RAAR on the whole grid: both transforms, modulus projection, support; called as it is, and recorded
            as a CUDA graph and replayed. Two transforms along three axes have to read and write a volume six times, `BYTES` per
            voxel, which says how near to the copy it is
training    patterns of 32^3 and their solutions, on the device already, as the shipped network was taught
simulation  crystals drawn, measured and cropped on the device

A cell that fails is a '-', its traceback on stderr. The memory is the most that a row's tensors took at once.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import math
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from braggshot.crystals.sample import CrystalSettings, random_volumes
from braggshot.iterative.algorithms import State, StepConfig, find_step
from braggshot.iterative.projections import Measured, measured
from braggshot.nn import datasets
from braggshot.nn.datasets import Batch
from braggshot.nn.losses import LossConfig
from braggshot.nn.network import Measurement, random_start
from braggshot.nn.pipelined import Stream
from braggshot.nn.predict import input_size
from braggshot.nn.resampling import sampling
from braggshot.nn.training import TrainConfig, train
from braggshot.nn.two_scale import CENTRAL, coarse_network
from braggshot.nn.weights import load_network
from braggshot.physics.fourier import crop, fourier, inverse_fourier

BYTES = 96
OVERSAMPLING = (2.1, 4.0)
COLUMNS = (
    "one shot [volumes/s] | network [patterns of 32^3/s] | share of the product | engine [Gvoxel-iterations/s] | as a graph"
    " | share of the copy | training [patterns of 32^3/s] | simulation [crystals/s] | memory [GB]"
)


def seconds(job: Callable[[], object], device: torch.device, least: float) -> float:
    """Median over five rounds, each of as many calls as take `least` seconds."""
    job()
    finish(device)
    began = time.perf_counter()
    job()
    finish(device)
    calls = max(1, math.ceil(least / max(time.perf_counter() - began, 1e-6)))
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(calls):
            job()
        finish(device)
        rounds.append((time.perf_counter() - began) / calls)
    return median(rounds)


def finish(device: torch.device) -> None:
    """Wait for what was asked of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ceilings(device: torch.device, tiny: bool, least: float) -> tuple[float, float, float]:
    """Bytes read and written by a copy, bytes from pinned memory, and operations of a matrix product in bfloat16 [1/s]."""
    n = 1 << (16 if tiny else 28)
    source, target = torch.ones(n, device=device), torch.empty(n, device=device)
    copy = 8 * n / seconds(lambda: target.copy_(source), device, least)
    pinned = pin(torch.ones(n), device)
    upload = 4 * n / seconds(lambda: target.copy_(pinned, non_blocking=True), device, least)
    side = 128 if tiny else 8192
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return copy, upload, 2 * side**3 / seconds(lambda: a @ b, device, least)


def pin(tensor: Tensor, device: torch.device) -> Tensor:
    """In memory that the device can read by itself."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


@lru_cache
def crystals(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Objects, counts and trust of four."""
    return random_volumes(torch.Generator().manual_seed(0), 4, CrystalSettings(shape=(size,) * 3, oversampling=OVERSAMPLING))


def lessons(size: int, batch: int, device: torch.device) -> Batch:
    """Patterns as the network is shown them; for the clock the truth is as good a solution as what a teacher finds."""
    truth, counts, valid = crystals(size)
    shape = sampling(counts.shape[1:], None).shape
    solution = crop(inverse_fourier(crop(fourier(truth), shape)), [n // 2 for n in shape])
    counts, valid, solution = (repeated(t, batch).to(device) for t in (crop(counts, shape), crop(valid, shape), solution))
    return Batch(counts, valid, solution=solution)


def repeated(tensor: Tensor, batch: int) -> Tensor:
    """The first entries again and again until there are `batch` of them."""
    return tensor.repeat(math.ceil(batch / len(tensor)), 1, 1, 1)[:batch].contiguous()


def one_shot(size: int, batch: int, device: torch.device, least: float) -> float:
    """Volumes per second, from counts in pinned memory to objects there, one start each; one mask for all."""
    _, counts, valid = crystals(size)
    network = load_network()[0].to(device)
    stream = Stream(network, sampling(counts.shape[1:], None, input_size(network)), valid[0].to(device))
    coming = stream.answers(itertools.repeat(pin(repeated(counts, batch), device)))
    return batch / seconds(lambda: next(coming), device, least)


def network_alone(size: int, batch: int, device: torch.device, least: float, compiled: bool) -> tuple[float, float]:
    """Patterns and operations per second of the learned steps at the low resolution, everything on the device."""
    network = coarse_network(load_network()[0]).to(device)
    shown = lessons(size, batch, device)
    seen = Measurement.of(shown.counts, shown.valid)
    start = random_start(seen, torch.Generator(device).manual_seed(0))

    @torch.no_grad()
    def job() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            network(seen.magnitude, seen.valid, start)

    with FlopCounterMode(display=False) as counter:
        job()
    if compiled:
        compile_body(network)
    took = seconds(job, device, least)
    return batch / took, counter.get_total_flops() / took


def compile_body(network: nn.Module) -> None:
    """The U-Net, in place; all else is complex, or short."""
    torch.compiler.reset()  # each row has a shape of its own, and only so many are kept
    network.get_submodule("body").compile(dynamic=False)


def state_of(size: int, batch: int, device: torch.device) -> tuple[State, Measured]:
    """Starts of one pattern in the middle of their recipe."""
    generator = torch.Generator().manual_seed(0)
    truth, counts, valid = crystals(size)
    found = measured(counts[0], valid[0], torch.rand(counts[0].shape, generator=generator) < 0.05)
    data = Measured(*(getattr(found, name).to(device) for name in Measured.__dataclass_fields__))
    support = torch.fft.ifftshift(truth[0].abs() > 0).to(device).expand(batch, -1, -1, -1).contiguous()
    phases = 6 * torch.rand(batch, size, size, size, generator=torch.Generator(device).manual_seed(0), device=device)
    return State(torch.polar(torch.ones_like(phases), phases), support, torch.full((batch,), 0.3), [generator] * batch), data


def engine(size: int, batch: int, device: torch.device, least: float, recorded: bool) -> float:
    """Voxel-iterations per second of RAAR, called as it is or replayed as a CUDA graph."""
    (state, data), (step, _), settings = state_of(size, batch, device), find_step("RAAR"), StepConfig()
    job = partial(step, state, data, settings)
    return batch * size**3 / seconds(graph_of(job, device) if recorded else job, device, least)


def graph_of(job: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """Replays a job that was recorded once."""
    side, graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):  # plans of the transforms are made before the recording
            job()
        with torch.cuda.graph(graph, stream=side):
            job()
    torch.cuda.current_stream(device).wait_stream(side)
    return graph.replay


def training(size: int, batch: int, device: torch.device, steps: int, compiled: bool) -> float:
    """Crystals per second of training from the shipped network, by the median step; two more come first and are not counted."""
    from lightning_fabric import Fabric  # without it the other columns can still be had

    config = TrainConfig(steps=steps + 3, batch=batch, chunk=batch, precision="bf16-mixed", loss=LossConfig(expert=4.0))
    fabric = Fabric(accelerator="gpu" if device.type == "cuda" else "cpu", devices=1)
    fabric.launch()
    lesson, network = lessons(size, batch, device), coarse_network(load_network()[0]).to(device)
    if compiled:
        compile_body(network)

    marks = []
    with tempfile.TemporaryDirectory() as folder:
        for report in train(config, lambda *_: lesson, Path(folder), fabric, network):
            finish(device)
            marks.append(time.perf_counter())
            if report.step == steps + 2:  # the last step validates
                break
    return batch / median(after - before for before, after in itertools.pairwise(marks[1:]))


def simulation(size: int, batch: int, device: torch.device, least: float) -> float:
    """Crystals per second, drawn and measured on the device and cropped to what the network is shown."""
    settings, number = CrystalSettings(shape=(size,) * 3, oversampling=OVERSAMPLING), itertools.count()
    source = datasets.simulated_source([settings], 0, device, largest=CENTRAL)
    return batch / seconds(lambda: source(next(number), 0, batch), device, least)


def attempt(job: Callable[..., Any], *arguments: object) -> Any:
    """The value of a job, or None and its traceback; either way its memory is free for the next one."""
    try:
        return job(*arguments)
    except Exception:
        traceback.print_exc()
        return None
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def row(size: int, batch: int, device: torch.device, asked: argparse.Namespace, copy: float, product: float) -> Iterator[str]:
    """Cells of one batch size, in the order of `COLUMNS`."""
    cuda, least = device.type == "cuda", asked.seconds
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    shot = attempt(one_shot, size, batch, device, least)
    alone, operations = attempt(network_alone, size, batch, device, least, asked.compile) or (None, None)
    eager = attempt(engine, size, batch, device, least, False)
    graph = attempt(engine, size, batch, device, least, True) if cuda else None
    learned = attempt(training, size, batch, device, 2 if asked.tiny else 10, asked.compile)
    drawn = attempt(simulation, size, batch, device, least)
    fastest = graph or eager
    yield from (cell(shot), cell(alone), cell(operations, product))
    yield from (cell(eager, 1e9), cell(graph, 1e9), cell(fastest and fastest * BYTES, copy))
    yield from (cell(learned), cell(drawn), cell(torch.cuda.max_memory_allocated(device) if cuda else None, 1e9))


def cell(value: float | None, unit: float = 1.0) -> str:
    """A number in units, of three digits at least, or '-'."""
    if value is None:
        return "-"
    return f"{value / unit:.0f}" if abs(value / unit) >= 100 else f"{value / unit:.3g}"


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--size", type=int, default=64, help="a multiple of 16")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64, 256, 1024])
    parser.add_argument("--seconds", type=float, default=0.5, help="that each of five rounds takes at least")
    parser.add_argument("--tune", action="store_true", help="cuDNN tries its algorithms and takes the fastest")
    parser.add_argument("--compile", action="store_true", help="the U-Net by torch.compile, for the network alone and training")
    parser.add_argument("--tiny", action="store_true", help="48^3, batches of 1 and 2: whether it runs, not how fast")
    asked = parser.parse_args(arguments)
    if asked.tiny:
        asked.size, asked.batches, asked.seconds = 48, [1, 2], 0.0
    device = torch.device("cuda", torch.cuda.current_device()) if asked.device == "cuda" else torch.device("cpu")
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = asked.tune
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    copy, upload, product = ceilings(device, asked.tiny, asked.seconds)
    print(f"{name}, torch {torch.__version__}; copy {copy / 1e9:.0f} GB/s, from pinned memory {upload / 1e9:.1f} GB/s, ", end="")
    print(f"which are {upload / (4 * asked.size**3):.0f} volumes/s, bfloat16 product {product / 1e12:.1f} Tflop/s\n")
    print(f"| batch of {asked.size}^3 | {COLUMNS} |\n{'|---' * (COLUMNS.count('|') + 2)}|", flush=True)
    for batch in asked.batches:
        print(f"| {batch} | {' | '.join(row(asked.size, batch, device, asked, copy, product))} |", flush=True)


if __name__ == "__main__":
    main()
