"""Say in words, with the usual units, what the numbers of a reconstruction mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from braggshot.phasing.verdict import Limits
from braggshot.report.surface import bulk
from braggshot.volumes import Agreement, Dislocation, FloatArray, Reconstruction

# Table that turns the digits of an exponent into superscripts.
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

# Name of each coordinate frame in which a crystal is drawn; a crystal on the detector's voxels is drawn in the laboratory.
FRAMES = {"detector": "laboratory frame", "lab": "laboratory frame", "sample": "sample frame", "crystal": "crystal frame"}

# Sentences for each verdict: the headline says what it means, the advice says what to do next.
HEADLINES = {
    "good": "This reconstruction can be trusted.",
    "explained": "The counts are explained by this object of another program.",
    "doubtful": "Look before you use this reconstruction: something speaks against it.",
    "failed": "Do not interpret this reconstruction: the phase was not found.",
    "not judged": "Nothing tells yet how far to trust this object.",
}
ADVICE = {
    "good": "Read no feature finer than the resolution below; keep the settings for the next scan of this crystal.",
    "explained": "The counts cannot tell a lucky start from the crystal: compare independent starts in the program that phased it, "
    "or phase the scan with `braggshot reconstruct`.",
    "doubtful": "Follow the reasons above, then run again with more starts; what all starts agree on may already be real.",
    "failed": "Follow the reasons above and phase again; take neither shape nor strain from this one.",
    "not judged": "Wait until the scan is whole; if another program phased the object, give its raw scan, too: counts judge it.",
}


Word = tuple[str, Literal["good", "fair", "poor", ""]]
"""A word on how good a number is, and its kind; limits: `docs/verdict.md` and `docs/reading.md`."""


@dataclass(frozen=True)
class Fact:
    """Number of a reconstruction for the user.

    Parameters
    ----------
    name, value : what it is called, and the number with its unit
    note : one line that says how to read it
    word, kind : a word on how good the number is, empty where none can be said; and the kind of word
    """

    name: str
    value: str
    note: str = ""
    word: str = ""
    kind: Literal["good", "fair", "poor", ""] = ""


def remarks(reconstruction: Reconstruction) -> tuple[str, ...]:
    """List the reasons of the verdict, and after them what was noticed: what was left out, guessed or odd about the files."""
    return (*reconstruction.reasons, *(f"Noticed: {words}" for words in reconstruction.volume.provenance.get("noticed", ())))


def quality_facts(reconstruction: Reconstruction) -> tuple[Fact, ...]:
    """List the numbers that say how good a reconstruction is: misfits, agreement of the starts, resolution, oversampling."""
    quality, limits = reconstruction.quality, Limits()
    agreeing, misfit = quality.agreeing, math.sqrt(quality.chi2)
    times = reconstruction.volume.oversampling
    return (
        Fact("χ²", f"{number(quality.chi2)}  (√χ² = {percent(misfit)})", "misfit of the magnitudes", *_below(misfit, 0.1, 0.2)),
        Fact("R factor", percent(quality.r_factor), "Σ|c|F| − √I| / Σ√I", *_below(quality.r_factor, 0.1, 0.3)),
        Fact(
            "free log-likelihood",
            number(quality.llk_free),
            "of voxels held out of the phasing; 0.5 is the noise floor at high counts",
            *_below(quality.llk_free, 5.0, limits.llk_free),
        ),
        Fact(
            "starts that agree",
            agreement(agreeing),
            "" if agreeing is None else f"correlation ≥ {agreeing.limit:g} with the chosen one",
            *_agreeing_word(agreeing, limits),
        ),
        Fact("resolution", length(quality.resolution), "full period where the PRTF falls to 1/e"),
        Fact("oversampling", _times(times), "rocking × row × column; 2 is needed", *_sampling_word(times, limits)),
    )


def _below(value: float, good: float, poor: float) -> Word:
    """Return the word on a number that is better the lower it is: limits of what is good, and of what to look at twice."""
    if not math.isfinite(value):
        return "", ""
    return ("good", "good") if value < good else ("fair", "fair") if value <= poor else ("look twice", "poor")


def _agreeing_word(agreeing: Agreement | None, limits: Limits) -> Word:
    if agreeing is None or not agreeing.others:
        return ("all others are stuck" if agreeing and agreeing.stuck else "nothing confirms it"), "fair"
    share = agreeing.same / agreeing.others
    if share > limits.agreeing_good:
        return "most", "good"
    return ("half or fewer", "fair") if share >= limits.agreeing_failed else ("too few", "poor")


def _sampling_word(times: tuple[float, ...] | None, limits: Limits) -> Word:
    if times is None or not np.isfinite(times).all():
        return "", ""
    lowest = min(times)
    if lowest < limits.oversampling:
        return "too low", "poor"
    return ("enough", "good") if lowest >= 1.25 * limits.oversampling else ("just enough", "fair")


def crystal_facts(reconstruction: Reconstruction) -> tuple[Fact, ...]:
    """List the numbers that describe crystal and data: voxels, size, phase, counts and time."""
    volume, basis, support = reconstruction.volume, reconstruction.basis, reconstruction.support
    counts = volume.intensity[volume.valid]
    inside, masked = int(support.sum()), f"{percent(1 - float(volume.valid.mean()))} masked"
    facts = [
        Fact("grid", f"{_times(reconstruction.rho.shape)} voxels", f"{reconstruction.frame} frame"),
        Fact("voxel", "not known", "the file holds no geometry; lengths are in voxels"),
        Fact("support", f"{inside} voxels", f"{percent(inside / support.size)} of the grid"),
        Fact("phase inside", _phase_spread(reconstruction), "peak to valley of 98 % of the voxels, ramp included, wrapped to ±π"),
        Fact(
            "photons",
            number(float(counts.sum(dtype=np.float64))),
            f"brightest voxel {number(float(counts.max(initial=0)))}; {masked}",
        ),
        Fact("time", *_seconds(reconstruction)),
    ]
    if basis is not None:
        size = np.ptp(np.argwhere(support) @ basis.T, axis=0) + np.abs(basis).sum(axis=1) if inside else np.zeros(3)
        volume_nm3 = inside * abs(float(np.linalg.det(basis))) * 1e27
        facts[1] = Fact("voxel", f"{_times(np.linalg.norm(basis, axis=0) * 1e9)} nm", "edges along rocking × row × column")
        note = f"extent in z × y × x; volume {volume_nm3 * 1e-9:.3g} µm³, more than the crystal's"
        facts[2] = Fact("support", f"{_times(size * 1e9)} nm", note)
    return tuple(facts)


def dislocations(found: Sequence[Dislocation]) -> str:
    """Say in words how long the lines of dislocations are, and how often the phase turns around them; empty without lines."""
    said = [f"{'loop' if line.is_closed else 'line'} of {length(line.length)}, G·b = {line.winding}" for line in found[:3]]
    if len(found) < 2:
        return "".join(f"One dislocation {words}" for words in said)
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{len(found)} dislocations: {'; '.join(said)}{more}"


def agreement(agreeing: Agreement | None) -> str:
    """Say in words how many starts, besides the chosen start, give the same crystal."""
    if agreeing is None or not agreeing.others + agreeing.stuck:
        return "one start"
    stuck = f" ({agreeing.stuck} more are stuck)" if agreeing.stuck else ""
    return f"{agreeing.same} of {agreeing.others} others{stuck}"


def number(value: float, digits: int = 3) -> str:
    """Write three significant digits, or as many as asked, such as 0.93 or 6.38×10⁶; "not known" for NaN."""
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    if not math.isfinite(value):
        return "not known"
    return mantissa + ("×10" + str(int(exponent)).translate(SUPERSCRIPTS) if exponent else "")


def percent(value: float) -> str:
    """Write a share in percent."""
    return f"{100 * value:.3g}\N{NO-BREAK SPACE}%" if math.isfinite(value) else "not known"


def length(metres: float | None) -> str:
    """Write a length in nm."""
    return "not measured" if metres is None or not math.isfinite(metres) else f"{metres * 1e9:.3g} nm"


def _times(values: FloatArray | tuple[float, ...] | None) -> str:
    return "not measured" if values is None else " × ".join(f"{value:.3g}" for value in values)


def _phase_spread(reconstruction: Reconstruction) -> str:
    inside = reconstruction.rho[bulk(reconstruction.rho, reconstruction.support)]
    if not inside.size:
        return "no crystal"
    low, high = np.percentile(np.angle(inside * np.exp(-1j * np.angle(inside.sum()))), (1, 99))
    return f"{high - low:.2f} rad"


def _seconds(reconstruction: Reconstruction) -> tuple[str, str]:
    """Write the total time and the time of each stage; the entry "total", if there is one, is the measured total time."""
    stages = {stage: seconds for stage, seconds in reconstruction.seconds.items() if stage != "total"}
    total = reconstruction.seconds.get("total", sum(stages.values()))
    return f"{total:.1f} s", ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in stages.items())
