r"""Estimate the flat field of a detector from the scan itself, where none is given and the detector is seen to count unevenly.

Rounds of two steps: phase the counts divided by the gains so far, and take new gains from the raw counts and the crystal's
intensities (`braggshot.physics.gain`). Half the logarithm of the new gains and half that of the old ones make the next.

Held-out voxels belong to neither step. They decide whether the gains are kept: they must be predicted better, on the raw counts,

.. math:: D = \bigl\langle d(g_{zp} M_{zp},\, I_{zp}) \bigr\rangle_\text{held out}

with half the Poisson deviance d, than by the crystal phased without gains, whose g is 1. The gain g of a voxel is told only by the
frames that are more than a speckle away from it, so that a gain which makes up for a fault of the model here and there does not
help: only what the pixel does in all frames helps.

Gains belong to pixels of the detector, not of the window, which may move between rounds. From the first gains on the window stays,
and with it the held-out voxels.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from braggshot.iterative.iterate import Progress
from braggshot.iterative.projections import held_out_voxels
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import Trained, phase
from braggshot.physics.forward import PointSpread, intensity
from braggshot.physics.gain import GainSpread, far_gains, measure_spread, pixel_gains
from braggshot.physics.metrics import half_deviance
from braggshot.physics.sampling import oversampling
from braggshot.prepare import PrepareConfig, prepare
from braggshot.prepare.window import cut
from braggshot.volumes import BoolArray, DiffractionVolume, FloatArray, Reconstruction, Scan

LEAST = 0.08  # least spread of the gains for which they are estimated; a smaller one is mostly background and model [1]
ROUNDS = 5  # largest number of rounds
DAMPING = 0.5  # share of the old gains in the next ones [1]
SAME = 0.01  # share by which a round must lower the misfit of the held-out voxels for another one to follow [1]
LOWERED = 0.05  # least share by which gains must lower the misfit of the held-out voxels to be kept [1]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SelfFlat:
    """What came of the estimate: the volume divided by the gains, None if they are not kept, and what was found, in words.

    `is_uneven` is True where the detector is seen to count unevenly.
    """

    volume: DiffractionVolume | None
    said: str
    is_uneven: bool = False

    def refuse(self, why: str) -> SelfFlat:
        """Take the gains back, for a reason in words."""
        return SelfFlat(None, f"{self.said}; not used, because {why}", self.is_uneven)


@dataclass(frozen=True)
class _Round:
    """Gains (y, x) by one crystal, their spread, and the misfit of the held-out voxels without and with gains (per voxel)."""

    gain: Floats
    spread: GainSpread
    plain: float
    misfit: float


def estimate_flat(
    scan: Scan, found: Reconstruction, preparation: PrepareConfig, phasing: PhasingConfig, network: Trained | None = None
) -> Generator[Progress, None, SelfFlat | None]:
    """Estimate the gains of a scan without a flat field from its counts and a first crystal; None if nothing is to be said.

    Where the gains spread too little to matter, nothing is phased.

    Parameters
    ----------
    scan : the scan
    found : crystal that was found without gains
    preparation, phasing : settings of both stages
    network : the network that the settings name, if it is in memory already
    """
    if not _is_asked_for(scan, found, preparation, phasing):
        return None
    assert found.volume.window is not None
    if found.volume.window.binning[1:] != (1, 1):
        return SelfFlat(None, "none was given; the gains of pixels cannot be told, because pixels are binned")
    first = _judge_round(found, found.volume, phasing)
    if first.spread.fixed < LEAST:
        return SelfFlat(None, f"none was given, and pixels do not seem to need one: {_describe(first.spread)}")
    if found.verdict == "good":
        return SelfFlat(None, f"none was given, and the crystal is good without one: {_describe(first.spread)}", is_uneven=True)
    # What unequal pixels leave of misfit is no reason to refine for longer, which takes minutes of a large scan.
    quick = replace(phasing, method="refine", deepen_excess=math.inf, partial_coherence="off" if found.psf is None else "on")
    moved, gain = _prepare_with(scan, preparation, _on_detector(first.gain**DAMPING, found.volume))
    raw, plain = replace(moved, intensity=moved.intensity * gain), first.plain
    has_moved = raw.window != found.volume.window or not np.array_equal(raw.valid, found.volume.valid)
    if has_moved:
        plain = _judge_round((yield from phase(raw, quick, network=network)), raw, phasing).plain
    best, kept = None, gain
    for number in range(ROUNDS):
        crystal = yield from phase(_divided(raw, gain), quick, network=network)
        this = _judge_round(crystal, raw, phasing)
        if best is not None and this.misfit >= best.misfit:
            break
        gained = math.inf if best is None else 1 - this.misfit / best.misfit
        share = 0.0 if has_moved and number == 0 else DAMPING  # gains of another window may know voxels that are held out in this
        best, kept = this, gain**share * this.gain ** (1 - share)
        gain = kept
        if gained < SAME:
            break
    assert best is not None
    better = 1 - best.misfit / plain
    told = f"{_describe(best.spread)}; voxels kept from it are predicted {100 * better:.0f} % better with it"
    if better < LOWERED:
        return SelfFlat(None, f"none was given, and an estimate from the scan itself was not kept: {told}", is_uneven=True)
    volume = replace(_divided(raw, kept), gain=_on_detector(kept, raw))
    return SelfFlat(volume, f"none was given, so it was estimated from the scan itself: {told}", is_uneven=True)


def say_flat(found: Reconstruction, flat: SelfFlat) -> Reconstruction:
    """Say in a result what came of the estimate; where the detector counts unevenly, the user is to notice it."""
    found = replace(found, choices={**found.choices, "flat field": flat.said})
    if not flat.is_uneven:
        return found
    noticed = (*found.volume.provenance.get("noticed", ()), f"the detector counts unevenly; flat field: {flat.said}")
    volume = replace(found.volume, provenance={**found.volume.provenance, "noticed": noticed})
    missing = "the detector counts unevenly, and no flat field was given: measure one (input.flat)."
    reasons = found.reasons if found.verdict == "good" else (*found.reasons, missing)
    return replace(found, volume=volume, reasons=reasons)


def is_uneven(scan: Scan, preparation: PrepareConfig, phasing: PhasingConfig, found: Reconstruction) -> bool:
    """Tell whether gains are to be estimated, because the detector is seen to count unevenly and no flat field is given."""
    window = found.volume.window
    if not _is_asked_for(scan, found, preparation, phasing) or window is None or window.binning[1:] != (1, 1):
        return False
    return _judge_round(found, found.volume, phasing).spread.fixed >= LEAST


def _is_asked_for(scan: Scan, found: Reconstruction, preparation: PrepareConfig, phasing: PhasingConfig) -> bool:
    """Tell whether gains may be estimated: no flat field is given, and there is a crystal and held-out voxels to judge them by."""
    fixed = scan.prepared or scan.provenance.get("pixels_mixed", False)  # in a sum of moved repeats pixels lie on others
    wanted = preparation.self_flat == "auto" and scan.flat is None and not fixed and not preparation.subvoxel
    return wanted and phasing.method != "oneshot" and phasing.free_fraction > 0 and bool(found.support.any())


def _judge_round(found: Reconstruction, raw: DiffractionVolume, phasing: PhasingConfig) -> _Round:
    """Take gains from the raw counts and a crystal, and see how well both predict the held-out voxels."""
    psf = None if found.psf is None else PointSpread(tuple(found.psf["sigma"]), float(found.psf["eta"]))
    model = intensity(torch.from_numpy(found.rho), psf).numpy().astype(np.float64)
    held = held_out(raw.valid, phasing)
    seen, speckle = raw.valid & ~held, (found.volume.oversampling or (2.0, 2.0, 2.0))[0]
    spread = measure_spread(raw.intensity, model, seen, speckle)
    far = far_gains(raw.intensity, model, seen, spread, speckle) * model
    plain, misfit = (held_out_misfit(raw.intensity, one, seen, held) for one in (model, far))
    return _Round(pixel_gains(raw.intensity, model, seen, spread), spread, plain, misfit)


def held_out_misfit(counts: FloatArray, model: Floats, seen: BoolArray, held: BoolArray) -> float:
    """Return half the deviance per held-out voxel, of a model scaled to the counts of the voxels seen."""
    scale = counts[seen].sum(dtype=np.float64) / max(float(model[seen].sum()), 1e-30)
    expected = torch.from_numpy(scale * model[held])
    return float(half_deviance(expected, torch.from_numpy(counts[held].astype(np.float64))).mean())


def held_out(valid: BoolArray, phasing: PhasingConfig) -> BoolArray:
    """Return the voxels that `phase` holds out of a volume with these valid voxels."""
    generator = torch.Generator().manual_seed(phasing.seed)
    drawn = held_out_voxels(
        torch.from_numpy(np.ascontiguousarray(valid)), phasing.free_fraction, phasing.free_radius, phasing.free_exclusion,
        generator=generator,
    )  # fmt: skip
    return np.asarray(drawn.numpy() & valid)


def _prepare_with(scan: Scan, preparation: PrepareConfig, gain: Floats) -> tuple[DiffractionVolume, Floats]:
    """Prepare a scan again, with the gains of all pixels and with pixels unbinned; return also the gains in the new window."""
    volume = prepare(scan, preparation, gain)
    assert volume.window is not None
    if volume.window.binning[1:] != (1, 1):
        volume = prepare(scan, replace(preparation, binning=(volume.window.binning[0], 1, 1)), gain)
    assert volume.window is not None
    return volume, 1 + cut(gain - 1, volume.window.start[1:], volume.shape[1:])


def _on_detector(gain: Floats, volume: DiffractionVolume) -> Floats:
    """Place the gains of a window's pixels on the detector; 1 outside the window."""
    assert volume.window is not None
    row, column = volume.window.start[1:]
    return np.asarray(1 + cut(gain - 1, (-row, -column), volume.window.raw_shape[1:]))


def _divided(raw: DiffractionVolume, gain: Floats) -> DiffractionVolume:
    """Divide raw counts by gains (y, x), and measure the oversampling again, which a fixed pattern falsifies."""
    counts = (raw.intensity / gain).astype(np.float32)
    return replace(raw, intensity=counts, oversampling=oversampling(counts, raw.valid))


def _describe(spread: GainSpread) -> str:
    return f"gains of {spread.pixels} pixels spread by {100 * spread.fixed:.0f} %"
