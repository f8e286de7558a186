r"""Run one step of an algorithm, and find the steps that a recipe names.

A step replaces the object rho as the table says. S is the support, P_S and P_M are the projections onto support and modulus, and
beta is the relaxation parameter, in the notation of Marchesini, Rev. Sci. Instrum. 78, 011301 (2007):

=====  ======================================  =======================================
step   inside S                                outside S
=====  ======================================  =======================================
ER     P_M rho                                 0
HIO    P_M rho                                 rho - beta P_M rho
RAAR   P_M rho                                 beta rho + (1 - 2 beta) P_M rho
DM     rho + beta [P_S f_M - P_M f_S] rho,     f_M = P_M + (P_M - 1) / beta,  f_S = P_S - (P_S - 1) / beta
ML     conjugate gradient of the Poisson likelihood, rho confined to S
=====  ======================================  =======================================

ER, HIO and RAAR are linear in rho and P_M rho, and equal inside S, so they share one function. A step changes a `State` in place.
Other packages add steps by the entry-point group ``braggshot.steps``: a function is a step that counts as an iteration, and an
`Action` is a step that runs between two iterations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Literal

import torch
from torch import Tensor

from braggshot.errors import ConfigError
from braggshot.iterative.coherence import Coherence
from braggshot.iterative.kernels import relax, squared_modulus
from braggshot.iterative.projections import Measured, ShrinkWrap, project_modulus, shrink_wrap
from braggshot.physics.fourier import AXES


@dataclass(frozen=True)
class StepConfig:
    """Settings of the steps of a recipe.

    Parameters
    ----------
    beta : relaxation of HIO, RAAR and DM [1]
    shrink_wrap : settings of the support updates
    psf : "gaussian" or "pseudo-voigt", the shape of the point spread that the step PSF fits
    flatness : how far the step FLAT evens out the amplitude: 0 leaves it as it is, 1 makes it the same everywhere [1]
    """

    beta: float = 0.9
    shrink_wrap: ShrinkWrap = field(default_factory=ShrinkWrap)
    psf: Literal["gaussian", "pseudo-voigt"] = "gaussian"
    flatness: float = 0.5


@dataclass
class State:
    """State of the starts of one batch while they are phased; each step of a recipe changes it in place.

    Parameters
    ----------
    rho : (batch, z, y, x) complex64, corner layout (origin at index 0) [sqrt(photons)]
    support : (batch, z, y, x) bool
    threshold : (batch,) shrink-wrap threshold of each start [1]
    generators : one random generator per start, so that a start does not depend on its batch
    progress : fraction of the recipe done [1]
    error : (batch,) sum (|F| - sqrt(I))^2 / sum I over the voxels that the phasing sees [1]; F is the transform of rho, I the
        counts
    coherence : estimated point spread, None while full coherence is assumed
    """

    rho: Tensor
    support: Tensor
    threshold: Tensor
    generators: list[torch.Generator]
    progress: float = 0.0
    error: Tensor | None = None
    wants_error: bool = False
    coherence: Coherence | None = None
    gradient: ConjugateGradient | None = None
    share: list[float] | None = None

    @property
    def support_fraction(self) -> list[float]:
        """Share of the array inside the support, for each start; computed once for each support."""
        if self.share is None:
            self.share = self.support.float().mean(AXES).tolist()
        return self.share

    @property
    def transfer(self) -> Tensor | None:
        """Transform of the estimated point spread; None for full coherence."""
        return None if self.coherence is None else self.coherence.transfer

    def set_support(self, support: Tensor) -> None:
        """Replace the support, and discard what was computed from the old support."""
        self.support, self.gradient, self.share = support, None, None


# Lower limit of the model intensity by which the ML step divides the counts [photons]. Without it, a single count where the model
# is dark would dominate the gradient.
_DARK = 1e-2
_TINY = 1e-30  # small number that is added to a denominator, or limits it from below, so that nothing is divided by zero

Step = Callable[[State, Measured, StepConfig], None]


@dataclass(frozen=True)
class Action:
    """A step of a recipe that runs between two iterations, and is not counted as an iteration.

    Another package that adds such a step wraps the function of the step in an `Action`.
    """

    run: Step


def _relax(state: State, data: Measured, old: float, new: float) -> None:
    """Set rho to its modulus projection P inside the support, and to `old` times rho plus `new` times P outside."""
    _replace(state, project_modulus(state.rho, data, state.transfer), data, old, new)


def _replace(state: State, projected: Tensor, data: Measured, old: float, new: float) -> None:
    """Set rho to `projected` inside the support, and to `old` times rho plus `new` times `projected` outside.

    `projected` is the modulus projection of rho. If the state asks for the error, it is stored there: the sum of
    |projected - rho|^2, with rho as it was before, divided by the sum of the counts.
    """
    distance = relax(state.rho, projected, state.support, old, new, state.wants_error)
    if distance is not None:
        state.error = distance / data.photons


def error_reduction(state: State, data: Measured, settings: StepConfig) -> None:
    """Run Fienup's error reduction, rho <- P_S P_M rho, the projection onto the modulus and then onto the support.

    The error never rises while the support stays.
    """
    _relax(state, data, 0.0, 0.0)


def hybrid_input_output(state: State, data: Measured, settings: StepConfig) -> None:
    """Run Fienup's HIO: rho <- P_M rho inside the support, rho <- rho - beta P_M rho outside; P_M projects onto the modulus."""
    _relax(state, data, 1.0, -settings.beta)


