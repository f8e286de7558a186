"""Raw scans of a lattice sum that knows nothing of braggshot, phased and held against the true crystal.

The scans stand in ``shared/cases/geometry`` as three beamlines and a diffractometer of free circles write them. They check at once
what no single part can: readers, circles and signs, voxels and frames, strain, volumes, and the handedness of facets' names.
"""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import braggshot
from braggshot import config

CASES = Path(__file__).parents[2] / "shared" / "cases" / "geometry"
GOLD = {"frame": "lab", "reflection": [1, 1, 1], "lattice": [4.0782e-10]}
NAMES = ("aps_th_up", "aps_phi_up", "aps_seam", "id01_eta_up", "p10_om_up", "generic_far", "facets_plain")
SCREW = "p10_om_up"  # its strain is infinite at the line of the dislocation

pytestmark = [pytest.mark.data, pytest.mark.long, pytest.mark.skipif(not CASES.exists(), reason=f"{CASES} is not there")]


@pytest.fixture(scope="module")
def cases():
    """The module that made the scans; it imports its neighbour by name."""
    sys.path.insert(0, str(CASES))
    try:
        yield importlib.import_module("cases")
    finally:
        sys.path.remove(str(CASES))


def judge(result, case):
    """Lay the found crystal, or its twin, onto the true one: overlap of the bodies, rms error of the strain, share within sigma."""
    found, judged = result.strain, []
    indices = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in found.support.shape), indexing="ij"), -1)
    places = (indices @ found.basis.T)[..., ::-1]  # as the true crystal is stated: x, y, z
    for sign in (1, -1):
        at = sign * places
        at = at + case.crystal.points().mean(0) - at[found.support].mean(0)
        body = case.crystal.inside(at.reshape(-1, 3)).reshape(found.support.shape)
        overlap = 2 * (body & found.support).sum() / (body.sum() + found.support.sum())
        error = found.strain[found.bulk] - case.strain(at[found.bulk])
        error -= np.median(error)  # the strain is relative to the mean lattice
        covered = float(np.mean(np.abs(error) <= found.strain_sigma[found.bulk]))
        judged.append(SimpleNamespace(overlap=float(overlap), error=float(np.sqrt(np.mean(error**2))), covered=covered))
    return max(judged, key=lambda one: one.overlap)


def name_handedness(facets):
    """Count triples of named facets whose names are as right- or left-handed as their normals, and those that are not."""
    named = [(np.array(facet.hkl, float), np.array(facet.normal)[::-1]) for facet in facets if facet.hkl is not None]
    same = [
        np.linalg.det([name for name, _ in three]) * np.linalg.det([normal for _, normal in three]) > 0
        for three in itertools.combinations(named, 3)
        if min(abs(np.linalg.det([vector / np.linalg.norm(vector) for vector in side])) for side in zip(*three, strict=True)) > 0.1
    ]
    return same.count(True), same.count(False)


@pytest.mark.parametrize("name", NAMES)
def test_a_scan_of_a_lattice_sum_gives_the_crystal_that_was_summed(cases, name):
    told = json.loads((CASES / name / "truth.json").read_text())
    stated = {key: CASES / name / value if key == "input.geometry" else value for key, value in told["options"]["set"].items()}
    settings = config.merge({"strain": GOLD}, config.parse_assignments(f"{key}={value}" for key, value in stated.items()))
    result = braggshot.reconstruct(CASES / name / told["options"]["input"], settings, progress=False)
    case = cases.build_seam() if name == "aps_seam" else cases.build(name)
    found = judge(result, case)
    volume = result.strain.support.sum() * abs(np.linalg.det(result.strain.basis))
    assert result.verdict == "good"
    assert found.overlap > 0.93
    assert volume == pytest.approx(told["volume_m3"], rel=0.05)
    if name != SCREW:
        assert found.error < 1e-4
    right, wrong = name_handedness(result.strain.facets)
    assert wrong == 0
    assert right > 0 or told["object"]["shape"] == "tetrapod"


@pytest.fixture(scope="module")
def fine_scan(cases):
    """A crystal of smooth strain at P10, its rocking axis oversampled 6.6 times, and its pattern without noise, made once."""
    case = cases.build("p10_om_up", step_factor=0.45, field=cases.GRAD)
    return case, {}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_finely_rocked_crystal_is_the_same_binned_and_not(cases, fine_scan, seed, tmp_path):
    case, made = fine_scan
    _, made["pattern"], _, path, _ = cases.write("p10_om_up", seed=seed, folder=tmp_path, c=case, F=made.get("pattern"))
    for binning in ((2, 1, 1), (1, 1, 1)):
        settings = {"strain": {"frame": "lab"}, "prepare": {"binning": binning}}
        result = braggshot.reconstruct(path, settings, progress=False)
        assert result.verdict == "good"
        found = judge(result, case)
        assert found.overlap > 0.93
        assert found.error < 1.5e-4
        assert 0.6 < found.covered < 0.97
