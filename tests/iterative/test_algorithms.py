"""Each step against its textbook formula, and what each must do to the error."""

from __future__ import annotations

import pytest
import torch

from braggshot.errors import ConfigError
from braggshot.iterative.algorithms import ACTIONS, STEPS, State, StepConfig, find_step
from braggshot.iterative.coherence import Coherence
from braggshot.physics.fourier import AXES, to_corner


def state_of(data, crystal, batch=2, seed=0, wiggle=0.3):
    """The true support, and an object some way off the truth."""
    generator = torch.Generator().manual_seed(seed)
    truth = to_corner(crystal)
    noise = torch.complex(*torch.randn(2, batch, *truth.shape, generator=generator))
    rho = truth[None] + wiggle * truth.abs().max() * noise
    support = (truth.abs() > 0)[None].expand(batch, -1, -1, -1).contiguous()
    return State(rho, support, torch.full((batch,), 0.2), [torch.Generator().manual_seed(k) for k in range(batch)])


def plain_projection(rho, data):
    field = torch.fft.fftn(rho, dim=AXES, norm="ortho")
    seen = torch.ones(data.magnitude.numel(), dtype=torch.bool)
    seen[data.floating] = False
    new = torch.where(seen.view(data.shape), data.magnitude * field / field.abs().clamp_min(1e-20), field)
    return torch.fft.ifftn(new, dim=AXES, norm="ortho")


def textbook(name, rho, inside, data, beta):
    projected = plain_projection(rho, data)
    if name == "ER":
        return projected * inside
    if name == "HIO":
        return torch.where(inside, projected, rho - beta * projected)
    if name == "RAAR":
        # beta/2 (R_S R_M + 1) rho + (1 - beta) P_M rho, with reflections R = 2 P - 1.
        reflected = 2 * projected - rho
        return beta / 2 * (2 * reflected * inside - reflected + rho) + (1 - beta) * projected
    estimate = projected + (projected - rho) / beta
    other = rho * inside - (rho * inside - rho) / beta
    return rho + beta * (estimate * inside - plain_projection(other, data))


@pytest.mark.parametrize("name", ["ER", "HIO", "RAAR", "DM"])
@pytest.mark.parametrize("beta", [0.9, 0.75])
def test_step_is_its_formula(name, beta, data, pattern):
    state = state_of(data, pattern[1])
    expected = textbook(name, state.rho.clone(), state.support, data, beta)
    STEPS[name](state, data, StepConfig(beta=beta))
    assert torch.allclose(state.rho, expected, atol=2e-3 * float(expected.abs().max()))
    expected = textbook(name, state.rho.clone(), state.support, data, beta)  # once more: buffers are reused
    STEPS[name](state, data, StepConfig(beta=beta))
    assert torch.allclose(state.rho, expected, atol=2e-3 * float(expected.abs().max()))


def test_difference_map_at_beta_one_is_hio(data, pattern):
    one, other = state_of(data, pattern[1]), state_of(data, pattern[1])
    STEPS["DM"](one, data, StepConfig(beta=1.0))
    STEPS["HIO"](other, data, StepConfig(beta=1.0))
    assert torch.allclose(one.rho, other.rho, atol=1e-3 * float(other.rho.abs().max()))


def test_error_never_rises_under_er_with_a_fixed_support(data, pattern):
    state = state_of(data, pattern[1], wiggle=1.0)
    state.wants_error = True
    errors = []
    for _ in range(30):
        STEPS["ER"](state, data, StepConfig())
        errors.append(state.error.clone())
    curve = torch.stack(errors)[1:]
    assert (curve[1:] <= curve[:-1] * (1 + 1e-5)).all()
    assert (curve[-1] < 0.5 * curve[0]).all()


def test_reported_error_is_the_misfit_of_the_iterate(data, pattern):
    state = state_of(data, pattern[1])
    magnitude = torch.fft.fftn(state.rho, dim=AXES, norm="ortho").abs()
    expected = (magnitude - data.magnitude).square().sum(AXES) / data.photons
    state.wants_error = True
    STEPS["RAAR"](state, data, StepConfig())
    assert state.error.tolist() == pytest.approx(expected.tolist(), rel=1e-3)


def test_the_truth_stays_put(data, pattern):
    """Every step leaves a consistent object where it is."""
    for name in STEPS:
        state = state_of(data, pattern[1], wiggle=0.0)
        before = state.rho.clone()
        STEPS[name](state, data, StepConfig())
        assert torch.allclose(state.rho, before, atol=3e-3 * float(before.abs().max())), name


def poisson_loss(rho, data):
    power = torch.fft.fftn(rho, dim=AXES, norm="ortho").abs().square()
    return (power - data.magnitude.square() * torch.log(power + 1e-9)).sum(AXES)


def test_ml_climbs_the_poisson_likelihood_and_keeps_the_support(data, pattern):
    state = state_of(data, pattern[1], wiggle=0.05)
    state.rho *= state.support
    losses = [poisson_loss(state.rho, data)]
    for _ in range(15):
        STEPS["ML"](state, data, StepConfig())
        losses.append(poisson_loss(state.rho, data))
    curve = torch.stack(losses)
    floor = poisson_loss(to_corner(pattern[1])[None], data)
    assert ((curve[-1] - floor) < 0.05 * (curve[0] - floor)).all()
    assert not (state.rho * ~state.support).any()


