"""The shipped network behind one `predict`, its convolutions in different engines: speed, accuracy, start-up, size on disk.

    python engines.py                            # what is installed; what is missing is said
    python engines.py --batches 5 --only "eager, bfloat16" "openvino, bfloat16"

The U-Net of the steps and the context, nearly all of the multiplications, move to the engine; the transforms stay in torch, so
`predict` is the same code for all. Engines take turns in one process, on one thread, by the processor's time (with that of
compilers that they start), so that ratios hold where the machine's speed does not. Compiled code goes to a folder that is empty
before.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.nn import predict as prediction
from braggshot.nn.network import Measurement, random_start
from braggshot.nn.two_scale import coarse_network
from braggshot.nn.weights import load_network

ROUNDS = 7
Examples = tuple[torch.Tensor, ...]


def spent() -> float:
    """Processor time of this process and of those that it started and waited for [s]."""
    return sum(os.times()[:4])


def inductor(module: nn.Module, examples: Examples, folder: Path, half: bool) -> Callable[..., torch.Tensor]:
    """Compiled at the first call."""
    import torch._inductor.config as settings

    settings.compile_threads, settings.freezing = 1, True
    torch._dynamo.reset()
    compiled = torch.compile(module, dynamic=False)
    compiled(*examples)
    return compiled


def ahead_of_time(module: nn.Module, examples: Examples, folder: Path, half: bool) -> Callable[..., torch.Tensor]:
    """Compiled into a file, which is loaded without a compiler."""
    import torch._inductor.config as settings

    settings.compile_threads, settings.freezing = 1, True
    path = folder / f"{id(module)}.pt2"
    torch._inductor.aoti_compile_and_package(torch.export.export(module, examples), package_path=str(path))
    return torch._inductor.aoti_load_package(str(path))


def onnx_file(module: nn.Module, examples: Examples, folder: Path) -> str:
    """The module on these shapes as an ONNX file."""
    path = str(folder / f"{id(module)}.onnx")
    with torch.autocast("cpu", enabled=False):
        torch.onnx.export(module, tuple(e.float() for e in examples), path, dynamo=True, verbose=False, external_data=False)
    return path


def onnxruntime(module: nn.Module, examples: Examples, folder: Path, half: bool) -> Callable[..., torch.Tensor]:
    """A session on one thread; its convolutions know 32 bits only."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx_file(module, examples, folder), options, providers=["CPUExecutionProvider"])
    names = [put.name for put in session.get_inputs()]

    def call(*inputs: torch.Tensor) -> torch.Tensor:
        feed = {name: tensor.float().contiguous().numpy() for name, tensor in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return call


def openvino(module: nn.Module, examples: Examples, folder: Path, half: bool) -> Callable[..., torch.Tensor]:
    """A compiled model on one thread, in bfloat16 where `half`."""
    import openvino

    hints = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "bf16" if half else "f32"}
    compiled = openvino.compile_model(onnx_file(module, examples, folder), "CPU", hints)
    request = compiled.create_infer_request()

    def call(*inputs: torch.Tensor) -> torch.Tensor:
        found = request.infer([tensor.float().contiguous().numpy() for tensor in inputs], share_inputs=True)
        return torch.from_numpy(found[0].copy())

    return call


# name: how it is built (None is the network as it is), whether in bfloat16, packages that it needs
ENGINES = {
    "eager, 32 bits": (None, False, ()),
    "eager, bfloat16": (None, True, ()),
    "torch.compile, 32 bits": (inductor, False, ()),
    "torch.compile, bfloat16": (inductor, True, ()),
    "AOT-Inductor, bfloat16": (ahead_of_time, True, ()),
    "onnxruntime, 32 bits": (onnxruntime, False, ("onnx", "onnxscript", "onnxruntime")),
    "openvino, 32 bits": (openvino, False, ("onnx", "onnxscript", "openvino")),
    "openvino, bfloat16": (openvino, True, ("onnx", "onnxscript", "openvino")),
}
RUNTIME = {"onnxruntime": ("onnxruntime",), "openvino": ("openvino",)}  # what a user would have to install


class Engine(nn.Module):
    """Something that is called like a part of the network."""

    def __init__(self, call: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """As the part that it stands for."""
        return self.call(*inputs)


@contextmanager
def precision(half: bool) -> Iterator[None]:
    """Inside, convolutions and `predict` are in bfloat16 or in 32 bits; no gradients."""
    fast = mock.patch.object(prediction, "fast_bfloat16", return_value=half)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half), fast:
        yield


