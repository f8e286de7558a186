"""Agreement of starts is counted once, and every page, table and terminal says what the verdict says."""

import re
from dataclasses import replace

import pytest
import torch

from braggshot.cli.reconstruct import print_result
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.iterative.iterate import IterativeConfig
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import phase
from braggshot.phasing.verdict import Limits
from braggshot.pipeline import drain
from braggshot.report.text import agreement, quality_facts
from braggshot.series.table import summarise_result

CONFIG = PhasingConfig(
    method="iterative",
    starts=4,
    device="cpu",
    partial_coherence="off",
    iterative=IterativeConfig(recipe="2*(30*HIO+30*RAAR)+20*ER"),
)


@pytest.fixture(scope="module")
def volume():
    settings = CrystalSettings(shape=(32, 32, 32), phase_range=(1, 1), counts=(1e5, 1e5), shapes=("fcc",))
    return simulate_volume(3, settings)[1]


@pytest.mark.parametrize("limit", [0.5, 0.7, 0.95, 0.9999])
def test_all_say_the_same_count(volume, limit, capsys):
    result = drain(phase(volume, replace(CONFIG, limits=Limits(agreement=limit, stuck_ratio=1e9))))
    counted = result.quality.agreeing
    assert counted.limit == limit
    assert (counted.others, counted.stuck) == (3, 0)
    assert counted.same == sum(value >= limit for value in result.quality.agreement) - 1
    said = f"{counted.same} of 3 others"
    assert agreement(counted) == said
    (fact,) = [fact for fact in quality_facts(result) if fact.name == "starts that agree"]
    assert (fact.value, fact.note) == (said, f"correlation ≥ {limit:g} with the chosen one")
    print_result(result, [])
    assert re.search(rf"starts that agree\W+{said}", capsys.readouterr().out)
    assert summarise_result(result, None)["agreement"] == counted.same / 3
    if result.verdict == "good":
        assert result.reasons[0].startswith(f"{counted.same} of 3 other starts")


def test_phasing_leaves_denormal_numbers_as_they_were(volume):
    """While it runs, and between its steps, the thread of its caller keeps its own setting."""
    small = torch.tensor(1e-39)
    for flushed in (False, True):
        torch.set_flush_denormal(flushed)
        try:
            running = phase(volume, CONFIG)
            for _ in range(3):
                next(running)
                assert (float(small * 1) == 0) is flushed
            running.close()
            assert (float(small * 1) == 0) is flushed
        finally:
            torch.set_flush_denormal(False)