def relaxed_averaged_alternating_reflections(state: State, data: Measured, settings: StepConfig) -> None:
    """Run Luke's RAAR: rho <- beta (R_S R_M + 1) rho / 2 + (1 - beta) P_M rho.

    P_M and P_S project onto modulus and support; R = 2 P - 1 are the corresponding reflections.
    """
    _relax(state, data, settings.beta, 1 - 2 * settings.beta)


def difference_map(state: State, data: Measured, settings: StepConfig) -> None:
    """Run Elser's difference map with two modulus projections; equal to HIO at beta = 1.

    Inside the support, rho <- (1 + beta) P_M rho - beta P_M f rho. Outside, rho <- rho - beta P_M f rho. P_M projects onto the
    modulus, and f divides rho by beta outside the support.
    """
    beta = settings.beta
    projected = project_modulus(state.rho, data, state.transfer)
    reflected = torch.where(state.support, state.rho, state.rho / beta)
    _replace(state, projected, data, 1.0, 0.0)
    state.rho.mul_(torch.where(state.support, 1 + beta, 1.0))
    state.rho.sub_(project_modulus(reflected, data, state.transfer), alpha=beta)


@dataclass
class ConjugateGradient:
    """State of the maximum-likelihood step ML between two steps: transform of the object, last gradient and search direction.

    Gradient and direction hold the voxels of the support alone; `inside` holds the flat indices of these voxels for all starts.
    """

    field: Tensor
    inside: Tensor
    gradient: Tensor | None = None
    direction: Tensor | None = None


def maximum_likelihood(state: State, data: Measured, settings: StepConfig) -> None:
    r"""Run one conjugate-gradient step that lowers the negative Poisson log-likelihood L, with rho confined to the support.

    .. math:: L = \sum_{seen} |F|^2 - I \ln |F|^2, \qquad
              \frac{\partial L}{\partial \bar\rho} = S\, \mathcal{F}^{-1}\!\left[\left(1 - \frac{I}{|F|^2}\right) F\right]

    F is the transform of rho, I the counts, S the support; the sum is over the voxels that the phasing sees. The search direction
    is conjugate by Polak-Ribiere; if it would raise L, the negative gradient is taken. The step length is Newton's, with the
    expected (Fisher) curvature :math:`4 \sum (\mathrm{Re}\, \bar F D)^2 / |F|^2`, which cannot turn negative; D is the transform of
    the search direction. A step needs one pair of transforms, because F changes by a multiple of D.
    """
    if state.coherence is not None:
        raise ConfigError("the ML step assumes full coherence; end the recipe with ER, or turn partial coherence off.")
    n = state.rho.shape[0]
    if state.gradient is None:
        state.rho.mul_(state.support)
        inside = state.support.reshape(-1).nonzero().squeeze(1)
        state.gradient = ConjugateGradient(torch.fft.fftn(state.rho, dim=AXES, norm="ortho"), inside)
    inside = state.gradient.inside
    owner = torch.div(inside, data.magnitude.numel(), rounding_mode="floor")

    def per_start(values: Tensor) -> Tensor:
        return values.new_zeros(n).index_add_(0, owner, values)

    memory = state.gradient
    power = squared_modulus(memory.field)
    if state.wants_error:
        misfit = (power.sqrt() - data.magnitude).view(n, -1).index_fill_(1, data.floating, 0.0)
        state.error = misfit.square().sum(1) / data.photons
    power.clamp_min_(_DARK)
    factor = (data.magnitude.square() / power).neg_().add_(1)
    factor.view(n, -1).index_fill_(1, data.floating, 0.0)
    gradient = torch.fft.ifftn(memory.field * factor, dim=AXES, norm="ortho").view(-1).index_select(0, inside)
    direction = -gradient
    if memory.gradient is not None and memory.direction is not None:
        turn = per_start((gradient.conj() * (gradient - memory.gradient)).real)
        ratio = (turn / (per_start(memory.gradient.abs().square()) + _TINY)).clamp_min(0)
        conjugate = direction + ratio[owner] * memory.direction
        uphill = per_start((gradient.conj() * conjugate).real) >= 0
        direction = torch.where(uphill[owner], direction, conjugate)
    step = torch.zeros_like(memory.field)
    step.view(-1).index_copy_(0, inside, direction)
    step = torch.fft.fftn(step, dim=AXES, norm="ortho")
    along = (torch.view_as_real(memory.field) * torch.view_as_real(step)).sum(-1)
    slope = 2 * (factor * along).sum(AXES)
    bend = along.square().div_(power).view(n, -1).index_fill_(1, data.floating, 0.0)
    length = -slope / (4 * bend.sum(1) + _TINY)
    state.rho.view(-1).index_add_(0, inside, length[owner] * direction)
    state.gradient = ConjugateGradient(memory.field.add_(length[:, None, None, None] * step), inside, gradient, direction)