def parts(network: nn.Module, batch: int, half: bool) -> dict[str, Examples]:
    """What `context` and `body` are called with."""
    seen: dict[str, Examples] = {}
    hooks = [
        getattr(network, name).register_forward_pre_hook(
            lambda _, inputs, name=name: seen.setdefault(name, tuple(i.clone() for i in inputs)) and None
        )
        for name in ("context", "body")
    ]
    data = pattern(batch)
    network(data.magnitude, data.valid, random_start(data, torch.Generator().manual_seed(0)))
    for hook in hooks:
        hook.remove()
    return seen


def volume() -> tuple[torch.Tensor, torch.Tensor]:
    """Counts and trust of a simulated crystal, 64^3."""
    _, found = simulate_volume(1, CrystalSettings(shape=(64, 64, 64), oversampling=(2.2, 4), counts=(1e5, 1e5)))
    return torch.from_numpy(found.intensity), torch.from_numpy(found.valid)


def pattern(batch: int) -> Measurement:
    """The same as the network sees it."""
    return prediction.network_input(*volume(), None, torch.device("cpu")).repeat(batch)


class Prepared:
    """A network with its convolutions in one engine, for one size of batch."""

    def __init__(self, name: str, batch: int, folder: Path) -> None:
        build, self.half, packages = ENGINES[name]
        began = spent()
        for package in packages[-1:]:
            importlib.import_module(package)
        self.imported, self.batch = spent() - began, batch
        self.network = coarse_network(load_network()[0])  # the learned steps at the low resolution, which are most of the weights
        self.data, self.counts = pattern(batch), volume()
        self.start = random_start(self.data, torch.Generator().manual_seed(0))
        with precision(self.half):
            self.examples = parts(self.network, batch, self.half)
            began = spent()
            if build is not None:
                for part, examples in self.examples.items():
                    setattr(self.network, part, Engine(build(getattr(self.network, part), examples, folder, self.half)))
            self.built = spent() - began
            self.convolve()

    def convolve(self) -> None:
        """The convolutional part of one forward pass: context once, the U-Net every step."""
        self.network.context(*self.examples["context"])
        for _ in range(self.network.config.steps):
            self.network.body(*self.examples["body"])

    def answer(self) -> torch.Tensor:
        """The last object (n, 16, 16, 16)."""
        with precision(self.half):
            return self.network(self.data.magnitude, self.data.valid, self.start)[-1][0]

    def timed(self) -> tuple[float, float]:
        """Convolutional part, and `predict` [ms]."""
        with precision(self.half):
            began = time.process_time()
            self.convolve()
            between = time.process_time()
        with precision(self.half):
            torch.set_autocast_enabled("cpu", False)  # `predict` sees to it itself
            prediction.predict(self.network, *self.counts, None, self.batch)
        return 1e3 * (between - began), 1e3 * (time.process_time() - between)


def size_of(packages: tuple[str, ...]) -> float:
    """Of installed packages on disk [MB]."""
    total = 0
    for package in packages:
        folder = Path(importlib.import_module(package).__file__).parent
        total += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return total / 1e6


def missing(name: str) -> list[str]:
    """Packages that an engine needs and this Python lacks."""
    return [package for package in ENGINES[name][2] if importlib.util.find_spec(package) is None]


def table(batch: int, names: list[str], folder: Path) -> None:
    """Print a row per engine."""
    ready = {name: Prepared(name, batch, folder) for name in names}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name, rows in seconds.items():
            rows.append(ready[name].timed())
    reference = ready[names[0]].answer()
    for name, rows in seconds.items():
        convolutions, whole = (statistics.median(column) for column in zip(*rows, strict=True))
        ratio = statistics.median(eager[1] / row[1] for eager, row in zip(seconds["eager, bfloat16"], rows, strict=True))
        off = ready[name].answer() - reference
        relative, most = off.norm() / reference.norm(), off.abs().max() / reference.abs().max()
        print(
            f"| {batch} | {name} | {convolutions:.1f} | {whole:.1f} | {ratio:.2f} | {relative:.1e} | {most:.1e} | "
            f"{ready[name].imported:.2f} | {ready[name].built:.1f} | {size_of(RUNTIME.get(name.split(',')[0], ())):.0f} |",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 5, 20])
    parser.add_argument("--only", nargs="+", default=list(ENGINES))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    names = []
    for name in dict.fromkeys(["eager, 32 bits", "eager, bfloat16", *asked.only]):
        if lacking := missing(name):
            print(f"{name}: {', '.join(lacking)} missing, left out")
        else:
            names.append(name)
    print(
        "| batch | engine | convolutions [ms] | predict [ms] | eager bfloat16 / this | relative difference | largest | "
        "import [s] | build [s] | installed [MB] |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for batch in asked.batches:
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder):
            table(batch, names, Path(folder))


if __name__ == "__main__":
    main()
