"""Benchmarks for machines that are not at hand run here too, as small as can be: not how fast, but whether."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


def benchmark(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the libraries that training uses
def test_every_path_of_the_gpu_benchmark_runs_without_one(capsys):
    pytest.importorskip("lightning_fabric")
    benchmark("gpu").main(["--device", "cpu", "--tiny"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    for row in rows[2:]:
        _, batch, volumes, share, eager, graph, copy, crystals, _ = (cell.strip() for cell in row.split("|"))
        assert graph == "-", "graphs need a GPU"
        assert all(float(cell) > 0 for cell in (batch, volumes, eager, crystals))
        assert float(share) >= 0 <= float(copy)
