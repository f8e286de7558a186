r"""Judge a joint fit: predict each reflection from the others, and measure how much density, displacement and strain depend on one.

With four reflections or more each is left out once. The fit of the others predicts its counts; only the place of its peak in the
window, three numbers, is fitted. The sigma is that of the jackknife of least squares, from the fits :math:`x_{-j}` and the joint
one x, with the leverage h of each reflection:

.. math:: \sigma^2 = \sum_j (1 - h_j) (x_{-j} - x)^2, \qquad h_j = Q_j \cdot (Q^T Q)^{-1} Q_j

With two or three reflections none can be spared. The fit is then repeated against counts with new photon noise, and sigma is the
root mean square change. It holds no errors that all fits share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from braggshot.phasing.verdict import Limits
from braggshot.physics.metrics import excess_misfit
from braggshot.reflections import joint, tensor
from braggshot.reflections.joint import Crystal, Window
from braggshot.reflections.orientation import FLAT
from braggshot.reflections.tensor import Fields
from braggshot.volumes import FloatArray, Verdict

REDRAWN = 3  # number of fits to redrawn counts
STRANGER = 0.5  # misfit of the others without a reflection over their misfit with it, below which it does not belong to them [1]
SHAPES = 0.02  # least difference of the overlaps of a shape and its inversion that tells twins by the shape alone [1]


@dataclass(frozen=True)
class Sigma:
    """One sigma of displacement [m], strains [1] and rotations [rad], as in `tensor.Fields`, and where it comes from, in words."""

    displacement: FloatArray
    strain: FloatArray
    rotation: FloatArray
    source: str


@dataclass(frozen=True)
class Checks:
    """What the checks of a joint fit found.

    Parameters
    ----------
    missed : per reflection, by how much a prediction misses its magnitudes beyond photon noise: that of the fit without it, nan
        where the others lie in a plane; or, with fewer than four reflections, of its held-out voxels [1]
    predicted : True where reflections were left out, False where held-out voxels were compared
    stranger : the reflection that does not belong to the others, and the fit without it; None if all belong together
    sigma : None where it was not asked for
    """

    missed: tuple[float, ...]
    predicted: bool = False
    stranger: tuple[int, Crystal] | None = None
    sigma: Sigma | None = None


def leave_each_out(
    windows: Sequence[Window], starts: Sequence[Crystal], found: Crystal, fields: Fields, settings: tuple[int, float]
) -> Checks:
    """Fit all reflections but one, for each of them.

    Parameters
    ----------
    windows, found, fields : all reflections, and their joint fit
    starts : for each reflection left out, a start that does not use its phases
    settings : steps of each fit, and the expected bend of u
    """
    missed, ratios, fits, weights = [], [], [], []
    qs = np.stack([window.q.double().numpy() for window in windows])
    units, leverage = qs / np.linalg.norm(qs, axis=1, keepdims=True), np.diag(qs @ np.linalg.pinv(qs))
    for out, (window, start) in enumerate(zip(windows, starts, strict=True)):
        kept = [number for number in range(len(windows)) if number != out]
        if np.linalg.svd(units[kept])[1][-1] < FLAT:  # the others lie in a plane: what moves across it only this one sees
            missed.append(float("nan"))
            ratios.append(1.0)
            continue
        rest = [windows[number] for number in kept]
        fit = joint.refine(rest, replace(start, ramps=start.ramps[kept]), *settings)
        missed.append(predict(window, fit, start.ramps[out]))
        ratios.append(float(np.sqrt(np.mean(fit.misfits) / np.mean([found.misfits[number] for number in kept]))))
        fits.append(fit)
        weights.append(1 - leverage[out])
    stranger, lowest = None, int(np.argmin(ratios))
    if missed[lowest] > Limits().excess_failed and ratios[lowest] < STRANGER:
        stranger = (lowest, fits[lowest])
    if not fits:
        return Checks(tuple(missed), True)
    several = [tensor.derive(fit.displacement, fields.support, fit.voxel, fit.region, fit.base) for fit in fits]
    sigma = _spread(several, fields, weights)
    return Checks(
        tuple(missed), True, stranger, replace(sigma, source=f"jackknife over {len(fits)} fits that leave one reflection out")
    )


def redraw_counts(windows: Sequence[Window], found: Crystal, fields: Fields, settings: tuple[int, float], seed: int) -> Checks:
    """Fit counts with new photon noise, from the joint fit on, and compare the held-out voxels of each reflection."""
    generator = torch.Generator().manual_seed(seed)
    several = []
    for _ in range(REDRAWN):
        noisy = [
            replace(window, magnitude=torch.poisson(window.magnitude.square(), generator=generator).sqrt()) for window in windows
        ]
        fit = joint.refine(noisy, found, *settings)
        several.append(tensor.derive(fit.displacement, fields.support, fit.voxel, fit.region, fit.base))
    sigma = _spread(several, fields, [1 / REDRAWN] * REDRAWN)
    return Checks(
        tuple(missed_free(windows, found)), False, None, replace(sigma, source=f"photon noise: {REDRAWN} fits to redrawn counts")
    )


def _spread(several: Sequence[Fields], fields: Fields, weights: Sequence[float]) -> Sigma:
    """Compute sqrt(sum of w (x - joint)^2) of displacement, strain and rotation."""
    maps = [
        np.sqrt(sum(w * (getattr(one, name) - getattr(fields, name)) ** 2 for w, one in zip(weights, several, strict=True)))
        for name in ("displacement", "strain", "rotation")
    ]
    return Sigma(maps[0], maps[1], maps[2], "")


def predict(window: Window, crystal: Crystal, ramp: FloatArray, steps: int = 15) -> float:
    """Compare a reflection with a crystal that was fitted without it; only the place of its peak is fitted.

    Returns
    -------
    misfit of all valid magnitudes beyond photon noise [1]
    """
    nodes, size = joint.node_values(crystal), float(crystal.voxel * np.cbrt(crystal.region.sum()))
    place = torch.from_numpy(ramp * size).float().requires_grad_()
    optimizer = torch.optim.LBFGS([place], max_iter=steps, line_search_fn="strong_wolfe")
    field = joint.scatter(window, nodes, place.detach() / size)
    factor = float((window.magnitude[window.fitted].square().sum() / field.abs().square()[window.fitted].sum()).sqrt())
    photons = window.magnitude[window.fitted].square().sum()

    def close() -> torch.Tensor:
        optimizer.zero_grad()
        off, _ = joint.misfit_of(window, factor * joint.scatter(window, nodes, place / size), window.fitted)
        loss = off / photons * 1e3
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(close)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        field = joint.scatter(window, nodes, place / size)
    return _excess(window, field, window.fitted | window.free)


def missed_free(windows: Sequence[Window], crystal: Crystal) -> list[float]:
    """Return by how much the held-out magnitudes are missed beyond photon noise, per reflection [1]; nan without any."""
    fields = joint.amplitudes(windows, crystal)
    return [_excess(window, field, window.free) for window, field in zip(windows, fields, strict=True)]


def _excess(window: Window, field: torch.Tensor, where: torch.Tensor) -> float:
    model, measured = field.abs()[where].double(), window.magnitude[where].double()
    scale = (model * measured).sum() / model.square().sum()
    return excess_misfit((scale * model).square(), measured.square())


def judge(checks: Checks, names: Sequence[str], singles: Sequence[Verdict], shapes: float) -> tuple[Verdict, tuple[str, ...]]:
    """Judge the joint fit by predicted reflections (four or more) or by held-out voxels; the worst reason first.

    Parameters
    ----------
    checks, names : what was found, names of the scans
    singles : verdict on each reflection by itself
    shapes : least difference between the overlaps of a shape and its inversion
    """
    limits, missed = Limits(), np.array(checks.missed)
    if np.isnan(missed).all():
        return "doubtful", ("no reflection could be predicted from the others, so nothing tests the fit.",)
    worst = float(np.nanmax(missed))
    what = "a reflection left out of the fit is" if checks.predicted else "voxels kept from the fit are"
    said = f"{what} missed by {100 * worst:.0f} % beyond photon noise at most ({names[int(np.nanargmax(missed))]})"
    reasons: list[tuple[Verdict, str]] = []
    if not worst <= limits.free_excess:
        reasons.append(("failed" if worst > limits.excess_failed else "doubtful", f"{said}."))
    if checks.stranger is not None:
        name = names[checks.stranger[0]]
        text = f"{name} was left out: the others fit together without it and not with it; another grain, or it moved."
        reasons = [("doubtful", text)]
    if not checks.predicted and shapes < SHAPES:
        reasons.append(("doubtful", "the shape is nearly its own inversion, so it does not tell which twins belong together."))
    for name, verdict in zip(names, singles, strict=True):
        if verdict in ("failed", "doubtful") and not checks.predicted:
            reasons.append(("doubtful", f"{name} by itself is {verdict}, and no other reflection tests it."))
    if not reasons:
        return "good", (f"{said}.",)
    order = ("failed", "doubtful")
    reasons.sort(key=lambda one: order.index(one[0]))
    return reasons[0][0], tuple(text for _, text in reasons)
