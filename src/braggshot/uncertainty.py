r"""How far photon noise moves the answer: redraw the counts, refine from the answer, look at the spread.

The spread of random starts tells how well the phase problem is solved; all starts share the same counts, so it does not hold what
other counts would have given. Here each sample draws

.. math:: I' \sim \mathrm{Poisson}(I)

from the measured counts and goes on from the reconstruction, its support held, for a few iterations of error reduction: a
parametric bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, 1993).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np
import torch

from braggshot.errors import DataError
from braggshot.physics import metrics, strain
from braggshot.physics.fourier import to_centre, to_corner
from braggshot.refine.iterate import Guess, Progress, RefineConfig, run_starts
from braggshot.refine.projections import ShrinkWrap, measured
from braggshot.volumes import Reconstruction, Uncertainty

RECIPE = "40*ER"


def with_photon_noise(reconstruction: Reconstruction, samples: int, seed: int = 0) -> Generator[Progress, None, Reconstruction]:
    """The reconstruction with the photon noise added, in quadrature, to what its starts said; a generator that its caller owns.

    Where a point spread was estimated the samples are refined without it; their spread is then that of the coherent model.

    Raises
    ------
    DataError : with fewer than two samples, or if the reconstruction is not on the grid of its counts.
    """
    volume = reconstruction.volume
    if samples < 2:
        raise DataError(f"a spread needs at least two samples, found {samples}.")
    if reconstruction.frame != "detector" or not volume.valid.any():
        raise DataError("photon noise can be redrawn only in the detector frame, with the counts that were phased.")
    generator = torch.Generator().manual_seed(seed)
    counts, valid = torch.from_numpy(volume.intensity).float().clamp_min(0), torch.from_numpy(volume.valid)
    reference = torch.from_numpy(reconstruction.rho)
    guess = Guess(to_corner(reference), to_corner(torch.from_numpy(reconstruction.support)), 0.0)
    settings = RefineConfig(recipe=RECIPE, shrink_wrap=ShrinkWrap(period=0))
    fields = []
    for number in range(samples):
        data = measured(torch.poisson(counts, generator=generator), valid, torch.zeros_like(valid))
        (found,) = yield from run_starts(data, settings, 1, seed + number, [guess])
        fields.append(metrics.align(to_centre(found.rho), reference, allow_twin=False).field)
    phase, strains = strain.spread(torch.stack(fields).numpy(), reconstruction.support, reconstruction.basis, volume.q_bragg)
    noise = Uncertainty(phase, strains, samples, f"{samples} Poisson redraws of the counts")
    return replace(reconstruction, uncertainty=_together(reconstruction.uncertainty, noise))


def _together(starts: Uncertainty | None, noise: Uncertainty) -> Uncertainty:
    """Independent causes: variances add."""
    if starts is None:
        return noise
    both = starts.strain is not None and noise.strain is not None
    return Uncertainty(
        phase=np.hypot(starts.phase, noise.phase),
        strain=np.hypot(starts.strain, noise.strain) if both else None,  # type: ignore[arg-type]
        samples=starts.samples + noise.samples,
        source=f"{starts.source} ({starts.samples}) and {noise.source}, in quadrature",
    )
