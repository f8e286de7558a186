r"""Measure how far photon noise moves a reconstruction: redraw the counts, refine the reconstruction on them, take the spread.

The spread of random starts tells how well the phase problem is solved. All starts share the same counts, so their spread does not
contain the noise of the counts. A parametric bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, 1993) measures it:
for each sample, new counts

.. math:: I' \sim \mathrm{Poisson}(I)

are drawn from the measured counts I, and the reconstruction is refined on them in its support, by a few iterations of error
reduction.

The resolution comes from two halves of the counts. Each half is phased from its own random starts, and the Fourier shell
correlation compares the two crystals.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np
import torch

from braggshot.errors import DataError
from braggshot.iterative.iterate import Guess, IterativeConfig, Progress, run_starts
from braggshot.iterative.projections import ShrinkWrap, measured
from braggshot.phasing.calibration import CALIBRATION, scale_spread
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import phase
from braggshot.physics import metrics, strain
from braggshot.physics.fourier import to_centre, to_corner
from braggshot.physics.resolution import shell_correlation
from braggshot.volumes import FloatArray, Reconstruction, Uncertainty

RECIPE = "40*ER"  # recipe that refines the reconstruction on redrawn counts


def with_photon_noise(reconstruction: Reconstruction, samples: int, seed: int = 0) -> Generator[Progress, None, Reconstruction]:
    """Add the spread from photon noise, in quadrature, to the spread of the starts; a generator whose value is the reconstruction.

    The crystal is refined again on `samples` noisy copies of the counts. A copy is refined without the estimated point spread.

    Raises
    ------
    DataError : if `samples` is less than two, or if the reconstruction is not on the grid of its counts.
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
    settings = IterativeConfig(recipe=RECIPE, shrink_wrap=ShrinkWrap(period=0))
    fields = []
    for number in range(samples):
        data = measured(torch.poisson(counts, generator=generator), valid, torch.zeros_like(valid))
        (found,) = yield from run_starts(data, settings, 1, seed + number, [guess])
        fields.append(metrics.align(to_centre(found.rho), reference, allow_twin=False).field)
    redrawn, support = torch.stack(fields).numpy(), reconstruction.support
    phase, strains = strain.standard_deviation(redrawn, support, reconstruction.basis, volume.q_bragg)
    source = f"{samples} Poisson redraws of the counts"
    amplitude, deviations = strain.amplitude_spread(redrawn, support), strain.phase_deviations(redrawn, support)
    noise = Uncertainty(phase, strains, samples, source, amplitude, deviations)
    noise = scale_spread(noise, CALIBRATION["photons"])
    return replace(reconstruction, uncertainty=together(reconstruction.uncertainty, noise))


def together(starts: Uncertainty | None, noise: Uncertainty) -> Uncertainty:
    """Add the spread between starts and the spread from photon noise, in quadrature, and scale the sum to a 68 % error.

    Both are given as 68 % errors, and are scaled back before they are added. Without a spread between starts, `noise` is returned.
    """
    if starts is None:
        return noise

    def both(name: str) -> FloatArray | None:
        one, other = getattr(starts, name), getattr(noise, name)
        if one is None or other is None:
            return None
        factor = {source: factors[name] for source, factors in CALIBRATION.items()}
        return factor["both"] * np.hypot(one / factor["starts"], other / factor["photons"])

    def all_deviations() -> FloatArray | None:
        if starts.deviations is None or noise.deviations is None:
            return None
        one, other, both = (CALIBRATION[source]["phase"] for source in ("starts", "photons", "both"))
        return np.concatenate([starts.deviations * np.float32(both / one), noise.deviations * np.float32(both / other)])

    phase = both("phase")
    assert phase is not None
    source = f"{starts.source} ({starts.samples}) and {noise.source}, in quadrature"
    samples = starts.samples + noise.samples
    factors = CALIBRATION["both"]
    slope_factor = factors["strain"] / factors["phase"]
    return Uncertainty(phase, both("strain"), samples, source, both("amplitude"), all_deviations(), slope_factor)


def with_half_data(reconstruction: Reconstruction, config: PhasingConfig) -> Generator[Progress, None, Reconstruction]:
    """Add to a reconstruction the Fourier shell correlation between crystals from two halves of the counts.

    The value of this generator is the reconstruction with the correlation. Each photon goes to one half or the other, so the noise
    of the halves is independent. Each half is phased like the whole counts, with seeds of its own. This takes twice as long as the
    phasing of the whole counts.

    Raises
    ------
    DataError : if the reconstruction has no ensemble of starts, or is not on the grid of its counts.
    """
    volume, ensemble = reconstruction.volume, reconstruction.ensemble
    if ensemble is None or reconstruction.frame != "detector":
        raise DataError("half-data resolution needs the counts that were phased and their starts.")
    reference = torch.from_numpy(reconstruction.rho)
    fields = []
    for number, half in enumerate(halves(volume.intensity, config.seed)):
        part = yield from phase(replace(volume, intensity=half), replace(config, seed=config.seed + 1000 * (number + 1)))
        fields.append(metrics.align(torch.from_numpy(part.rho), reference).field)
    basis = None if volume.reciprocal_basis is None else torch.from_numpy(np.asarray(volume.reciprocal_basis))
    number_of, _ = metrics.shells(torch.Size(volume.shape), len(ensemble.prtf_frequency), basis)
    curve = shell_correlation(fields[0], fields[1], number_of).numpy()
    return replace(reconstruction, ensemble=replace(ensemble, fsc=curve, fsc_between="half data"))


def halves(intensity: FloatArray, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Split the I photons of each voxel at random into Binomial(I, 1/2) and the rest; a fraction of a photon is shared evenly."""
    counts = np.floor(np.maximum(intensity, 0))
    first = np.random.default_rng(seed).binomial(counts.astype(np.int64), 0.5)
    rest = (intensity - counts) / 2
    return (first + rest).astype(np.float32), (counts - first + rest).astype(np.float32)
