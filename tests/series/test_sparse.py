"""A series whose first scan has all frames and whose second has every fourth: raw scans on disk, the public loop, one grid."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from braggshot import series
from braggshot.crystals.scan import ScanSettings, gold_at_34idc, simulate_scan
from braggshot.io import results
from braggshot.io.beamlines.aps_34idc import write_scan
from braggshot.physics import metrics
from braggshot.series.registration import Grid, hold_grid
from braggshot.series.table import compare_starts
from braggshot.volumes import Scan

GEOMETRY = replace(gold_at_34idc(48, math.radians(0.009)), direct_beam=(23.5, 23.5))
SETTINGS = {
    "prepare": {"shape": [36, 24, 24], "binning": [1, 1, 1], "self_flat": "off"},
    "phasing": {
        "method": "iterative",
        "starts": 2,
        "partial_coherence": "off",
        "device": "cpu",
        "iterative": {"recipe": "2*(20*HIO+30*RAAR+10*ER)+20*ER"},
    },
    "strain": {"reflection": [1, 1, 1], "lattice": [4.078e-10]},
    "series": {"movie": False, "cold": 2},
}


def raw(folder, phases, first, every):
    drawn = ScanSettings(detector_shape=(48, 48), peak=(24, 24, 24), phase_range=phases, diameter=3e-7, hot=0, dead=0, alien=0)
    scan, _ = simulate_scan(3, GEOMETRY, drawn)
    kept = slice(first, None, every)
    return write_scan(folder, np.asarray(scan.frames)[kept], np.asarray(scan.rocking_angle)[kept], GEOMETRY, 1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sparse")
    paths = [raw(folder / "t0", 1.5, 0, 1), raw(folder / "t1", 2.0, 1, 4)]
    sources = [source for path in paths for source in series.list_sources([path])]
    running = series.run(sources, folder / "out", series.resolve(SETTINGS))
    rows = [next(running).row, next(running).row]
    running.close()  # the page of the series is not needed
    return rows, [results.read(folder / "out" / f"{row['name']}.cxi") for row in rows]


def test_a_scan_of_every_fourth_frame_lies_on_the_grid_of_the_series(finished):
    _, (whole, sparse) = finished
    assert sparse.rho.shape == whole.rho.shape
    assert sparse.basis == pytest.approx(whole.basis, rel=1e-3)
    measured = np.flatnonzero(sparse.volume.valid.any(axis=(1, 2)))
    assert set(np.diff(measured)) == {4}
    assert sparse.method == "from the crystal before"
    assert "mean of" in sparse.choices["start"]


def test_its_crystal_is_that_of_its_counts(finished):
    rows, (whole, sparse) = finished
    between = metrics.align(torch.from_numpy(sparse.rho), torch.from_numpy(whole.rho)).correlation
    assert between > 0.9
    assert rows[1]["strain_std"] > 1.15 * rows[0]["strain_std"]
    assert rows[1]["verdict"] in {"good", "doubtful"}
    assert compare_starts(sparse)["start"] == rows[1]["start"]


def test_only_a_coarser_scan_gets_the_steps_of_the_series():
    step = 1e-4
    grid = Grid((36, 24, 24), (1, 1, 1), None, None, step)
    coarse, fine = (Scan(np.ones((12, 8, 8)), "s", rocking_angle=every * step * np.arange(12)) for every in (4, 1))
    prepare = series.SeriesSettings().prepare
    assert hold_grid(prepare, grid, coarse).step == step
    assert hold_grid(prepare, grid, coarse, None).step is None
    assert hold_grid(prepare, grid, coarse, 6.0).step == step, "an oversampling of 1.5 along the rocking axis"
    assert hold_grid(prepare, grid, coarse, 12.0).step is None, "3 samples the crystal well enough"
    assert hold_grid(prepare, grid, fine).step is None
    assert hold_grid(prepare, replace(grid, step=None), coarse).step is None
    binned = replace(grid, binning=(2, 3, 4))
    held = hold_grid(prepare, binned, coarse)
    assert (held.step, held.binning) == (2 * step, (1, 3, 4))
    assert hold_grid(prepare, replace(grid, binning=(4, 1, 1)), coarse).step is None
