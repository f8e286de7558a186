"""Ask the network for hypotheses, guesses of the crystal, and refine them by iterations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from braggshot.iterative.iterate import Guess, IterativeConfig, Start, set_point_spread
from braggshot.iterative.projections import Measured
from braggshot.iterative.spacing import refine_wide
from braggshot.nn.adapt import adapt_network
from braggshot.nn.novelty import find_novelties
from braggshot.nn.predict import Hypothesis, network_input, predict
from braggshot.nn.weights import Card
from braggshot.phasing.partial_coherence import Phasing
from braggshot.phasing.problem import PhasingContext
from braggshot.phasing.selection import score
from braggshot.phasing.tournament import blur_factor, finish_guesses, fit_surface
from braggshot.physics.fourier import to_centre, to_corner

# Amplitude, relative to the largest, up to which a voxel is set to zero in a prediction of the network that is used unrefined [1].
# With 0.3, the chi2 of the prediction would double.
FAINT = 0.1
POLISH = "20*ER"  # last iterations, on all voxels, of a guess that was refined at wider spacings


def with_network(context: PhasingContext, network: nn.Module, card: Card) -> PhasingContext:
    """Add a network to the state of a phasing, with a description of how the counts differ from the network's training patterns.

    If the settings ask for it, the network is first trained further on these counts.
    """
    config, oversampling = context.config, context.volume.oversampling
    counts, seen = _hide_held_out(context.data)
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


def refine_guesses(context: PhasingContext, guesses: Sequence[Guess], fits: int) -> Phasing:
    """Refine each guess of the crystal by iterations; return the refined guesses and, last, the first guess as it was.

    The guesses are given best first. Where photons are few, iterations fit noise, and the unrefined guess may be better.

    Parameters
    ----------
    fits : number of refined guesses, the best, whose supports are fitted to the surface
    """
    config, pattern = context.config, context.pattern
    refined = yield from refine_wide(guesses, pattern.data, pattern.wide, [refinement(context)], POLISH, config.seed)
    refined = set_point_spread(context.point_spread, refined)
    refined = yield from fit_surface(refined, pattern, config.volume_tournament, POLISH, config.seed, (fits, 1))
    return [*refined, *set_point_spread(context.point_spread, [unrefined(guesses[0], config.seed + len(guesses))])]


def refine_longer(context: PhasingContext, guesses: Sequence[Guess], refined: Sequence[Start]) -> Phasing:
    """Refine guesses for longer, with supports that keep the measured volume, where the short refinement leaves misfit.

    Of the two refinements of a guess the one that predicts the held-out voxels better is returned.

    Parameters
    ----------
    guesses : as in `refine_guesses`
    refined : what `refine_guesses` made of these guesses
    """
    config, counts = context.config, context.data_cpu
    longer = replace(config.volume_tournament, finish=config.deepen)
    again = [replace(guess, threshold=None) for guess in guesses]
    deeper = yield from finish_guesses(context.pattern, longer, again, config.seed)
    *old, as_it_was = refined
    pairs = zip(old, set_point_spread(context.point_spread, deeper), strict=True)
    chosen = [b if score(b, counts).llk_free < score(a, counts).llk_free else a for a, b in pairs]
    return [*chosen, as_it_was]


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