def test_ml_gradient_is_autograd_s(data, pattern):
    """The first ML step runs along minus the gradient of the likelihood inside the support."""
    state = state_of(data, pattern[1], batch=1, wiggle=0.05)
    state.rho *= state.support
    before = state.rho.clone()
    leaf = before.clone().requires_grad_()
    power = torch.fft.fftn(leaf, dim=AXES, norm="ortho").abs().square()
    loss = (power - data.magnitude.square() * torch.log(power.clamp_min(1e-2))).sum()
    loss.backward()
    STEPS["ML"](state, data, StepConfig())
    move, slope = (state.rho - before).reshape(-1), (leaf.grad * state.support).reshape(-1)
    cosine = -torch.vdot(slope, move).real / (torch.linalg.vector_norm(slope) * torch.linalg.vector_norm(move))
    assert cosine.item() > 0.999


def test_ml_refuses_partial_coherence(data, pattern):
    state = state_of(data, pattern[1])
    ACTIONS["PSF"](state, data, StepConfig())
    with pytest.raises(ConfigError, match="full coherence"):
        STEPS["ML"](state, data, StepConfig())


def test_detwin_halves_the_object_of_each_start_differently(data, pattern):
    state = state_of(data, pattern[1], wiggle=0.0)
    before = state.rho.abs().square().sum(AXES)
    ACTIONS["DETWIN"](state, data, StepConfig())
    share = state.rho.abs().square().sum(AXES) / before
    assert ((share > 0.3) & (share < 0.7)).all()
    assert not torch.equal(state.rho[0], state.rho[1])


def test_grow_adds_the_voxels_that_share_a_face(data, pattern):
    state = state_of(data, pattern[1])
    one = torch.zeros_like(state.support)
    one[:, 0, 3, 5] = True  # at the edge of the array, where neighbours lie on the other side
    state.set_support(one)
    ACTIONS["GROW"](state, data, StepConfig())
    assert state.support.sum((1, 2, 3)).tolist() == [7] * len(one)
    for place in ((1, 3, 5), (-1, 3, 5), (0, 2, 5), (0, 4, 5), (0, 3, 4), (0, 3, 6)):
        assert state.support[(0, *place)]
    assert state.gradient is None


def test_flat_brings_amplitudes_of_each_start_nearer_to_one_value(data, pattern):
    state = state_of(data, pattern[1], wiggle=0.3)
    state.rho[1] *= 7
    hole = state.support[0].nonzero()[0]
    state.rho[(0, *hole)] = 0
    before, inside = state.rho.clone(), state.support
    ACTIONS["FLAT"](state, data, StepConfig(flatness=0.5))
    assert torch.equal(state.rho[~inside], before[~inside])
    torch.testing.assert_close(torch.sgn(state.rho), torch.sgn(before), rtol=1e-4, atol=1e-4)
    for start in range(len(before)):
        old, new = before[start][inside[start]].abs(), state.rho[start][inside[start]].abs()
        rms = old.square().mean().sqrt()
        wanted = (old * rms).sqrt()  # alpha of one half: the geometric mean
        wanted = torch.minimum(wanted, 10 * old)
        torch.testing.assert_close(new, wanted, rtol=1e-4, atol=1e-6 * float(rms))
    assert state.rho[(0, *hole)] == 0


@pytest.mark.parametrize(("sigma", "tolerance"), [((0.5, 0.5, 0.5), 0.1), ((0.3, 0.6, 0.45), 0.1)])
def test_the_point_spread_is_found(sigma, tolerance, data, pattern):
    """From the true object, the fit gives back the widths that blurred its pattern, axis by axis."""
    from dataclasses import replace

    from braggshot.physics.forward import convolve_psf, mutual_coherence

    truth = to_corner(pattern[1])
    coherent = torch.fft.fftn(truth, norm="ortho").abs().square()
    blurred = convolve_psf(coherent, mutual_coherence(torch.tensor(sigma), torch.tensor(0.0), data.shape))
    seen = replace(data, magnitude=blurred.sqrt(), intensity=blurred)
    found = Coherence.fitted(truth[None], seen, None).spreads[0]
    assert found.sigma == pytest.approx(sigma, rel=tolerance)
    none = Coherence.fitted(truth[None], data, None).spreads[0]
    assert max(none.sigma) < 0.1


def test_an_estimate_of_no_blur_is_no_trap(data, pattern):
    """A fit that goes on from full coherence finds the widths all the same."""
    from dataclasses import replace

    from braggshot.physics.forward import PointSpread, convolve_psf, mutual_coherence

    truth, sigma = to_corner(pattern[1]), (0.5, 0.4, 0.6)
    coherent = torch.fft.fftn(truth, norm="ortho").abs().square()
    blurred = convolve_psf(coherent, mutual_coherence(torch.tensor(sigma), torch.tensor(0.0), data.shape))
    seen = replace(data, magnitude=blurred.sqrt(), intensity=blurred)
    none = Coherence((PointSpread((1e-3,) * 3),), torch.ones(1))
    assert Coherence.fitted(truth[None], seen, none).spreads[0].sigma == pytest.approx(sigma, rel=0.1)


def test_the_lorentzian_share_is_found_where_it_is_asked_for(data, pattern):
    from dataclasses import replace

    from braggshot.physics.forward import convolve_psf, mutual_coherence

    truth = to_corner(pattern[1])
    coherent = torch.fft.fftn(truth, norm="ortho").abs().square()
    blurred = convolve_psf(coherent, mutual_coherence(torch.tensor((0.5, 0.5, 0.5)), torch.tensor(0.4), data.shape))
    seen = replace(data, magnitude=blurred.sqrt(), intensity=blurred)
    state = state_of(seen, pattern[1], batch=1, wiggle=0.0)
    for _ in range(3):
        ACTIONS["PSF"](state, seen, StepConfig(psf="pseudo-voigt"))
    found = state.coherence.spreads[0]
    assert found.eta == pytest.approx(0.4, abs=0.1)
    assert found.sigma == pytest.approx((0.5, 0.5, 0.5), rel=0.1)


def test_unknown_step_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown step 'XYZ'.*RAAR"):
        find_step("XYZ")
