"""Fit the supports of starts to the surface of the crystal."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from braggshot.iterative.iterate import Guess, IterativeConfig, Progress, Start, set_point_spread
from braggshot.iterative.projections import ShrinkWrap
from braggshot.iterative.spacing import refine_wide
from braggshot.phasing.pattern import Pattern, blur_factor
from braggshot.phasing.rounds import TournamentConfig, iterations_of
from braggshot.phasing.selection import score

SEEN = 0.75  # least blur up to which photons show the surface of a crystal [voxels]
# A support is fitted up to `MOST_FITS` times while llk_free falls by more than the share `GAIN`, and is above `AT_NOISE` [1].
MOST_FITS, GAIN, AT_NOISE = 5, 0.1, 0.6
TIE = 0.05  # share by which llk_free may be larger for a tighter support to be chosen all the same [1]
GROWING = "GROW+30*ER"  # recipe that adds a layer of voxels to a support
USUAL = sum(ShrinkWrap.threshold) / 2  # threshold for whoever continues a start that had a threshold of its own [1]


def fit_surface(
    starts: list[Start], pattern: Pattern, config: TournamentConfig, polish: str, seed: int, fits: tuple[int, int]
) -> Generator[Progress, None, list[Start]]:
    """Fit the supports of starts to the surface of the crystal (`FITTING`); keep a fit if it predicts the held-out voxels better.

    A fit that is tighter is held against what it would predict in a support as large (`_at_like_size`).
    The best `fits[0]` are fitted; of those that gain much, and are not yet at photon noise, the best `fits[1]` are fitted again.
    """
    best, fitting = list(starts), fitting_rounds(pattern, config)
    free = [score(start, pattern.host).llk_free for start in starts]
    left = sorted(sorted(range(len(starts)), key=lambda k: free[k])[: fits[0]])
    for _ in range(MOST_FITS if fitting else 0):
        guesses = [Guess(best[k].rho, best[k].support) for k in left]
        fitted = yield from refine_wide(guesses, pattern.data, pattern.wide, fitting, polish, seed)
        fitted = set_point_spread(pattern.point_spread, fitted)
        tried = yield from _at_like_size(fitted, [best[k] for k in left], pattern, fitting, polish, seed)
        gaining = []
        for k, (start, after) in zip(left, tried, strict=True):
            before = free[k]
            if not after >= before * (1 + TIE * (_voxels(start) < _voxels(best[k]))):
                best[k], free[k] = replace(start, seed=starts[k].seed, threshold=USUAL), score(start, pattern.host).llk_free
            if AT_NOISE < after < (1 - GAIN) * before:
                gaining.append(k)
        if not (left := sorted(gaining, key=lambda k: free[k])[: fits[1]]):
            break
    return best


def _at_like_size(
    fitted: list[Start], before: list[Start], pattern: Pattern, fitting: list[IterativeConfig], polish: str, seed: int
) -> Generator[Progress, None, list[tuple[Start, float]]]:
    """Return fitted starts, each with the llk_free that it would have in a support as large as before.

    In a looser support any crystal predicts the held-out voxels better, a wrong one too. So where a fit is tighter and predicts
    worse, a layer of voxels is added to it, and llk_free is interpolated between the two, its logarithm linearly in the number of
    voxels. Of the two, the one whose support is more like that before is returned.
    """
    free = [(score(a, pattern.host).llk_free, score(b, pattern.host).llk_free) for a, b in zip(fitted, before, strict=True)]
    tight = [k for k, (a, b) in enumerate(free) if a >= b and _voxels(fitted[k]) < _voxels(before[k])]
    guesses = [Guess(fitted[k].rho, fitted[k].support) for k in tight]
    growing = [replace(one, recipe=GROWING) for one in fitting]
    grown = (yield from refine_wide(guesses, pattern.data, pattern.wide, growing, polish, seed)) if tight else []
    found = [(start, after) for start, (after, _) in zip(fitted, free, strict=True)]
    for k, start in zip(tight, set_point_spread(pattern.point_spread, grown), strict=True):
        tighter, wanted, looser = _voxels(fitted[k]), _voxels(before[k]), _voxels(start)
        share = min(1.0, (wanted - tighter) / max(1, looser - tighter))
        like = free[k][0] ** (1 - share) * score(start, pattern.host).llk_free ** share
        found[k] = (start if share > 0.5 else fitted[k], like)
    return found


def _voxels(start: Start) -> int:
    return int(start.support.sum())


def fitting_rounds(pattern: Pattern, config: TournamentConfig) -> list[IterativeConfig]:
    """List the rounds that fit supports to the surface: one, or none where the least blur is over `SEEN`, which would fit noise."""
    least = config.min_blur / pattern.finest
    return [iterations_of(config.fitting, blur_factor(pattern.oversampling), least, 1.0)] if least <= SEEN else []


def surface_blur(pattern: Pattern) -> float:
    """Return the width of the blur with which a support is cut at the surface of a finished crystal [voxels].

    It is a voxel, less where the crystal has few voxels, and more where photons are few. It does not depend on the settings of
    tournaments, because strategies without one use it too.
    """
    return max(blur_factor(pattern.oversampling), TournamentConfig.min_blur / pattern.finest)
