"""Judge the starts of a phasing strategy, and call doubtful a crystal that only the network has found."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from braggshot.iterative.iterate import Guess, IterativeConfig, Progress, Start, continue_starts
from braggshot.iterative.projections import ShrinkWrap
from braggshot.iterative.spacing import refine_wide
from braggshot.phasing.hypotheses import refinement
from braggshot.phasing.partial_coherence import WIDE, refit_with_psf
from braggshot.phasing.problem import PhasingContext
from braggshot.phasing.selection import Chosen, alike, centre_and_dephase, choose, judge_chosen, quality_of, score
from braggshot.phasing.surface import fitting_rounds
from braggshot.phasing.verdict import Limits, judge
from braggshot.physics.fourier import to_corner
from braggshot.physics.metrics import align
from braggshot.volumes import Reconstruction

POLISH = "40*ER"  # iterations from the mean of nearly equal starts, in the support of the best of them


@dataclass(frozen=True)
class Found:
    """Result of a phasing strategy: all its starts, the one that was chosen, and the reconstruction made of it."""

    starts: list[Start]
    result: Reconstruction
    chosen: Chosen


def doubt_wide_psf(result: Reconstruction, limits: Limits) -> Reconstruction:
    """Turn the verdict "good" into "doubtful" where the point spread is wide and the held-out voxels are missed.

    A wide point spread hides much of the crystal, so starts with the same point spread may agree on a crystal that is only near
    the truth. Such a crystal predicts the held-out voxels worse than photon noise does.
    """
    unseen, width = result.quality.unseen, max(result.psf["sigma"]) if result.psf else 0.0
    is_predicted = unseen is not None and unseen <= limits.wide_psf_excess
    if result.verdict != "good" or width < WIDE or is_predicted:
        return result
    missed = "not tested" if unseen is None else f"missed by {100 * unseen:.0f} % beyond photon noise"
    reason = (
        f"starts agree, but share a point spread of {width:.1f} voxels, as wide as the speckles, which hides much of the crystal, "
        f"and voxels kept from the phasing are {missed}: surface and strain may be off; close the slits, or take a smaller crystal."
    )
    return replace(result, verdict="doubtful", reasons=(reason,))


def doubt_network_alone(context: PhasingContext, found: Found) -> Found:
    """Turn the verdict "good" into "doubtful" for a crystal that only the network has found.

    If the counts are unlike the patterns on which the network was trained, the reasons for the verdict then name each difference.
    """
    new = tuple(f"the network has seen nothing like it: {said}." for said in context.out_of_distribution)
    if found.result.verdict != "good":
        return replace(found, result=replace(found.result, reasons=found.result.reasons + new))
    reason = (
        "the network's hypotheses agree and fit the counts, but they would share an error of the network, and no random start was "
        'asked; the method "auto" asks some.'
    )
    return replace(found, result=replace(found.result, verdict="doubtful", reasons=(reason, *new)))


def judge_starts(context: PhasingContext, starts: list[Start], method: str) -> Found:
    """Choose a start and judge it; if all starts come from one network, their agreement has no influence on the choice."""
    limits = context.config.limits
    if not context.is_witnessed:
        limits = replace(limits, tie_margin=0.0)
    chosen = choose(starts, context.data_cpu, limits)
    result = judge_chosen(context.volume, starts, chosen, limits, method)
    return Found(starts, doubt_wide_psf(result, limits), chosen)


def show_mean(context: PhasingContext, found: Found) -> Generator[Progress, None, Reconstruction]:
    """Refine the mean of the starts that agree and predict the held-out voxels nearly alike; the value is the result that shows it.

    What the counts determine is the same in these starts; what they leave open differs from start to start, and averages out. The
    chosen start stays where no other is like it, and where the mean misses the held-out voxels by more than the share
    `Limits.tie_margin` beyond it. The verdict is that of the chosen start, since the starts are no witnesses of their own mean.
    """
    limits, chosen, result = context.config.limits, found.chosen, found.result
    most = 1 + limits.tie_margin
    averaged = alike(chosen, limits.agreement, most)
    if len(averaged) < 2 or not context.is_witnessed:
        return result
    best, support = found.starts[chosen.best], torch.from_numpy(result.support)
    mean = torch.stack([chosen.fields[k] for k in averaged]).mean(0).to(best.rho.dtype) * support
    recipe = f"PSF+{POLISH}" if any(best.sigma) else POLISH
    settings = IterativeConfig(recipe=recipe, shrink_wrap=ShrinkWrap(period=0))
    begun = replace(best, rho=to_corner(mean), support=to_corner(support))
    (polished,) = yield from continue_starts([begun], context.data, settings)
    misfits = score(polished, context.data_cpu)
    if not misfits.llk_free <= most * chosen.scores[chosen.best].llk_free:
        return result
    said = f"mean of {len(averaged)} of {len(found.starts)} starts that agree and predict held-out voxels alike, refined"
    old = result.quality
    return replace(
        result,
        rho=centre_and_dephase(polished, misfits.scale)[0],
        quality=quality_of(misfits, old.agreement, old.resolution, old.agreeing),
        choices={**result.choices, "start": f"{said}; the best is {result.choices['start']}"},
        psf={"sigma": polished.sigma, "eta": polished.eta} if any(polished.sigma) else None,
    )


def keep_verdict(before: Found, filled: Found, limits: Limits) -> Found:
    """Judge a crystal whose gaps were filled by how it predicted the held-out voxels before, if that was good and it is the same.

    Filling evens the amplitude out by what no count tells, and voxels beside gaps are then predicted less well. All other checks
    look at the crystal as it is now.
    """
    old, new = before.result, filled.result
    likeness = align(torch.from_numpy(new.rho), torch.from_numpy(old.rho), allow_twin=False).correlation
    if old.verdict != "good" or likeness < limits.agreement:
        return filled
    quality = replace(new.quality, llk_free=old.quality.llk_free, unseen=old.quality.unseen)
    verdict, reasons = judge(new.volume, new.rho, new.support, quality, limits)
    said = tuple(f"{reason} Held-out voxels: before the gaps were filled." for reason in reasons)
    return replace(filled, result=doubt_wide_psf(replace(new, verdict=verdict, reasons=said), limits))


def judge_with_warm_starts(context: PhasingContext, cold: Found, first: Sequence[Guess]) -> Generator[Progress, None, Found]:
    """Refine given objects into warm starts, and judge them together with the cold starts, which know nothing of these objects.

    The misfit of the held-out voxels decides which start is chosen, whether it is warm or cold.
    """
    is_coherent = cold.result.psf is None
    # A surface that is fitted to blurred counts as if they were sharp ends in the wrong place.
    fitting = fitting_rounds(context.pattern, context.config.volume_tournament) if is_coherent else []
    warm = yield from refine_wide(first, context.data, context.data, [refinement(context), *fitting], "", context.config.seed)
    if not is_coherent:
        warm = yield from refit_with_psf(warm, context)
    found = judge_starts(context, [*cold.starts, *warm], cold.result.method)
    ensemble = found.result.ensemble
    assert ensemble is not None
    is_warm = np.array([0.0] * len(cold.starts) + [1.0] * len(warm))
    table = {**ensemble.table, "warm": is_warm}
    return replace(found, result=replace(found.result, ensemble=replace(ensemble, table=table)))
