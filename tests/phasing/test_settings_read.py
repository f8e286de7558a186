"""No setting does nothing without a word: a strategy reads what it says, and refuses the rest."""

import dataclasses
from dataclasses import replace
from types import SimpleNamespace

import pytest
from settings_read import leaves, tables, watched
from stand_ins import raw_scan

from braggshot import pipeline
from braggshot.errors import ConfigError
from braggshot.iterative.iterate import IterativeConfig
from braggshot.nn.adapt import AdaptConfig
from braggshot.phasing import strategies
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.hypotheses import unrefined
from braggshot.phasing.outcome import judge_starts
from braggshot.phasing.rounds import Round, TournamentConfig
from braggshot.phasing.strategies import COMMON, STRATEGIES, Strategy, phase
from braggshot.phasing.verdict import Limits
from braggshot.prepare import prepare

ROUND = Round("4*HIO+FLAT+2*ER", 2.0, 1.0)
SHORT = IterativeConfig(recipe="4*HIO+FLAT+2*ER+PSF+2*ER")
CONFIG = PhasingConfig(
    tournament=TournamentConfig(opening=ROUND, narrowing=ROUND, settling=ROUND, finish=ROUND, fitting=ROUND),
    volume_tournament=TournamentConfig(
        opening=ROUND, narrowing=ROUND, settling=ROUND, finish=ROUND, fitting=ROUND, volume=(1.05, 1.45)
    ),
    refine=SHORT,
    iterative=SHORT,
    coherence_recipe="PSF+2*ER",
    confirm_starts=(2, 1, 1),
    search_starts=(2, 2, 2),
    further_starts=(2, 1, 1),
    max_tournaments=2,
    starts=2,
    hypotheses=2,
    orientations=2,
    device="cpu",
    gap_fraction=0.0,
    limits=Limits(llk_free=0.0),  # never good, so that every search is held
    adapt=AdaptConfig(steps=1),
)
RARELY = {"coherence_gain"}  # read only where the fit of a point spread hints at one
DEFAULTS = {"iterative"}  # of which refitting with a point spread takes what no method but "iterative" can change


@pytest.fixture(scope="module")
def seen():
    """For each method, and for the whole job, the (record, field) that it read."""
    settings = pipeline.Settings()
    classes = {known for _, known in tables(settings)}
    small = replace(settings.prepare, shape=(16, 16, 16))
    volume = prepare(raw_scan(), small)
    valid = volume.valid.copy()
    valid[:, 12] = False
    read = {}
    for method in STRATEGIES:
        with watched(classes) as read[method]:
            for coherence, excess in (("on", 0.0), ("auto", 100.0)):
                config = replace(CONFIG, method=method, partial_coherence=coherence, promising_excess=excess)
                pipeline.drain(phase(replace(volume, valid=valid), config))
    job = replace(
        settings,
        prepare=small,
        phasing=PhasingConfig(method="oneshot"),
        strain=replace(settings.strain, noise_samples=2),
    )
    with watched(classes) as read["the job"]:
        pipeline.drain(pipeline.run(raw_scan(), job))
    return read


@pytest.mark.parametrize("method", list(STRATEGIES))
def test_a_strategy_reads_what_it_says(seen, method):
    read = {field for known, field in seen[method] if known is PhasingConfig}
    said = {name.partition(".")[0] for name in COMMON | STRATEGIES[method].reads}
    assert read - said <= DEFAULTS
    assert said - read <= RARELY


