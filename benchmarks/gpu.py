"""What a CUDA machine makes of braggshot, beside what the machine can do: one shot, engine, training.

    python gpu.py                                 # 64^3; the table, about five minutes
    python gpu.py --batches 64 256 --size 128
    python gpu.py --device cpu --tiny             # every path once, on any machine

The ceilings are measured first: a copy on the device, one from pinned memory, a matrix product in bfloat16. One shot is from
counts in pinned memory to objects of the network, convolutions in bfloat16; while one batch is computed the next one is on its
way. An iteration of the engine is RAAR: both transforms, modulus projection, support; called as it is, and recorded as a CUDA
graph and replayed. Two transforms along three axes have to read and write a volume six times, `BYTES` per voxel, which says how
near to the copy it is. A training crystal is simulated, refined by the teacher and learned from.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from braggshot.crystals.sample import CrystalSettings, random_volumes
from braggshot.nn import datasets
from braggshot.nn.expert import ExpertConfig
from braggshot.nn.network import Measurement, random_start
from braggshot.nn.training import TrainConfig, train
from braggshot.nn.weights import load_network
from braggshot.refine.algorithms import State, StepSettings, find_step
from braggshot.refine.iterate import RefineConfig
from braggshot.refine.projections import Measured, measured

BYTES = 96


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
    return sorted(rounds)[2]


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


def uploaded(batches: list[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Each batch on the device; the next one travels on a stream of its own meanwhile."""
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    side = torch.cuda.Stream(device)

    def sent(batch: Tensor) -> Tensor:
        with torch.cuda.stream(side):
            return batch.to(device, non_blocking=True)

    coming = sent(batches[0])
    for number in range(len(batches)):
        torch.cuda.current_stream(device).wait_stream(side)
        here = coming
        here.record_stream(torch.cuda.current_stream(device))
        if number + 1 < len(batches):
            coming = sent(batches[number + 1])
        yield here


def crystals(size: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Objects, counts and trust."""
    return random_volumes(torch.Generator().manual_seed(0), n, CrystalSettings(shape=(size,) * 3, oversampling=(2.1, 4.0)))


def one_shot(size: int, batch: int, device: torch.device, least: float) -> tuple[float, float]:
    """Volumes and operations per second, from counts in pinned memory to objects on the device, one start each."""
    network = load_network()[0].to(device)
    _, counts, valid = crystals(size, min(batch, 4))
    batches = [pin(counts.repeat(math.ceil(batch / len(counts)), 1, 1, 1)[:batch].contiguous(), device) for _ in range(4)]
    trust, generator = valid[:1].to(device), torch.Generator(device).manual_seed(0)

    @torch.no_grad()
    def job() -> None:
        for seen in uploaded(batches, device):
            data = Measurement.of(seen, trust.expand(seen.shape))
            start = random_start(data, generator)
            with torch.autocast(device.type, torch.bfloat16):
                network(data.magnitude, data.valid, start)

    with FlopCounterMode(display=False) as counter:
        job()
    took = seconds(job, device, least)
    return batch * len(batches) / took, counter.get_total_flops() / took


def state_of(size: int, batch: int, device: torch.device) -> tuple[State, Measured]:
    """Starts of one pattern in the middle of their recipe."""
    generator = torch.Generator().manual_seed(0)
    truth, counts, valid = crystals(size, 1)
    found = measured(counts[0], valid[0], torch.rand(counts[0].shape, generator=generator) < 0.05)
    data = Measured(*(getattr(found, name).to(device) for name in Measured.__dataclass_fields__))
    support = torch.fft.ifftshift(truth[0].abs() > 0).to(device).expand(batch, -1, -1, -1).contiguous()
    phases = torch.rand(batch, size, size, size, generator=generator)
    rho = torch.polar(torch.ones_like(phases), 6 * phases).to(device)
    return State(rho, support, torch.full((batch,), 0.3), [generator] * batch), data


def engine(size: int, batch: int, device: torch.device, least: float) -> tuple[float, float | None]:
    """Voxel-iterations per second of RAAR, called as it is and replayed as a CUDA graph."""
    (state, data), (step, _), settings = state_of(size, batch, device), find_step("RAAR"), StepSettings()
    voxels = batch * size**3
    eager = voxels / seconds(lambda: step(state, data, settings), device, least)
    if device.type != "cuda":
        return eager, None
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):  # plans of the transforms are made before the recording
        for _ in range(3):
            step(state, data, settings)
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(state, data, settings)
    return eager, voxels / seconds(graph.replay, device, least)


def training(size: int, batch: int, device: torch.device, steps: int) -> float:
    """Crystals per second of training from the shipped network, validation left out; the first step is not counted."""
    expert = ExpertConfig() if size >= 32 else ExpertConfig(refine=RefineConfig("4*RAAR+2*ER"))
    config = TrainConfig(steps=steps + 1, batch=batch, chunk=batch, validation=1, validation_chunk=1, expert=expert)
    source = datasets.simulated([CrystalSettings(shape=(size,) * 3, oversampling=(2.1, 4.0))], 0, device)
    fabric = Fabric(accelerator="gpu" if device.type == "cuda" else "cpu", devices=1, precision=config.precision)
    marks = []
    with tempfile.TemporaryDirectory() as folder:
        for report in train(config, source, Path(folder), fabric, load_network()[0]):
            finish(device)
            marks.append(time.perf_counter())
            if report.step == steps:  # the last step validates
                break
    return batch * (steps - 1) / (marks[-1] - marks[0])


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--tiny", action="store_true", help="16^3, batches of 1 and 2: whether it runs, not how fast")
    asked = parser.parse_args(arguments)
    device = torch.device(asked.device)
    size, batches, least = (16, [1, 2], 0.0) if asked.tiny else (asked.size, asked.batches, 0.5)
    torch.set_flush_denormal(True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    copy, upload, product = ceilings(device, asked.tiny, least)
    print(f"{name}, torch {torch.__version__}; copy {copy / 1e9:.0f} GB/s, from pinned memory {upload / 1e9:.1f} GB/s, ", end="")
    print(f"bfloat16 product {product / 1e12:.1f} Tflop/s\n")
    print(f"| batch of {size}^3 | one shot [volumes/s] | share of the product | engine [Gvoxel-iterations/s] | ", end="")
    print("as a graph | share of the copy | training [crystals/s] |\n|---|---|---|---|---|---|---|")
    for batch in batches:
        shot, operations = one_shot(size, batch, device, least)
        eager, graph = engine(size, batch, device, least)
        learned = training(size, batch, device, 2 if asked.tiny else 6)
        share = (graph or eager) * BYTES / copy
        replayed = "-" if graph is None else f"{graph / 1e9:.2f}"
        print(
            f"| {batch} | {shot:.1f} | {operations / product:.2f} | {eager / 1e9:.3f} | {replayed} | {share:.2f} | {learned:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
