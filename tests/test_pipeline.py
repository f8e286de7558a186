"""Prepare, phase, hold the crystal against its measured size, and prepare again where they disagree."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from sample_reconstruction import sample_reconstruction

from braggshot import pipeline
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.errors import DataError
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.rocking_angles import Drift
from braggshot.phasing.self_flat import SelfFlat
from braggshot.pipeline import drain, prepare_and_phase
from braggshot.prepare import PrepareConfig, prepare, volume
from braggshot.volumes import Scan

CRYSTAL = CrystalSettings(shape=(32, 32, 32), oversampling=(2.6, 3), counts=(1e6, 1e6), phase_range=(1, 1), shapes=("fcc",))
PHASING = PhasingConfig(method="refine", hypotheses=1, orientations=1, partial_coherence="off", device="cpu")


def a_scan():
    return Scan(simulate_volume(11, CRYSTAL)[1].intensity, "s")


def test_a_pattern_that_was_binned_too_much_is_phased_again_without_binning(monkeypatch):
    """As if the size had been measured wrong: binned by 3, the crystal does not fit into the array."""
    plain = drain(prepare_and_phase(a_scan(), PrepareConfig(), PHASING))
    monkeypatch.setattr(volume, "choose_binning", lambda *_: (1, 3, 1))
    again = drain(prepare_and_phase(a_scan(), PrepareConfig(max_shape=(32, 32, 32)), PHASING))
    assert again.volume.window.binning == (1, 1, 1)
    assert "phased a second time, unbinned" in again.volume.steps[-1]
    assert again.volume.steps[-1].endswith("kept")
    assert again.quality.llk_free == pytest.approx(plain.quality.llk_free, rel=0.2)
    asked = drain(prepare_and_phase(a_scan(), PrepareConfig(binning=(1, 3, 1)), PHASING))
    assert asked.volume.window.binning == (1, 3, 1)  # what the user asked for is not changed


@pytest.mark.parametrize(
    ("verdict", "binning", "measured", "again"),
    [
        ("good", (1, 1, 1), (3, 3, 3), None),
        ("failed", (2, 1, 1), (3, 3, 3), "unbinned, because no crystal was found"),
        ("good", (2, 1, 1), (3, 3, 3), None),
        ("good", (2, 1, 1), (6, 3, 3), "unbinned, because the crystal is larger than it was measured"),
        ("doubtful", (1, 1, 1), (6, 3, 3), "larger than measured"),
        ("good", (1, 1, 1), (6, 3, 3), None),
        ("failed", (1, 1, 1), (4, 3, 3), None),
    ],
)
def test_what_is_phased_a_second_time(monkeypatch, verdict, binning, measured, again):
    scan = a_scan()
    made = prepare(scan, PrepareConfig())
    rho = np.zeros(made.shape, np.complex64)
    rho[tuple(slice(n // 2 - round(n / 6), n // 2 + round(n / 6)) for n in made.shape)] = 1  # an oversampling of about 3
    found = replace(sample_reconstruction(), rho=rho, support=rho != 0, verdict=verdict, seconds={"phasing": 1.0})
    volumes = []

    def phased(given, *_):
        volumes.append(given)
        yield from ()
        window = replace(given.window, binning=binning if len(volumes) == 1 else (1, 1, 1))
        return replace(found, volume=replace(given, window=window, oversampling=measured))

    monkeypatch.setattr(pipeline, "phase", phased)
    result = drain(prepare_and_phase(scan, PrepareConfig(), PHASING))
    assert len(volumes) == (1 if again is None else 2)
    assert again is None or again in result.volume.steps[-1]
    assert result.seconds["phasing"] == len(volumes)
    if again == "larger than measured":
        assert volumes[1].oversampling == pytest.approx((3, 3, 3), rel=0.07)


def test_a_second_phasing_that_cannot_be_done_leaves_the_first_result_and_says_so(monkeypatch):
    calls = []

    def phased(given, *_):
        calls.append(given)
        yield from ()
        if len(calls) == 2:
            raise DataError("the volume does not fit into memory")
        window = replace(given.window, binning=(2, 1, 1))
        found = replace(sample_reconstruction(), rho=np.ones(given.shape, np.complex64), support=np.ones(given.shape, bool))
        return replace(found, volume=replace(given, window=window), verdict="failed", seconds={"phasing": 1.0})

    monkeypatch.setattr(pipeline, "phase", phased)
    result = drain(prepare_and_phase(a_scan(), PrepareConfig(), PHASING))
    assert len(calls) == 2
    assert result.verdict == "failed"
    assert "not phased a second time" in result.volume.steps[-1]
    assert "does not fit into memory" in result.volume.steps[-1]


def test_importing_the_pipeline_leaves_out_what_few_scans_need():
    """Each of these takes a tenth of a second or more: for pictures, aliens, the turns of a geometry, the sharpness of an edge."""
    script = "import braggshot.pipeline, sys; print(' '.join(sys.modules))"
    loaded = set(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split())
    assert not {"matplotlib", "skimage", "scipy.spatial", "scipy.optimize", "scipy.signal", "hdf5plugin", "tifffile"} & loaded


@pytest.mark.parametrize(
    ("method", "verdicts", "is_kept", "phased", "said"),
    [
        ("refine", ("doubtful", "good"), True, "plain corrected", "told"),
        ("refine", ("good", "doubtful"), True, "plain corrected", "not used, because the verdict with it is doubtful"),
        ("auto", ("failed", "doubtful"), False, "plain plain", "told"),  # the search that was broken off is held to its end
        ("auto", ("good", "good"), False, "plain", "told"),
        ("refine", ("failed", "failed"), False, "plain", "told"),
    ],
)
def test_a_scan_is_phased_again_with_the_flat_field_that_it_told(monkeypatch, method, verdicts, is_kept, phased, said):
    given = []

    def estimated(scan, found, *_):
        yield from ()
        return SelfFlat(replace(found.volume, gain=np.ones((32, 32))) if is_kept else None, "told", is_uneven=True)

    def phased_as(counts, *_):
        given.append("plain" if counts.gain is None else "corrected")
        yield from ()
        rho = np.ones(counts.shape, np.complex64)
        quality = replace(sample_reconstruction(), rho=rho, support=rho != 0, seconds={"phasing": 1.0})
        return replace(quality, volume=replace(counts, oversampling=None), verdict=verdicts[len(given) - 1], reasons=("so",))

    monkeypatch.setattr(pipeline, "estimate_flat", estimated)
    monkeypatch.setattr(pipeline, "phase", phased_as)
    result = drain(prepare_and_phase(a_scan(), PrepareConfig(), replace(PHASING, method=method)))
    assert " ".join(given) == phased
    assert said in result.choices["flat field"]
    assert result.verdict == min(verdicts[: len(given)], key=pipeline.VERDICTS.index)
    assert (result.volume.gain is not None) == (is_kept and verdicts[1] != "doubtful")
    assert result.seconds["phasing"] == len(given)
    assert any("counts unevenly" in note for note in result.volume.provenance["noticed"])
    assert (len(result.reasons) == 1) == (result.verdict == "good")


@pytest.mark.parametrize(
    ("before", "after", "told"), [("good", "doubtful", "doubtful"), ("good", "good", "good"), ("failed", "good", "good")]
)
def test_a_good_crystal_is_doubted_where_moved_frames_explain_the_counts_and_are_not_used(monkeypatch, before, after, told):
    verdicts = [before, after]

    def estimated(found, *_):
        yield from ()
        return Drift(found.volume, "frames lie 2 steps off", np.zeros(32))

    def phased_as(counts, *_):
        yield from ()
        rho = np.ones(counts.shape, np.complex64)
        made = replace(sample_reconstruction(), rho=rho, support=rho != 0, seconds={"phasing": 1.0})
        return replace(made, volume=replace(counts, oversampling=None), verdict=verdicts.pop(0), reasons=("all agree.",))

    monkeypatch.setattr(pipeline, "estimate_drift", estimated)
    monkeypatch.setattr(pipeline, "phase", phased_as)
    result = drain(prepare_and_phase(a_scan(), PrepareConfig(self_flat="off"), replace(PHASING, method="auto")))
    assert result.verdict == told
    assert any("frames lie 2 steps off" in said for said in result.volume.provenance["noticed"])
    assert ("not used" in result.choices["rocking angles"]) == (after == "doubtful")
    assert ("all agree." in result.reasons) == (told == "good")
