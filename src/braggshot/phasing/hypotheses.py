"""Ask the network for hypotheses, guesses of the crystal, and refine them by iterations."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

import torch
from torch import nn

from braggshot.iterative.iterate import Guess, IterativeConfig, Progress, Start, set_point_spread
from braggshot.iterative.projections import Measured
from braggshot.iterative.spacing import refine_wide
from braggshot.nn.adapt import adapt_network
from braggshot.nn.novelty import find_novelties
from braggshot.nn.predict import Hypothesis, network_input, predict
from braggshot.nn.weights import Card
from braggshot.phasing.partial_coherence import Phasing
from braggshot.phasing.pattern import blur_factor
from braggshot.phasing.problem import PhasingContext
from braggshot.phasing.rounds import TournamentConfig
from braggshot.phasing.selection import best_of, score
from braggshot.phasing.surface import fit_surface
from braggshot.phasing.tournament import finish_guesses
from braggshot.phasing.verdict import is_alone
from braggshot.physics.fourier import to_centre, to_corner

# Amplitude, relative to the largest, up to which a voxel is set to zero in a prediction of the network that is used unrefined [1].
# With 0.3, the chi2 of the prediction would double.
FAINT = 0.1
POLISH = "20*ER"  # last iterations, on all voxels, of a guess that was refined at wider spacings
# llk_free up to which the best guess that was refined for longer is refined so once more: it is nearly the crystal [1].
NEARLY = 5.0


def with_network(context: PhasingContext, network: nn.Module, card: Card) -> PhasingContext:
    """Add a network to the state of a phasing, with a description of how the counts differ from the network's training patterns.

    If the settings ask for it, the network is first trained further on these counts.
    """
    config, oversampling = context.config, context.volume.oversampling
    counts, seen = _hide_held_out(context.data)
    new: tuple[str, ...] = ()
    if card.familiar:  # else the input of the network is not needed here
        new = find_novelties(network, network_input(counts, seen, oversampling, counts.device), card.familiar, config.seed)
    if config.adapt.steps:
        network = adapt_network(network, counts, seen, oversampling, config.adapt, config.seed)
    return replace(context, network=network, out_of_distribution=new)


def hypotheses_of(context: PhasingContext, threshold: float, searches: bool = True) -> list[Guess]:
    """Ask the network for hypotheses, guesses of the crystal, without showing it the held-out voxels.

    Parameters
    ----------
    threshold : amplitude, relative to the largest, above which a voxel belongs to the support [1]
    searches : True to run a long iterative phasing from the best low-resolution predictions of the network, if these show
        different crystals; the hypotheses are then chosen among the predictions and the crystals so found
    """
    assert context.network is not None
    config, oversampling = context.config, context.volume.oversampling
    counts, seen = _hide_held_out(context.search_data)
    answers = predict(context.network, counts, seen, oversampling, config.hypotheses, config.seed, config.orientations, searches)
    return [_guess(hypothesis, threshold) for hypothesis in answers]


def refine_guesses(context: PhasingContext, guesses: Sequence[Guess], is_last: bool) -> Phasing:
    """Refine each guess of the crystal by iterations; return the refined guesses and, last, the first guess as it was.

    The guesses are given best first. Where photons are few, iterations fit noise, and the unrefined guess may be better.

    Parameters
    ----------
    is_last : True to fit the supports of all refined guesses to the surface; False to fit only that of the best, if it is
        promising, because further stages follow
    """
    config, pattern = context.config, context.pattern
    refined = yield from refine_wide(guesses, pattern.data, pattern.wide, [refinement(context)], POLISH, config.seed)
    refined = set_point_spread(context.point_spread, refined)
    fits = len(guesses) if is_last else int(any(is_promising(context, start) for start in refined))
    refined = yield from fit_surface(refined, pattern, config.volume_tournament, POLISH, config.seed, (fits, 1))
    return [*refined, *set_point_spread(context.point_spread, [unrefined(guesses[0], config.seed + len(guesses))])]


def refine_longer(context: PhasingContext, guesses: Sequence[Guess], refined: Sequence[Start]) -> Phasing:
    """Refine guesses for longer, one after another, with supports that keep the measured volume, until one of them is found.

    Of the two refinements of a guess the one that predicts the held-out voxels better is returned. A guess is found if it predicts
    them to photon noise and others do not (`verdict.is_alone`). If none is found, the best is fitted to the surface; where it is
    nearly right, it is refined once more, with a threshold, which finds what a kept volume does not.

    Parameters
    ----------
    guesses : as in `refine_guesses`
    refined : what `refine_guesses` made of these guesses
    """
    config, counts, limits = context.config, context.data_cpu, context.config.limits
    longer = replace(config.volume_tournament, finish=config.deepen)
    *chosen, as_it_was = refined
    free = [score(start, counts).llk_free for start in refined]
    for k, guess in enumerate(guesses):
        (deeper,) = yield from finish_guesses(context.pattern, longer, [replace(guess, threshold=None)], config.seed + k)
        if is_promising(context, deeper):
            deeper = yield from _fit(context, longer, deeper)
        if (after := score(deeper, counts).llk_free) < free[k]:
            chosen[k], free[k] = deeper, after
        if is_alone(after, sum(other > limits.stuck_ratio * after for other in free), limits):
            return [*chosen, as_it_was]
    best = best_of([score(start, counts) for start in chosen])
    if not is_promising(context, chosen[best]):
        chosen[best] = yield from _fit(context, longer, chosen[best])
    if limits.alone < score(chosen[best], counts).llk_free <= NEARLY:
        nearly = [Guess(chosen[best].rho, chosen[best].support)]
        by_threshold = replace(config.volume_tournament, volume=None)
        (again,) = yield from finish_guesses(context.pattern, by_threshold, nearly, config.seed + len(guesses))
        again = yield from _fit(context, by_threshold, again)
        if score(again, counts).llk_free < score(chosen[best], counts).llk_free:
            chosen[best] = again
    return [*chosen, as_it_was]


def is_promising(context: PhasingContext, start: Start) -> bool:
    """Tell whether a start predicts the held-out voxels well enough to be nearly a crystal."""
    return score(start, context.data_cpu).unseen <= context.config.promising_excess


def _fit(context: PhasingContext, rounds: TournamentConfig, start: Start) -> Generator[Progress, None, Start]:
    """Fit the support of one start to the surface."""
    (fitted,) = yield from fit_surface([start], context.pattern, rounds, rounds.polish, context.config.seed, (1, 1))
    return fitted


def refinement(context: PhasingContext) -> IterativeConfig:
    """Make the settings for refining a guess, with a shrink-wrap blur that suits the number of voxels in the crystal."""
    config, factor = context.config.refine, blur_factor(context.volume.oversampling)
    old = config.shrink_wrap
    return replace(config, shrink_wrap=replace(old, sigma_start=factor * old.sigma_start, sigma_end=factor * old.sigma_end))


def unrefined(guess: Guess, seed: int) -> Start:
    """Turn a guess into a finished start without any iteration; only voxels of low amplitude are set to zero."""
    amplitude = guess.rho.abs()
    inside = amplitude > FAINT * amplitude.max()
    return Start((guess.rho * inside).cpu(), inside.cpu(), seed, 0.0, (0.0, 0.0, 0.0), 0.0, torch.zeros(0, 3))


def _guess(hypothesis: Hypothesis, threshold: float) -> Guess:
    rho = to_corner(hypothesis.rho)
    amplitude = rho.abs()
    return Guess(rho, amplitude > threshold * amplitude.max())


def _hide_held_out(data: Measured) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the counts and the mask of valid voxels, centred at N // 2, with the held-out voxels marked not valid."""
    seen = data.valid.clone().view(-1).index_fill_(0, data.free, False).view(data.shape)
    return to_centre(data.intensity), to_centre(seen)
