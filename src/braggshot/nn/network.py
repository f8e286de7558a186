r"""The flagship: an unrolled phasing network, size-agnostic, one forward pass from counts to crystal.

.. math::
    \rho_{t+1} = \sigma(a)\, \frac{z}{\sqrt{|z|^2 + \epsilon^2}}, \qquad
    z = g\,p + u, \quad a = 10 g |p| + b - a_0, \quad (b, g, u) = U(\rho_t, p, c, h_t), \quad p = P_M \rho_t / \|P_M \rho_t\|

Each step sees the object :math:`\rho_t`, its modulus projection p (the physics), features c of the measurement (Patterson
functions, which live in direct space, and compressed counts) and its own memory h. U is one small U-Net whose weights all steps
share. With b = u = 0 and g = 1 a step is error reduction with a soft support. The amplitude lies in
(0, 1); the phase is that of a complex number, so it never wraps, and a weak amplitude keeps its gradient (no hard threshold).

A start is a smooth random phase, so K starts are K hypotheses, and the twin is a matter of chance as in any iterative phasing.
Voxels that are not valid float. The object lives in the central half of the array (oversampling of at least 2 on each axis).
Nothing here reads a label: `braggshot.nn.losses`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from braggshot.physics.fourier import AXES, crop, pad, to_centre, to_corner

EPSILON = 0.1  # |z| below which the amplitude fades
PHOTON_NOISE = 0.25  # variance of a magnitude sqrt(I) [photons]
LEAN = 8.0  # how steeply a start's amplitude falls across the middle, over half the box
STRIDE = 16  # every axis of the data must be a multiple of it


@dataclass(frozen=True)
class NetworkConfig:
    """Size of the flagship.

    Parameters
    ----------
    channels : of the U-Net's levels, finest first: the voxels of the box, then half, a quarter, an eighth of that
    steps : learned steps of one forward pass
    """

    channels: tuple[int, ...] = (32, 64, 128, 192)
    steps: int = 2


@dataclass(frozen=True)
class Measurement:
    """What the network sees of a batch of patterns; corner layout, so that transforms need no shifts.

    Parameters
    ----------
    magnitude : sqrt(counts), 0 where not valid (n, z, y, x) [sqrt(photons)]
    valid : 1 on trusted voxels, 0 elsewhere (n, z, y, x)
    """

    magnitude: Tensor
    valid: Tensor

    @classmethod
    def of(cls, counts: Tensor, valid: Tensor) -> Measurement:
        """From counts (n, z, y, x) and trust, both centred at N // 2 [photons]."""
        known = to_corner(valid).float()
        return cls(to_corner(counts.float()).clamp_min(0).sqrt() * known, known)

    def repeated(self, times: int) -> Measurement:
        """Each pattern `times` times in a row, for as many hypotheses."""
        return Measurement(self.magnitude.repeat_interleave(times, 0), self.valid.repeat_interleave(times, 0))