def test_every_setting_is_read(seen):
    everything = set().union(*seen.values()) | {(pipeline.Settings, "input")}  # which goes to the reader as it stands
    settings = pipeline.Settings()
    for place, known in tables(settings):
        for name in leaves(known() if known is not Round else ROUND):
            if "." not in name and name != "options":  # those are for strategies of other packages
                assert (known, name) in everything, f"nothing reads {place}{name}"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            {"method": "refine", "iterative": {"recipe": "3*ER"}},
            "phasing.iterative.recipe .* for 'refine' set phasing.refine.recipe",
        ),
        ({"method": "auto", "starts": 30}, "phasing.starts .* for 'auto' set phasing.search_starts"),
        ({"method": "auto", "starts": 10}, "phasing.starts"),  # the default, and still not read
        ({"method": "iterative", "orientations": 3}, "phasing.orientations is read by method auto or oneshot or refine, not by"),
        ({"method": "oneshot", "tournament": {"min_blur": 0.5}}, "phasing.tournament.min_blur is read by method auto"),
        ({"method": "refine", "limits": {"tie_margin": 0.1}}, "phasing.limits.tie_margin"),
        ({"method": "refine", "options": {"a": 1}}, "phasing.options is read by method of another package"),
        ({"method": "magic"}, "unknown phasing.method 'magic'; known: auto, oneshot, refine, iterative"),
    ],
)
def test_what_is_not_read_is_refused_with_the_one_that_is_meant(table, said):
    with pytest.raises(ConfigError, match=said):
        pipeline.resolve({"phasing": table})


def test_records_made_in_python_are_refused_too():
    settings = pipeline.Settings(phasing=PhasingConfig(method="refine", starts=30))
    with pytest.raises(ConfigError, match=r"phasing.starts .* for 'refine' set phasing.hypotheses"):
        next(pipeline.run("no.cxi", settings))


def test_a_series_reads_how_warm_starts_are_refined():
    from braggshot import series

    table = {"phasing": {"method": "iterative", "refine": {"recipe": "20*ER"}}}
    assert series.resolve(table).phasing.refine.recipe == "20*ER"
    with pytest.raises(ConfigError, match=r"phasing.refine.recipe"):
        series.resolve({**table, "series": {"warm": False}})


@pytest.mark.parametrize(("old", "new"), list(PhasingConfig.RENAMED.items()))
def test_an_old_name_is_refused_with_the_new_one(old, new):
    with pytest.raises(ConfigError, match=f"now called 'phasing.{new.split(' and ')[0]}'"):
        pipeline.resolve({"phasing": {old: 1}})


@pytest.mark.parametrize(("old", "new"), list(Limits.RENAMED.items()))
def test_an_old_limit_is_refused_with_the_new_one(old, new):
    with pytest.raises(ConfigError, match=f"setting 'phasing.limits.{old}' is now called 'phasing.limits.{new}'"):
        pipeline.resolve({"phasing": {"limits": {old: 1}}})


def test_there_are_at_most_so_many_settings():
    assert len(list(leaves(pipeline.Settings()))) < 200, "three whole copies of one record were 343"


def test_another_package_offers_a_strategy(monkeypatch):
    """By an entry point; it is found by name, asked for its memory, and its own settings reach it."""
    import torch

    from braggshot.iterative.iterate import Guess
    from braggshot.physics.fourier import to_corner

    def run(context):
        size = context.config.options["size"]
        rho = torch.zeros(context.volume.shape, dtype=torch.complex64)
        rho[tuple(slice(n // 2 - size, n // 2 + size) for n in rho.shape)] = 1
        yield from ()
        starts = [unrefined(Guess(to_corner(rho), to_corner(rho.abs() > 0)), context.config.seed)]
        return judge_starts(context, starts, "ones")

    ones = Strategy(run, False, False, lambda config: 1, (10, 10), frozenset({"options"}))
    monkeypatch.setattr(strategies, "entry_points", lambda group: [SimpleNamespace(name="ones", load=lambda: ones)])
    settings = pipeline.resolve({"phasing": {"method": "ones", "options": {"size": 3}}})
    result = pipeline.drain(pipeline.run(raw_scan(), settings))
    assert (result.method, result.support.sum()) == ("ones", 6**3)
    assert dataclasses.asdict(settings.phasing)["options"] == {"size": 3}
    with pytest.raises(ConfigError, match=r"unknown phasing.method 'twos'; known: .*, ones"):
        pipeline.resolve({"phasing": {"method": "twos"}})
