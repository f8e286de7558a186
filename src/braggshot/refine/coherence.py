"""Partial coherence, estimated while phasing: the point spread that turns |F|^2 into what was measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from braggshot.physics.forward import PointSpread, mutual_coherence, spread
from braggshot.physics.fourier import AXES
from braggshot.refine.projections import Measured

# A mild blur, from which the fit can go either way [reciprocal voxels]. No fit begins below it: the slope in ln(sigma) dies as
# sigma^2, so that an object once fitted without blur would never gain any.
_LEAST_FIRST_SIGMA = 0.3
_STEPS = 12


@dataclass(frozen=True)
class Coherence:
    """Point spread of each start and its transform on the half grid, (batch, z, y, x // 2 + 1)."""

    spreads: tuple[PointSpread, ...]
    transfer: Tensor

    @classmethod
    def fitted(cls, rho: Tensor, data: Measured, previous: Coherence | None, shape: str = "gaussian") -> Coherence:
        r"""Fit :math:`\sum_{seen} (\sqrt{|F|^2 * p} - \sqrt{I})^2` over the widths (and Lorentzian share) of p.

        Parameters
        ----------
        rho : (batch, z, y, x) complex, zero outside the support, corner layout
        previous : estimate to start from
        shape : "gaussian" or "pseudo-voigt"
        """
        coherent = torch.fft.fftn(rho, dim=AXES, norm="ortho").abs().square()
        starts = [PointSpread((0.0,) * 3)] * rho.shape[0] if previous is None else list(previous.spreads)
        spreads = tuple(_fit(c, data, start, shape) for c, start in zip(coherent, starts, strict=True))
        transfer = [
            mutual_coherence(torch.tensor(s.sigma, device=rho.device), torch.tensor(s.eta, device=rho.device), data.shape)
            for s in spreads
        ]
        return cls(spreads, torch.stack(transfer))


def _fit(coherent: Tensor, data: Measured, start: PointSpread, shape: str) -> PointSpread:
    log_sigma = torch.tensor(start.sigma, device=coherent.device).clamp_min(_LEAST_FIRST_SIGMA).log().requires_grad_()
    share = torch.logit(torch.tensor(start.eta, device=coherent.device).clamp(0.02, 0.98)).requires_grad_()
    voigt = shape == "pseudo-voigt"
    parameters = [log_sigma, share] if voigt else [log_sigma]
    none = coherent.new_zeros(())
    seen = torch.ones(data.magnitude.numel(), dtype=torch.bool, device=coherent.device)
    seen = seen.index_fill_(0, data.floating, False).view(data.shape)
    optimiser = torch.optim.LBFGS(parameters, max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        coherence = mutual_coherence(log_sigma.exp(), torch.sigmoid(share) if voigt else none, data.shape)
        model = spread(coherent, coherence)
        misfit = ((model + 1e-6).sqrt() - data.magnitude).square()
        total = (misfit * seen).sum() / data.photons
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    # Wider than a few voxels means that the model explains its own failures by blur; narrower than this is full coherence.
    z, y, x = log_sigma.detach().exp().clamp(1e-3, 4.0).tolist()
    return PointSpread((z, y, x), float(torch.sigmoid(share.detach())) if voigt else 0.0)
