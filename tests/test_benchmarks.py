"""Benchmarks for machines that are not at hand run here too, as small as can be: not how fast, but whether."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def benchmark(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look for their module there
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # of the libraries that training uses
def test_every_path_of_the_gpu_benchmark_runs_without_one(capsys):
    pytest.importorskip("lightning_fabric")
    benchmark("gpu").main(["--device", "cpu", "--tiny"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    for row in rows[2:]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        batch, volumes, patterns, share, eager, graph, copy, learned, simulated, memory = cells
        assert graph == memory == "-", "graphs and their memory need a GPU"
        assert all(float(cell) > 0 for cell in (batch, volumes, patterns, eager, learned, simulated))
        assert float(share) >= 0 <= float(copy)


def test_a_cell_that_fails_is_empty_and_says_why(capsys):
    gpu = benchmark("gpu")

    def fail(batch):
        raise RuntimeError(f"no memory for {batch}")

    assert gpu.cell(gpu.attempt(fail, 3)) == "-"
    assert "no memory for 3" in capsys.readouterr().err


def test_the_benchmark_of_the_size_of_crystals_prints_its_table(capsys):
    """Ten crystals of all strains: most sizes are right, and none is much too small."""
    benchmark("crystal_size").main(["--n", "8", "--fine", "2", "--first-seed", "7000001"])
    rows = {cells[0]: cells for cells in (row.strip("| ").split(" | ") for row in capsys.readouterr().out.splitlines())}
    assert float(rows["braggshot"][2].rstrip("%")) >= 85
    assert rows["braggshot"][3] == "0.0%"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("[!_]*.py")))
def test_every_benchmark_finds_what_it_imports(name):
    try:
        benchmark(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "braggshot":
            raise
        pytest.skip(f"needs {error.name}")


@pytest.mark.parametrize("name", ["zmq", "zmq 2", "stins", "bluesky", "tiled", "blissdata", "pva", "folder"])
def test_damaged_messages_of_each_stream_are_met(name, capsys):
    pytest.importorskip("p4p" if name == "pva" else "zmq")
    assert benchmark("attack_messages").attack_messages(3, 150, [name]) == 0
    assert f"{name}: 1" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["stins", "folder"])
def test_no_frame_is_lost_or_misplaced_while_connections_break(name, capsys):
    pytest.importorskip("zmq")
    few = ["--frames", "300", "--per-scan", "100", "--cut-every", "1", "--restart-every", "2"]
    assert benchmark("live_faults").main(["--only", name, *few]) == 0, capsys.readouterr().out


def test_every_stage_that_is_timed_is_there():
    for names in benchmark("stages").STAGES.values():
        for name in names:
            module, _, attribute = name.rpartition(".")
            assert callable(getattr(importlib.import_module(f"braggshot.{module}"), attribute)), name


def test_the_law_of_the_strain_is_found_again_from_rows_that_follow_it():
    plan = benchmark("plan")
    law = plan.exposure.LAW
    rows = [
        {"photons": 100 * n, "voxels": 100, "error": 1.3 * plan.exposure.gradient_error(n), "correlation": 1.0, "peak": 1e4}
        for n in np.geomspace(min(law), max(law), 40)
    ]
    rows[7]["error"] *= 10  # an outlier does not pull
    assert plan.fit(rows) == pytest.approx({n: 1.3 * error for n, error in law.items()}, rel=0.05)
    assert "| 39 |" in plan.table("fitted", [row | {"error": row["error"] / 1.3} for row in rows])


def test_the_line_of_an_atomistic_crystal_is_found_within_a_voxel():
    lines = benchmark("dislocations")
    facts, points, field, volume = lines.measure(1)
    row = lines.compare(lines.true_object(field, volume), points, facts)
    assert (facts["kind"], row["turns"]) == ("edge", [facts["g_b"]])
    assert row["away_voxels"][0] < 0.5
    assert row["seen_share"] > 0.9


def test_a_loop_displaces_atoms_in_equilibrium_and_by_b_across_its_plane():
    r"""(1 - 2 nu) laplace(u) + grad div(u) = 0 away from the line; u jumps by b."""
    lines = benchmark("dislocations")
    b, normal = np.array([0.5, 0.5, 0.0]), np.array([1.0, -1.0, 1.0]) / np.sqrt(3)
    along = b / np.linalg.norm(b)
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)[:, None]
    corners = 4 * (np.cos(turn) * along + np.sin(turn) * np.cross(normal, along))
    steps = 0.05 * np.eye(3)

    def u(place):
        return lines.loop(np.atleast_2d(place), b, corners)[0]

    def divergence(place):
        return sum((u(place + step)[axis] - u(place - step)[axis]) / 0.1 for axis, step in enumerate(steps))

    place = np.array([1.0, 2.0, 3.0])
    laplacian = sum(u(place + step) + u(place - step) - 2 * u(place) for step in steps) / 0.05**2
    gradient = np.array([(divergence(place + step) - divergence(place - step)) / 0.1 for step in steps])
    force = (1 - 2 * lines.POISSON) * laplacian + gradient
    assert np.abs(force).max() < 0.02 * np.abs(gradient).max()
    jump = u(1e-6 * normal) - u(-1e-6 * normal)
    assert np.allclose(jump, b, atol=1e-5)
