r"""Measure misfits, align up to the trivial ambiguities, and compare several reconstructions.

F is the transform of rho * support, I are the counts, c is the best scale, and sums and means <> are over valid voxels:

.. math::
    c = \frac{\sum \sqrt{I}\,|F|}{\sum |F|^2}, \quad
    \chi^2 = \frac{\sum (c|F| - \sqrt{I})^2}{\sum I}, \quad
    R = \frac{\sum |c|F| - \sqrt{I}|}{\sum \sqrt{I}}, \quad
    \mathrm{llk} = \left\langle I_c - I + I \ln \frac{I}{I_c} \right\rangle, \; I_c = c^2 |F|^2

llk is half the Poisson deviance per voxel: 0.5 is the noise floor at high counts. llk_free is the same mean over voxels that the
phasing never saw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from braggshot.physics.fourier import fourier, frequencies, to_corner

# Lower limit of the modelled intensity [photons]. Without it a model of zero where photons were counted would have a log-likelihood
# of minus infinity. The limit is far below one photon, so it only bounds the penalty of single voxels. PyNX has such a limit too.
_MODEL_FLOOR = 1e-6


@dataclass(frozen=True)
class Misfit:
    """Misfits chi2 and R of a model to the counts, its scale c, and its scaled magnitude c|F| [sqrt(photons)]."""

    scale: float
    chi2: float
    r_factor: float
    magnitude: Tensor


def misfit(magnitude: Tensor, intensity: Tensor, valid: Tensor) -> Misfit:
    """Compute chi2 and R of a model magnitude |F| against measured counts, (z, y, x) each, same layout.

    Raises
    ------
    ValueError : if no valid voxel holds a count, or the model is zero on all of them.
    """
    model = magnitude[valid].double()
    measured = intensity[valid].double().clamp_min(0).sqrt()
    power, photons = model.square().sum(), measured.square().sum()
    if photons == 0 or power == 0:
        raise ValueError("no counts on the valid voxels, or a model that is zero on all of them")
    scale = (measured * model).sum() / power
    difference = scale * model - measured
    return Misfit(
        scale=float(scale),
        chi2=float(difference.square().sum() / photons),
        r_factor=float(difference.abs().sum() / measured.sum()),
        magnitude=magnitude * float(scale),
    )


def half_deviance(model: Tensor, intensity: Tensor) -> Tensor:
    """Compute half the Poisson deviance of each voxel, I_c - I + I ln(I / I_c), for the model I_c and the counts I [1]."""
    model = model.double().clamp_min(_MODEL_FLOOR)
    counts = intensity.double()
    return model - counts + torch.special.xlogy(counts, counts / model)


def magnitude_noise_floor(rates: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    r"""Find the mean square error of magnitudes by photon noise, :math:`\langle (\sqrt{k} - \sqrt{\lambda})^2 \rangle` [photons].

    The mean is over Poisson distributed counts k, for each expected count lambda in `rates`. The mean is 1/4 for large lambda and
    nearly 2 lambda for small lambda. It is interpolated in a table.
    """
    k, known = np.arange(120)[:, None], np.geomspace(1e-4, 50, 200)
    # scipy.stats has it too, but its import takes longer than a forward pass.
    probability = np.exp(special.xlogy(k, known) - known - special.gammaln(k + 1))
    spread = (probability * (np.sqrt(k) - np.sqrt(known)) ** 2).sum(0)
    return np.interp(rates, known, spread, left=0.0)


def excess_misfit(model: Tensor, intensity: Tensor) -> float:
    r"""Compute the misfit without the part of photon noise, :math:`\sqrt{(\sum (|F| - \sqrt I)^2 - \sum f(|F|^2)) / \sum I}` [1].

    |F|^2 is the intensity of the model, I are the counts, and f is the mean square error by photon noise, `magnitude_noise_floor`.

    Parameters
    ----------
    model, intensity : intensity |F|^2 of the model, at the scale of the counts, and the counts I of the same voxels [photons];
        without a count the result is nan
    """
    rates, counts = model.double().clamp_min(0), intensity.double().clamp_min(0)
    photons = float(counts.sum())
    if not photons:
        return math.nan
    misfit = float((rates.sqrt() - counts.sqrt()).square().sum()) - float(magnitude_noise_floor(rates.numpy()).sum())
    return math.sqrt(max(0.0, misfit) / photons)


@dataclass(frozen=True)
class Alignment:
    """Result of the alignment of a complex field to a reference field.

    Parameters
    ----------
    field : the aligned field, on the reference's grid
    correlation : |<reference, field>| / (|reference| |field|) after alignment, 0 to 1 [1]
    shift : translation that was applied, per axis (z, y, x) [voxels]
    twin : True if the field was replaced by its conjugate inversion
    """

    field: Tensor
    correlation: float
    shift: tuple[float, float, float]
    twin: bool


def align(field: Tensor, reference: Tensor, *, allow_twin: bool = True) -> Alignment:
    r"""Remove global phase, translation (sub-voxel) and twin of `field` with respect to `reference`.

    Maximises :math:`|C(s)|`, :math:`C(s) = \sum_k \overline{R_k} F_k e^{-2 \pi i\, k \cdot s / N}`, over the shift s, where R and F
    are the transforms of `reference` and `field`: first on the voxel grid, then by Newton steps on the continuous sum.

    Parameters
    ----------
    field, reference : complex (z, y, x), both with the origin at the same voxel
    allow_twin : also try the conjugate inversion of `field`

    Raises
    ------
    ValueError : if the shapes differ or one of the two is zero everywhere.
    """
    if field.shape != reference.shape:
        raise ValueError(f"cannot align shape {tuple(field.shape)} to {tuple(reference.shape)}")
    norm = torch.linalg.vector_norm(torch.view_as_real(field)) * torch.linalg.vector_norm(torch.view_as_real(reference))
    if norm == 0:
        raise ValueError("cannot align: a field is zero everywhere")
    transform, target = torch.fft.fftn(field, norm="ortho"), torch.fft.fftn(reference, norm="ortho")
    # Conjugate inversion about index 0 is plain conjugation of the transform; the shift search absorbs the choice of origin.
    candidates = [(transform, False), (transform.conj().resolve_conj(), True)][: 2 if allow_twin else 1]
    best: tuple[float, Tensor, Tensor, bool] | None = None
    for candidate, twin in candidates:
        shift, correlation = _best_shift(target.conj() * candidate)
        if best is None or correlation > best[0]:
            best = (correlation, shift, candidate, twin)
    assert best is not None
    correlation, shift, candidate, twin = best
    moved = torch.fft.ifftn(candidate * _ramp(field.shape, shift), norm="ortho")
    overlap = (moved.conj() * reference).sum()
    return Alignment(
        field=moved * (overlap / overlap.abs()),
        correlation=float(overlap.abs() / norm),
        shift=(float(shift[0]), float(shift[1]), float(shift[2])),
        twin=twin,
    )


def _ramp(shape: torch.Size, shift: Tensor) -> Tensor:
    phase = sum(-2 * math.pi * s * f for s, f in zip(shift.tolist(), frequencies(shape, shift.device), strict=True))
    assert isinstance(phase, Tensor)
    return torch.polar(torch.ones_like(phase), phase)


def _best_shift(product: Tensor, newton_steps: int = 4) -> tuple[Tensor, float]:
    """Find the shift s that maximises |sum_k product_k exp(-2 pi i k.s)| over frequencies k, and that maximum."""
    shape = product.shape
    # ifftn evaluates the sum at the shifts -s; index n there is the shift -n.
    grid = torch.fft.ifftn(product, norm="forward").abs()
    # torch.unravel_index would import sympy, which takes a second and 90 000 objects.
    peak = np.unravel_index(int(grid.argmax()), shape)
    whole = [int(n - p if p > n // 2 else -p) for p, n in zip(peak, shape, strict=True)]
    shift = torch.tensor(whole, dtype=torch.float64, device=product.device)
    best, highest = shift, 0.0
    # Only the strong voxels matter to where the maximum lies, and the sub-voxel search then costs next to nothing.
    size = product.abs().reshape(-1)
    strong = torch.nonzero(size > 1e-4 * size.max()).squeeze(1)
    weights = product.reshape(-1)[strong].to(torch.complex128)
    coordinates = torch.stack([f.expand(shape).reshape(-1)[strong] for f in frequencies(shape, product.device)]).double()
    # Plain sums, no matrix products: how BLAS groups its sums depends on where an array lies in memory, and a result shall not.
    for _ in range(newton_steps + 1):
        terms = weights * torch.exp(-2j * math.pi * (coordinates * shift[:, None]).sum(0))
        total = terms.sum()
        if float(total.abs()) <= highest:
            break
        best, highest = shift, float(total.abs())
        first = -2j * math.pi * (coordinates * terms).sum(1)
        second = -4 * math.pi**2 * torch.stack([(coordinates * (row * terms)).sum(1) for row in coordinates])
        # |C|^2: gradient 2 Re(conj(C) C'), Hessian 2 Re(conj(C') C' + conj(C) C'').
        gradient = 2 * (total.conj() * first).real
        hessian = 2 * (torch.outer(first.conj(), first) + total.conj() * second).real
        # The pseudo-inverse leaves a direction alone along which nothing changes, as for a field of one voxel.
        shift = best - (torch.linalg.pinv(hessian, hermitian=True) @ gradient).clamp(-0.5, 0.5)
    return best, highest


def modes(fields: Tensor) -> tuple[Tensor, Tensor]:
    """Analyse aligned reconstructions (n, z, y, x) by PCA: modes (n, z, y, x), strongest first, and their weights (n,), sum 1.

    The modes are orthogonal. The sum of squares over all modes is the mean sum of squares of a reconstruction, and a weight is the
    share of a mode in that sum. A first weight above 0.9 means that the reconstructions agree.
    """
    n = fields.shape[0]
    flat = fields.reshape(n, -1)
    values, vectors = torch.linalg.eigh(flat.conj() @ flat.T / n)
    order = torch.argsort(values, descending=True)
    values, vectors = values[order].clamp_min(0), vectors[:, order]
    combined = (vectors.T @ flat) / math.sqrt(n)
    return combined.reshape(fields.shape), values / values.sum()


def shells(shape: torch.Size, n_shells: int, basis: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Assign the voxels to shells about the Bragg peak; return the number of each voxel's shell, and the radii of the shells.

    The peak is at index 0 (corner layout). Voxels beyond the last shell get -1. Radii are in 1/m if `basis` (3, 3; columns are the
    reciprocal voxel edges) is given, else in units of the Nyquist frequency of each axis. The last shell is the largest that fits
    into the array on every axis.
    """
    axes = [f.expand(shape) * 2 for f in frequencies(shape)]
    if basis is None:
        radius, limit = torch.stack(axes).square().sum(0).sqrt(), 1.0
    else:
        edges = basis.double() @ torch.diag(torch.tensor([n / 2 for n in shape], dtype=torch.float64))
        radius = torch.einsum("ij,jzyx->izyx", edges, torch.stack(axes).double()).square().sum(0).sqrt()
        limit = float(1 / torch.linalg.inv(edges).square().sum(1).sqrt().max())
    number = torch.floor(radius / limit * n_shells).long()
    number[number >= n_shells] = -1
    return number, (torch.arange(n_shells) + 0.5) * (limit / n_shells)


def prtf(mean_field: Tensor, intensity: Tensor, valid: Tensor, number: Tensor) -> Tensor:
    r"""Compute the phase retrieval transfer function (PRTF) on shells.

    .. math:: \mathrm{PRTF}(q) = \frac{\sum_{shell} |\langle F \rangle|}{\sum_{shell} \sqrt{I}}

    F is the transform of an aligned start, <> the mean over the starts, I are the counts; sums are over valid voxels.

    Parameters
    ----------
    mean_field : mean over aligned starts of rho * support, centred at N // 2 [sqrt(photons)]
    intensity, valid : measurement, centred at N // 2 [photons]
    number : shell of each voxel from `shells` (corner layout)
    """
    magnitude = to_corner(fourier(mean_field).abs())
    measured, trusted = to_corner(intensity).clamp_min(0).sqrt(), to_corner(valid) & (number >= 0)
    count = int(number.max()) + 1
    total = torch.zeros(count, dtype=torch.float64).index_add_(0, number[trusted], magnitude[trusted].double())
    reference = torch.zeros(count, dtype=torch.float64).index_add_(0, number[trusted], measured[trusted].double())
    return total / reference.clamp_min(1e-30)
