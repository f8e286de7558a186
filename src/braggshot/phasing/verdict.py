"""Judge how far to trust a reconstruction: ``good``, ``doubtful`` or ``failed``, with reasons that say what to do.

Each check looks for faults that are known to occur, and yields a `Finding` for each fault; the verdict is that of the worst fault.
The limits were calibrated on simulated successes and failures (see "What the verdict means" in the documentation).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy import ndimage

from braggshot.physics.metrics import magnitude_noise_floor
from braggshot.physics.unmeasured import undetermined_share, unmeasured_share
from braggshot.volumes import Agreement, BoolArray, ComplexArray, DiffractionVolume, FloatArray, Quality, Reconstruction

Verdict = Literal["good", "doubtful", "failed"]
_ORDER: dict[Verdict, int] = {"good": 0, "doubtful": 1, "failed": 2}


@dataclass(frozen=True)
class Limits:
    """Limits between `good`, `doubtful` and `failed`.

    Parameters
    ----------
    agreement : aligned complex correlation from which two starts count as the same crystal [1]
    stuck_ratio : a start is stuck if its llk_free, the misfit of the held-out voxels, is more than this times that of the chosen
        start; stuck starts are left out when agreement is counted [1]
    tie_margin : a start whose llk_free exceeds the lowest one by at most this share is chosen if most starts agree with it and
        not with the start of lowest llk_free; starts that agree with the chosen one within this share are averaged [1]
    agreeing_good, agreeing_failed : share of the other starts, without stuck ones, that agree with the chosen start; the verdict
        is failed below `agreeing_failed`, else doubtful up to `agreeing_good` [1]
    one_witness : llk_free above which the verdict is doubtful if one other start alone agrees with the chosen one; "auto" holds
        small tournaments to confirm a crystal up to it, and large ones above [1]
    alone : llk_free up to which a crystal is good that no other start gives, if two others or more are stuck (`is_alone`) [1]
    excess_good, excess_failed : misfit of the magnitudes beyond photon noise, sqrt(chi2 - noise floor): doubtful above the first
        limit, failed above the second [1]
    free_good, free_failed : ratio of llk_free, the misfit of the held-out voxels, to llk, the misfit of the phased ones: doubtful
        above the first limit, failed above the second [1]
    free_excess : misfit of held-out magnitudes beyond photon noise (`metrics.excess_misfit`) above which the verdict is doubtful
        [1]
    wide_psf_excess : the same misfit above which the verdict is doubtful where the point spread of the beam is as wide as the
        speckles (`partial_coherence.WIDE`), which lets wrong crystals agree [1]
    llk_free : llk_free above which the verdict is doubtful, even if the starts agree; photon noise alone gives about 0.5 [1]
    oversampling : oversampling per axis below which the verdict is doubtful, because phasing has too few equations [1]
    edge_share : the verdict is failed if the outermost voxels of the array hold more than this share of the sum of |rho|^2 [1]
    second_crystal : the verdict is doubtful if a second, separate part of the support holds more than this share of the sum of
        |rho|^2 [1]
    saturated : the peak counts as saturated if at least this many voxels share the highest count
    refined : an object of another program explains the counts if sqrt(chi2) is at most this times what a short refinement reaches
        from it [1]
    unmeasured, undetermined : the verdict is doubtful if more than the first share of the crystal's scattering falls on voxels
        without valid counts, and these leave more than the second share of the crystal open
        (`physics.unmeasured.undetermined_share`) [1]
    """

    agreement: float = 0.95
    stuck_ratio: float = 4.0
    tie_margin: float = 0.05
    agreeing_good: float = 0.5
    agreeing_failed: float = 0.1
    one_witness: float = 1.5
    alone: float = 1.0
    excess_good: float = 0.2
    excess_failed: float = 0.4
    free_good: float = 10.0
    free_failed: float = 100.0
    free_excess: float = 0.2
    wide_psf_excess: float = 0.03
    llk_free: float = 20.0
    oversampling: float = 2.0
    edge_share: float = 1e-3
    second_crystal: float = 0.03
    saturated: int = 4
    unmeasured: float = 0.08
    undetermined: float = 0.01
    refined: float = 1.5

    RENAMED: ClassVar[dict[str, str]] = {"rival": "stuck_ratio", "tie": "tie_margin", "unseen": "free_excess", "edge": "edge_share"}


@dataclass(frozen=True)
class Finding:
    """A fault that one check found: how bad it is, and what to do about it."""

    verdict: Verdict
    reason: str


def judge(
    volume: DiffractionVolume,
    rho: ComplexArray,
    support: BoolArray,
    quality: Quality,
    limits: Limits | None = None,
) -> tuple[Verdict, tuple[str, ...]]:
    """Judge a reconstruction: verdict and reasons, worst first; a good verdict has one reason that says why.

    Parameters
    ----------
    rho, support : (z, y, x), the crystal about the array's middle
    quality : misfits, and the number of starts that agree; without this number, a single start is assumed
    """
    limits = limits or Limits()
    agreeing = quality.agreeing or Agreement(0, 0, 0, limits.agreement)
    findings = _worst_first(*_agreement(agreeing, quality.llk_free, limits), *_by_counts(volume, rho, support, quality, limits))
    if not findings and not agreeing.others:
        return "good", (
            f"voxels kept from the phasing are predicted to photon noise (llk_free {quality.llk_free:.2g}), much better than by "
            f"the {agreeing.stuck} other starts, which are stuck.",
        )
    if not findings:
        rest = f" ({agreeing.stuck} more are stuck, and predict these much worse)" if agreeing.stuck else ""
        return "good", (
            f"{agreeing.same} of {agreeing.others} other starts give the same crystal, and voxels kept from the phasing are "
            f"predicted{rest}.",
        )
    return findings[0].verdict, tuple(finding.reason for finding in findings)


def judge_by_counts(
    volume: DiffractionVolume, rho: ComplexArray, support: BoolArray, quality: Quality, reached: float, limits: Limits | None = None
) -> tuple[Literal["explained", "doubtful", "failed"], tuple[str, ...]]:
    """Judge an object of another program by the counts alone, because its starts are not there to agree or not.

    Parameters
    ----------
    reached : chi2 after a short refinement from the object [1]

    Returns
    -------
    ``explained`` if no check finds a fault, else the verdict of the worst one; and the reasons, worst first.
    """
    limits = limits or Limits()
    misfit = f"sqrt(chi2) is {quality.chi2**0.5:.3f}, and a short refinement from the object reaches {reached**0.5:.3f}"
    findings = _worst_first(*_by_counts(volume, rho, support, quality, limits))
    if quality.chi2 > limits.refined**2 * reached:
        findings.append(
            Finding("doubtful", f"the object is not the best near it: {misfit}; phase it longer, or check its support.")
        )
    if findings:
        worst: Literal["doubtful", "failed"] = "failed" if findings[0].verdict == "failed" else "doubtful"
        return worst, tuple(finding.reason for finding in findings)
    return "explained", (f"the counts are explained: {misfit}. Whether independent starts agree is not known here.",)


def noise_floor(intensity: FloatArray, valid: BoolArray) -> float:
    r"""Estimate the chi2 that photon noise alone leaves, :math:`\sum_q f(\lambda_q) / \sum_q I_q`.

    I are the counts of the voxels q. f is the mean square error of a magnitude by photon noise at the expected count lambda
    (`metrics.magnitude_noise_floor`). The expected count of a voxel is the mean of the counts of the 3 x 3 x 3 voxels about it.
    """
    counts = np.where(valid, np.clip(intensity, 0, None), 0).astype(np.float64)
    total = counts.sum()
    if total == 0:
        return 0.0
    known = np.maximum(ndimage.uniform_filter(valid.astype(np.float64), 3), 1 / 27)
    mean = ndimage.uniform_filter(counts, 3) / known
    return float(magnitude_noise_floor(mean[valid]).sum() / total)


def in_company(agreeing: Agreement, limits: Limits) -> bool:
    """Tell whether enough of the other starts agree with the chosen one, by `Limits.agreeing_good`."""
    return agreeing.same > limits.agreeing_good * agreeing.others


def is_alone(llk_free: float, stuck: int, limits: Limits) -> bool:
    """Tell whether a crystal is good although no other start gives it.

    It is if it predicts the held-out voxels to photon noise, `Limits.alone`, and two starts or more are stuck. These show that the
    voxels tell right from wrong: where photons are few, any crystal predicts them to photon noise.
    """
    return llk_free <= limits.alone and stuck >= 2


def is_settled(result: Reconstruction, limits: Limits | None = None) -> bool:
    """Tell whether more starts cannot better the verdict: it is good, or all its reasons are faults of the measurement."""
    if result.verdict == "good":
        return True
    measurement = _of_measurement(result.volume, result.rho, result.support, limits or Limits())
    return set(result.reasons) <= {finding.reason for finding in measurement}


def _by_counts(
    volume: DiffractionVolume, rho: ComplexArray, support: BoolArray, quality: Quality, limits: Limits
) -> Iterator[Finding]:
    """Yield the faults that the counts and the object show, without any other start."""
    yield from _misfit(volume, quality, limits)
    yield from _of_measurement(volume, rho, support, limits)
    yield from _shape(rho, support, limits)


def _of_measurement(volume: DiffractionVolume, rho: ComplexArray, support: BoolArray, limits: Limits) -> Iterator[Finding]:
    """Yield the faults of the measurement, which no other start can mend."""
    yield from _frames(volume)
    yield from _sampling(volume, limits)
    yield from _saturation(volume, limits)
    yield from _unmeasured(volume, rho, support, limits)


def _worst_first(*findings: Finding) -> list[Finding]:
    return sorted(findings, key=lambda finding: -_ORDER[finding.verdict])


def _agreement(agreeing: Agreement, llk_free: float, limits: Limits) -> Iterator[Finding]:
    same, others, stuck = agreeing.same, agreeing.others, agreeing.stuck
    if others == 0 and stuck:
        if not is_alone(llk_free, stuck, limits):
            yield Finding(
                "doubtful",
                f"one start predicts the voxels kept from the phasing much better than the {stuck} others, which are stuck, but "
                "none confirms it: more starts may (phasing.max_tournaments = 12), or mask aliens and check the sampling.",
            )
    elif others == 0:
        yield Finding("doubtful", "only one start was phased, so nothing says that it is not a lucky one; use 5 starts or more.")
    elif same < limits.agreeing_failed * others:
        yield Finding(
            "failed",
            f"none of the {others} other starts gives the same crystal (correlation >= {agreeing.limit}); "
            "the phase is not determined: mask aliens, check the sampling, or try more iterations.",
        )
    elif not in_company(agreeing, limits):
        yield Finding(
            "doubtful",
            f"only {same} of {others} other starts give the same crystal (correlation >= {agreeing.limit}); "
            "more starts or a longer recipe may settle it.",
        )
    elif same == 1 and llk_free > limits.one_witness:
        yield Finding(
            "doubtful",
            "one other start gives the same crystal, which is enough only where voxels kept from the phasing are predicted to "
            f"photon noise (llk_free <= {limits.one_witness:g}, found {llk_free:.2g}); more starts may settle it.",
        )


def _misfit(volume: DiffractionVolume, quality: Quality, limits: Limits) -> Iterator[Finding]:
    floor = noise_floor(volume.intensity, volume.valid)
    excess = float(np.sqrt(max(0.0, quality.chi2 - floor)))
    ratio = quality.llk_free / max(quality.llk, 0.5) if np.isfinite(quality.llk_free) else 0.0
    unseen = quality.unseen if quality.unseen is not None and np.isfinite(quality.unseen) else 0.0
    if unseen > limits.free_excess or quality.llk_free > limits.llk_free:
        yield Finding(
            "doubtful",
            f"voxels kept from the phasing are missed by {100 * unseen:.0f} % beyond photon noise (llk_free "
            f"{quality.llk_free:.2g}): starts may agree on a wrong crystal; count longer, look for aliens, or try more starts.",
        )
    for value, good, failed, text in (
        (
            excess,
            limits.excess_good,
            limits.excess_failed,
            f"the crystal explains the magnitudes to {100 * excess:.0f} % beyond photon noise; "
            "look for aliens, a wrong mask, a drifting beam or partial coherence.",
        ),
        (
            ratio,
            limits.free_good,
            limits.free_failed,
            f"voxels kept from the phasing are predicted {ratio:.0f} times worse than those it saw: the support is too loose "
            "or the phases are wrong; try a higher refine.shrink_wrap.threshold or more starts.",
        ),
    ):
        if value > good:
            yield Finding("failed" if value > failed else "doubtful", text)


def _frames(volume: DiffractionVolume) -> Iterator[Finding]:
    if np.count_nonzero(((volume.intensity > 0) & volume.valid).any(axis=(1, 2))) < 2:
        yield Finding("failed", "only one frame holds counts, which says nothing of the third dimension; measure a rocking curve.")


def _sampling(volume: DiffractionVolume, limits: Limits) -> Iterator[Finding]:
    if volume.oversampling is None:
        return
    names = ("rocking", "row", "column")
    low = [f"{v:.1f} along {n}" for n, v in zip(names, volume.oversampling, strict=True) if v < limits.oversampling]
    if low:
        yield Finding(
            "doubtful",
            f"oversampling is {', '.join(low)} (needs {limits.oversampling:.0f}): use finer rocking steps, a longer distance, "
            "or less binning.",
        )


def _saturation(volume: DiffractionVolume, limits: Limits) -> Iterator[Finding]:
    counts = volume.intensity[volume.valid]
    highest = counts.max(initial=0)
    flat = int((counts == highest).sum())
    if highest > 100 and flat >= limits.saturated:
        yield Finding(
            "doubtful", f"{flat} voxels share the highest count ({highest:.0f}): the peak looks saturated; attenuate the beam."
        )
    peak = np.unravel_index(np.argmax(np.where(volume.valid, volume.intensity, 0)), volume.shape)
    near = volume.valid[tuple(slice(max(0, p - 1), p + 2) for p in peak)]
    if not near.all():
        yield Finding("doubtful", f"{int((~near).sum())} voxels next to the Bragg peak are masked; the crystal's size may be off.")


def _unmeasured(volume: DiffractionVolume, rho: ComplexArray, support: BoolArray, limits: Limits) -> Iterator[Finding]:
    if volume.valid.all() or volume.valid.shape != rho.shape:
        return
    hidden = unmeasured_share(rho, support, volume.valid)
    if hidden <= limits.unmeasured:
        return
    left_open = undetermined_share(rho, support, volume.valid)
    if left_open > limits.undetermined:
        yield Finding(
            "doubtful",
            f"{100 * hidden:.0f} % of the crystal's scattering falls where nothing was measured (the peak is cut by the frame, or "
            f"gaps cross it), which leaves at least {100 * left_open:.0f} % of the crystal open: size, shape and strain are partly "
            "made up; bring the whole peak onto the detector and into the scan.",
        )


def _shape(rho: ComplexArray, support: BoolArray, limits: Limits) -> Iterator[Finding]:
    power = np.abs(rho).astype(np.float64) ** 2
    total = power.sum()
    if total == 0 or not support.any():
        yield Finding("failed", "the reconstruction is empty.")
        return
    edge = np.ones(rho.shape, dtype=bool)
    edge[1:-1, 1:-1, 1:-1] = False
    if (support & edge).any() and power[edge].sum() / total > limits.edge_share:
        yield Finding("failed", "the support touches the edge of the array: the sampling is too coarse or the support ran away.")
    labels, count = ndimage.label(support)
    if count > 1:
        parts = np.sort(ndimage.sum_labels(power, labels, range(1, count + 1)))[::-1] / total
        if parts[1] > limits.second_crystal:
            yield Finding(
                "doubtful", f"a second crystal in the window holds {100 * parts[1]:.0f} % of the scattering; crop or mask it."
            )