def magnitude_of(rho: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Transform of a box `rho` (n, z, y, x) padded to `shape`, and its modulus; corner layout in reciprocal space.

    The box is not moved to the corner of direct space: that is a phase ramp in F, which neither the modulus nor the way back feels.
    """
    field = torch.fft.fftn(pad(rho, shape), dim=AXES, norm="ortho")
    parts = torch.view_as_real(field)
    return field, (parts.square().sum(-1) + 1e-12).sqrt()


def scale_to(magnitude: Tensor, data: Measurement) -> Tensor:
    """Best factor c = sum m |F| / sum |F|^2 over valid voxels, (n, 1, 1, 1)."""
    seen = magnitude * data.valid
    return (seen * data.magnitude).sum(AXES, keepdim=True) / seen.square().sum(AXES, keepdim=True).clamp_min(1e-12)


def modulus_projection(field: Tensor, magnitude: Tensor, data: Measurement, box: torch.Size) -> Tensor:
    """P_M rho in the box (n, z, y, x); voxels that are not valid, and those darker than photon noise, do not blow up."""
    scaled = magnitude * scale_to(magnitude.detach(), data)
    ratio = data.magnitude / (scaled.square() + PHOTON_NOISE * (data.magnitude == 0)).clamp_min(1e-6).sqrt()
    ratio = ratio * data.valid + (1 - data.valid)
    projected = torch.view_as_complex(torch.view_as_real(field) * ratio[..., None])
    return crop(torch.fft.ifftn(projected, dim=AXES, norm="ortho"), box)


def unshuffle(x: Tensor, factor: int) -> Tensor:
    """Space to channels: (n, c, z, y, x) -> (n, c factor^3, z / factor, ...)."""
    n, c, *size = x.shape
    z, y, x_ = (s // factor for s in size)
    x = x.reshape(n, c, z, factor, y, factor, x_, factor)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(n, c * factor**3, z, y, x_)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def _channels(field: Tensor) -> Tensor:
    """Complex (n, z, y, x) to real (n, 2, z, y, x)."""
    return torch.view_as_real(field).movedim(-1, 1)


def _compressed(field: Tensor) -> Tensor:
    """Phase kept, modulus to its square root, and the maximum to one: the fringes of a Patterson function span decades."""
    power = torch.view_as_real(field).square().sum(-1)
    factor = (power + 1e-12 * power.amax(AXES, keepdim=True)).pow(-0.25) * power.amax(AXES, keepdim=True).clamp_min(1e-30).pow(
        -0.25
    )
    return _channels(field) * factor[:, None]


@dataclass(frozen=True)
class Features:
    """What the steps are told of the measurement.

    Parameters
    ----------
    direct : Patterson functions of I and of sqrt(I) at r and at 2 r, on the voxels of the box (n, 8, z / 2, y / 2, x / 2)
    whole : the same and the counts, all of the array folded into channels (n, WHOLE, z / 4, y / 4, x / 4)
    extent : square root of the Patterson function at 2 r: a convex body is about where it is not small (n, z / 2, y / 2, x / 2)
    """

    direct: Tensor
    whole: Tensor
    extent: Tensor

    @classmethod
    def of(cls, data: Measurement) -> Features:
        """Of a batch of patterns; nothing in them is learned."""
        half = [n // 2 for n in data.magnitude.shape[-3:]]
        patterson = torch.cat(
            [_compressed(to_centre(torch.fft.ifftn(m, dim=AXES))) for m in (data.magnitude.square(), data.magnitude)], 1
        )
        brightest = data.magnitude.amax(AXES, keepdim=True).clamp_min(1e-12)
        counts = to_centre((data.magnitude / brightest).pow(0.25))
        noise = to_centre((1 + data.magnitude).log() / 8)  # how many photons there are, which the line above forgets
        reciprocal = torch.stack([counts, noise, to_centre(data.valid)], 1)
        twice = patterson[..., ::2, ::2, ::2]
        return cls(
            direct=torch.cat([crop(patterson, half), twice], 1),
            whole=unshuffle(torch.cat([patterson, reciprocal], 1), 4),
            extent=torch.linalg.vector_norm(twice[:, :2], dim=1),
        )


WHOLE = 64 * (4 + 3)
SEEN = 6  # channels of rho and p: real, imaginary, modulus


class Convolution(nn.Conv3d):
    """`torch.nn.Conv3d`, by oneDNN also where torch leaves one small pattern to a kernel that takes up to 20 times as long."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if len(x) > 1 or not (plain and has_onednn):
            return super()._conv_forward(x, weight, bias)
        assert not isinstance(self.padding, str)
        return torch.mkldnn_convolution(x, weight, bias, self.padding, self.stride, self.dilation, self.groups)


class Block(nn.Module):
    """Convolutions around a skip."""

    def __init__(self, channels: int, depth: int = 2) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(depth))
        self.convolutions = nn.ModuleList(Convolution(channels, channels, 3, padding=1) for _ in range(depth))
        nn.init.zeros_(self.convolutions[-1].get_parameter("weight"))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, z, y, x), unchanged in shape."""
        # Where the grid is smaller than the kernel, oneDNN's bfloat16 gradient of the weights is wrong (torch 2.13, on a CPU).
        with torch.autocast(x.device.type, enabled=torch.is_autocast_enabled(x.device.type) and min(x.shape[-3:]) > 2):
            return x + self._residual(x)

    def _residual(self, x: Tensor) -> Tensor:
        y = x if torch.is_autocast_enabled(x.device.type) else x.float()
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            y = convolution(functional.silu(norm(y)))
        return y


class UNet(nn.Module):
    """Residual blocks on a pyramid; each level's way down is added to its way up, and a context to its second level."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(pairwise(channels))
        depths = [1, *(2 for _ in pairs)]  # the finest level has the most voxels, so it must be thin
        self.down = nn.ModuleList(Block(c, d) for c, d in zip(channels, depths, strict=True))
        self.up = nn.ModuleList(Block(c, d) for c, d in zip(channels, depths, strict=True))
        self.coarser = nn.ModuleList(Convolution(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.finer = nn.ModuleList(nn.ConvTranspose3d(coarse, fine, 2, stride=2) for fine, coarse in pairs)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(n, c, z, y, x), unchanged in shape; `context` on the grid and with the channels of the second level."""
        ways: list[Tensor] = []
        for level, down in enumerate(self.down):
            x = down(x + context if level == 1 else x)
            ways.append(x)
            if level < len(self.coarser):
                x = self.coarser[level](x)
        x = self.up[-1](x)
        for level in reversed(range(len(self.finer))):
            x = self.up[level](self.finer[level](x) + ways[level])
        return x


@dataclass(frozen=True)
class _State:
    """Where a step stands: the object, its modulus projection, its misfit, and what the steps before remember."""

    rho: Tensor
    projected: Tensor
    error: Tensor
    memory: Tensor


class PhaseNetwork(nn.Module):
    """The flagship. `forward` gives the object after every step, the last one being the prediction."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or NetworkConfig()
        finest, second = self.config.channels[:2]
        self.context = nn.Sequential(Convolution(WHOLE, second, 1), Block(second), Block(second))
        self.told = Convolution(8, finest, 3, padding=1)
        self.entry = Convolution(SEEN + 1, finest, 3, padding=1)
        self.recall = Convolution(finest, finest, 1)
        self.body = UNet(self.config.channels)
        self.exit = Convolution(finest, 4, 3, padding=1)
        nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.get_parameter("bias"))
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's annotations lack it

    def forward(self, magnitude: Tensor, valid: Tensor, rho: Tensor, steps: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """The object and the modulus of its transform after every step.

        Parameters
        ----------
        magnitude, valid : as in `Measurement`, (n, z, y, x), or (1, z, y, x) for one pattern and n starts
        rho : start, in the central half of the array, from `random_start`
        steps : how many; None is as in the configuration

        Returns
        -------
        rho (n, z / 2, y / 2, x / 2) complex and |F| (n, z, y, x), once per step; the last one is the prediction
        """
        data = Measurement(magnitude, valid)
        features = Features.of(data)
        context = self.context(_channels_last(features.whole))
        told = self.told(_channels_last(features.direct))
        memory = torch.zeros_like(told)
        shape, box = magnitude.shape[-3:], rho.shape[-3:]
        seen, found = magnitude_of(rho, shape), []
        for _ in range(steps or self.config.steps):
            # Each step learns to make the best of where it stands: the projection's own gradient grows without bound as |F| -> 0.
            with torch.no_grad():
                projected, error = modulus_projection(*seen, data, box), misfit(seen[1], data).sqrt()
            rho, memory = self._step(_State(rho.detach(), projected, error, memory), told, context)
            seen = magnitude_of(rho, shape)
            found.append((rho, seen[1]))
        return found

    def _step(self, state: _State, told: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """One learned step: the object (n, z / 2, y / 2, x / 2) complex, and the memory for the next."""
        gauge = _mean_phase(state.projected).conj()
        p, old = _channels(normalised(state.projected) * gauge), _channels(state.rho * gauge)
        size, was = p.square().sum(1, keepdim=True).add(1e-8).sqrt(), old.square().sum(1, keepdim=True).add(1e-8).sqrt()
        level = state.error.reshape(-1, 1, 1, 1, 1).expand_as(size)
        x = self.entry(_channels_last(torch.cat([p, size, old, was, level], 1)))
        memory = self.body(x + told + self.recall(state.memory), context)
        out = self.exit(functional.silu(memory)).float()
        gate = torch.sigmoid(4 * out[:, 1:2])
        z = gate * p + out[:, 2:]
        amplitude = torch.sigmoid(_anchored(10 * gate * size + 4 * out[:, :1]))
        rho = amplitude * z * (z.square().sum(1, keepdim=True) + EPSILON**2).rsqrt()
        return torch.view_as_complex(rho.movedim(1, -1).contiguous()), memory


def misfit(magnitude: Tensor, data: Measurement) -> Tensor:
    r"""chi2 at the best scale, :math:`1 - (\sum m|F|)^2 / (\sum m^2 \sum |F|^2)` over valid voxels (n,)."""
    seen = magnitude * data.valid
    overlap = (seen * data.magnitude).sum(AXES).square()
    return (1 - overlap / (seen.square().sum(AXES) * data.magnitude.square().sum(AXES)).clamp_min(1e-12)).clamp_min(1e-8)


def random_start(data: Measurement, generator: Generator, times: int = 1, strongest: float = 2.0) -> Tensor:
    """A smooth random phase where the Patterson function says that the object may be, (n times, z / 2, y / 2, x / 2) complex64.

    Smooth as the phase of a crystal is, of a strength drawn up to `strongest` [rad]: white noise would only be speckle. The
    amplitude leans to one side of a random plane through the middle: so a start is nearer to one twin than to the other, and the
    network can learn to answer with that one instead of with a blend of both. Of each pattern there are `times` starts in a row.
    """
    extent = Features.of(data).extent.repeat_interleave(times, 0)
    n = extent.shape[0]
    side = functional.normalize(torch.randn(n, 3, generator=generator, device=generator.device), dim=1).to(extent.device)
    axes = [torch.linspace(-1, 1, size + 1, device=extent.device)[:-1] for size in extent.shape[1:]]  # zero at the voxel N // 2
    distance = torch.einsum("na,azyx->nzyx", side, torch.stack(torch.meshgrid(*axes, indexing="ij")))
    extent = extent * torch.sigmoid(LEAN * distance)
    draw = torch.randn(n, 1, 4, 4, 4, generator=generator, device=generator.device).to(extent.device)
    strength = strongest * torch.rand(n, 1, 1, 1, generator=generator, device=generator.device).to(extent.device)
    smooth = functional.interpolate(draw, size=extent.shape[1:], mode="trilinear", align_corners=True)[:, 0]
    return torch.polar(extent, strength * smooth)


def normalised(field: Tensor) -> Tensor:
    """Typical amplitude to one: sum |p|^3 / sum |p|^2, which the empty part of the box does not dilute."""
    amplitude = field.detach().abs()
    power = amplitude.square()
    return field * (power.sum(AXES, keepdim=True) / (power * amplitude).sum(AXES, keepdim=True).clamp_min(1e-12))


def _anchored(logit: Tensor, share: float = 1 / 64, top: float = 2.0) -> Tensor:
    """Logits (n, 1, z, y, x) moved so that the brightest `share` of the voxels has `top` on average.

    The scale of an object cannot be measured, so without this nothing keeps all amplitudes from drifting to zero.
    """
    flat = logit.flatten(1)
    brightest = flat.topk(max(1, int(share * flat.shape[1])), dim=1).values.mean(1)
    return logit - (brightest - top).reshape(-1, 1, 1, 1, 1)


def _mean_phase(field: Tensor) -> Tensor:
    """Unit number along sum |p| p: the global phase is free, so the steps always see it at zero."""
    total = (field.detach().abs() * field.detach()).sum(AXES, keepdim=True)
    return total / total.abs().clamp_min(1e-12)