def update_support(state: State, data: Measured, settings: StepConfig) -> None:
    """Update the support by shrink-wrap."""
    support, state.threshold = shrink_wrap(state.rho, state.support, state.threshold, settings.shrink_wrap, state.progress)
    state.set_support(support)


def grow_support(state: State, data: Measured, settings: StepConfig) -> None:
    """Add the voxels that share a face with the support.

    A threshold cuts off the outermost voxels of a crystal, which are partly filled; what they scatter, the others cannot explain.
    """
    support = state.support
    neighbours = [support.roll(step, axis) for axis in AXES for step in (-1, 1)]
    state.set_support(torch.stack([support, *neighbours]).any(0))


def break_twin(state: State, data: Measured, settings: StepConfig) -> None:
    """Zero the object in one half-space, so that a mixture of object and twin turns into one of them; the support is unchanged.

    Each start draws the normal of the half-space at random. A fixed normal could be a symmetry axis of the crystal, and both
    twins would then stay.
    """
    coordinates = [torch.fft.fftfreq(n, 1 / n, device=state.rho.device) for n in state.rho.shape[1:]]
    z, y, x = torch.meshgrid(*coordinates, indexing="ij")
    for start, generator in enumerate(state.generators):
        normal = torch.randn(3, generator=generator).tolist()
        amplitude = state.rho[start].abs() * state.support[start]
        height = normal[0] * z + normal[1] * y + normal[2] * x
        middle = (height * amplitude).sum() / amplitude.sum().clamp_min(1e-30)
        state.rho[start] *= height >= middle
    state.gradient = None


def flatten(state: State, data: Measured, settings: StepConfig) -> None:
    r"""Bring the amplitude inside the support nearer to one value and keep the phases, because a crystal is equally dense all over.

    .. math:: \rho \leftarrow \rho \left(\langle|\rho|^2\rangle_S^{1/2} / |\rho|\right)^{\alpha} \text{ inside } S,
              \qquad \text{by a factor of at most 10}

    alpha is the setting `flatness`, S the support. Where the phase of a crystal varies strongly, phasing may end in a wrong object
    of a few bright spots, and shrink-wrap shrinks the support onto these spots. An even amplitude prevents this. But a real
    crystal may have weak places, so a recipe has to end without this step, FLAT.
    """
    voxels, inside = data.magnitude.numel(), state.support.view(-1).nonzero().squeeze(1)
    values, owner = state.rho.view(-1)[inside], torch.div(inside, voxels, rounding_mode="floor")
    size = values.abs().clamp_min(_TINY)
    total = size.new_zeros(len(state.rho)).index_add_(0, owner, size.square())
    count = size.new_zeros(len(state.rho)).index_add_(0, owner, torch.ones_like(size)).clamp_min(1)
    wanted = (total / count).sqrt()[owner]
    state.rho.view(-1)[inside] = values * (wanted / size).pow(settings.flatness).clamp_max(10)
    state.gradient = None


def estimate_coherence(state: State, data: Measured, settings: StepConfig) -> None:
    """Fit the point spread of partial coherence to the counts, starting from the present estimate."""
    state.coherence = Coherence.fitted(state.rho * state.support, data, state.coherence, settings.psf)
    state.gradient = None


STEPS: dict[str, Step] = {
    "ER": error_reduction,
    "HIO": hybrid_input_output,
    "RAAR": relaxed_averaged_alternating_reflections,
    "DM": difference_map,
    "ML": maximum_likelihood,
}
"""Steps that count as iterations, by their names in a recipe."""

ACTIONS: dict[str, Step] = {
    "SW": update_support,
    "GROW": grow_support,
    "DETWIN": break_twin,
    "FLAT": flatten,
    "PSF": estimate_coherence,
}
"""Steps that run between iterations and are not counted, by their names in a recipe."""


@cache
def find_step(name: str) -> tuple[Step, bool]:
    """Return the step that a recipe names, and whether it counts as an iteration.

    Raises
    ------
    ConfigError : if neither braggshot nor an installed package offers the step.
    """
    for table, counts in ((STEPS, True), (ACTIONS, False)):
        if name in table:
            return table[name], counts
    for entry in entry_points(group="braggshot.steps"):
        if entry.name == name:
            step = entry.load()
            return (step.run, False) if isinstance(step, Action) else (step, True)
    known = ", ".join([*STEPS, *ACTIONS, *(e.name for e in entry_points(group="braggshot.steps"))])
    raise ConfigError(f"the recipe names an unknown step {name!r}; known steps: {known}.")
