r"""The flagship: an unrolled phasing network, size-agnostic, one forward pass from counts to crystal.

.. math::
    \rho_{t+1} = \sigma(a)\, \frac{z}{\sqrt{|z|^2 + \epsilon^2}}, \qquad
    (a, z) = (4|p| - 2,\; p) + U(\rho_t, p, c, h_t), \qquad p = P_M \rho_t / \|P_M \rho_t\|

Each step sees the object :math:`\rho_t`, its modulus projection p (the physics), features c of the measurement (Patterson
functions, which live in direct space, and compressed counts) and its own memory h. U is one small U-Net whose weights all steps
share, on a quarter of the data's resolution. With U = 0 a step is error reduction with a soft support. The amplitude lies in
(0, 1); the phase is that of a complex number, so it never wraps, and a weak amplitude keeps its gradient (no hard threshold).

A start is random phases, so K starts are K hypotheses, and the twin is a matter of chance as in any iterative phasing. Voxels that
are not valid float. The object lives in the central half of the array (oversampling of at least 2 on each axis). Nothing here reads
a label: see `braggshot.nn.losses`.
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
STRIDE = 16  # every axis of the data must be a multiple of it


@dataclass(frozen=True)
class NetworkConfig:
    """Size of the flagship.

    Parameters
    ----------
    channels : of the U-Net's levels, finest (a quarter of the data's resolution) first
    blocks : residual blocks per level and direction
    steps : learned steps of one forward pass
    """

    channels: tuple[int, ...] = (64, 128, 192)
    blocks: int = 1
    steps: int = 5


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


def shuffle(x: Tensor, factor: int) -> Tensor:
    """Channels to space; inverse of `unshuffle`."""
    n, c, z, y, x_ = x.shape
    x = x.reshape(n, c // factor**3, factor, factor, factor, z, y, x_)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(n, c // factor**3, z * factor, y * factor, x_ * factor)


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


def measurement_features(data: Measurement) -> tuple[Tensor, Tensor]:
    """What the steps are told of the measurement, at a quarter of its resolution, and where the object may be.

    Returns
    -------
    features : (n, c, z / 4, y / 4, x / 4)
    extent : (n, z / 2, y / 2, x / 2), square root of the Patterson function at 2 r: a convex body is about where it is not small
    """
    shape = data.magnitude.shape[-3:]
    half = torch.Size(n // 2 for n in shape)
    patterson = [_compressed(to_centre(torch.fft.ifftn(m, dim=AXES))) for m in (data.magnitude.square(), data.magnitude)]
    brightest = data.magnitude.amax(AXES, keepdim=True).clamp_min(1e-12)
    counts = to_centre((data.magnitude / brightest).pow(0.25))
    noise = to_centre((1 + data.magnitude).log() / 8)  # how many photons there are, which compressing to the maximum forgets
    reciprocal = torch.stack([counts, noise, to_centre(data.valid)], 1)
    features = [*(unshuffle(p, 4) for p in patterson), unshuffle(reciprocal, 4), *(unshuffle(crop(p, half), 2) for p in patterson)]
    extent = torch.linalg.vector_norm(patterson[0][..., ::2, ::2, ::2], dim=1)
    return torch.cat(features, 1), extent


FEATURES = 64 * (2 + 2 + 3) + 8 * (2 + 2)
SEEN = 6  # channels of rho and p: real, imaginary, modulus


class Block(nn.Module):
    """Two convolutions around a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(2))
        self.convolutions = nn.ModuleList(nn.Conv3d(channels, channels, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.convolutions[1].get_parameter("weight"))

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
    """Residual blocks on a pyramid; each level's way down is added to its way up."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        levels = config.channels
        pairs = list(pairwise(levels))
        self.down = nn.ModuleList(nn.Sequential(*(Block(c) for _ in range(config.blocks))) for c in levels)
        self.up = nn.ModuleList(nn.Sequential(*(Block(c) for _ in range(config.blocks))) for c in levels)
        self.coarser = nn.ModuleList(nn.Conv3d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.finer = nn.ModuleList(nn.ConvTranspose3d(coarse, fine, 2, stride=2) for fine, coarse in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, z, y, x), unchanged in shape."""
        ways: list[Tensor] = []
        for level, down in enumerate(self.down):
            x = down(x)
            ways.append(x)
            if level < len(self.coarser):
                x = self.coarser[level](x)
        x = self.up[-1](x)
        for level in reversed(range(len(self.finer))):
            x = self.up[level](self.finer[level](x) + ways[level])
        return x


class PhaseNetwork(nn.Module):
    """The flagship. `forward` gives the object after every step, the last one being the prediction."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or NetworkConfig()
        width = self.config.channels[0]
        self.context = nn.Sequential(nn.Conv3d(FEATURES, width, 1), Block(width), Block(width))
        self.entry = nn.Conv3d(8 * SEEN + 1, width, 3, padding=1)
        self.recall = nn.Conv3d(width, width, 1)
        self.body = UNet(self.config)
        self.exit = nn.Conv3d(width, 8 * 3, 3, padding=1)
        nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.get_parameter("bias"))
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's annotations lack it

    def forward(self, magnitude: Tensor, valid: Tensor, rho: Tensor, steps: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """The object and the modulus of its transform after every step.

        Parameters
        ----------
        magnitude, valid : as in `Measurement`, (n, z, y, x)
        rho : start, in the central half of the array, from `random_start`
        steps : how many; None is as in the configuration

        Returns
        -------
        rho (n, z / 2, y / 2, x / 2) complex and |F| (n, z, y, x), once per step; the last one is the prediction
        """
        data = Measurement(magnitude, valid)
        features, _ = measurement_features(data)
        context = self.context(features.contiguous(memory_format=torch.channels_last_3d))
        memory = torch.zeros_like(context)
        shape, box = magnitude.shape[-3:], rho.shape[-3:]
        seen, found = magnitude_of(rho, shape), []
        for _ in range(steps or self.config.steps):
            projected = modulus_projection(*seen, data, box)
            rho, memory = self._step(rho, projected, context, memory, misfit(seen[1], data).sqrt())
            seen = magnitude_of(rho, shape)
            found.append((rho, seen[1]))
        return found

    def _step(self, rho: Tensor, projected: Tensor, context: Tensor, memory: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """One learned step, (n, z / 2, y / 2, x / 2) complex, and the memory for the next."""
        gauge = _mean_phase(projected).conj()
        p, old = _channels(_normalised(projected) * gauge), _channels(rho * gauge)
        size, was = p.square().sum(1, keepdim=True).add(1e-8).sqrt(), old.square().sum(1, keepdim=True).add(1e-8).sqrt()
        seen = unshuffle(torch.cat([p, size, old, was], 1), 2)
        level = error.reshape(-1, 1, 1, 1, 1).expand(-1, 1, *context.shape[-3:])
        x = self.entry(torch.cat([seen, level], 1).contiguous(memory_format=torch.channels_last_3d))
        memory = self.body(x + context + self.recall(memory))
        out = shuffle(self.exit(functional.silu(memory)).float(), 2)
        z = p + out[:, 1:]
        amplitude = torch.sigmoid(4 * size - 2 + 4 * out[:, :1])
        rho = amplitude * z * (z.square().sum(1, keepdim=True) + EPSILON**2).rsqrt()
        return torch.view_as_complex(rho.movedim(1, -1).contiguous()), memory


def misfit(magnitude: Tensor, data: Measurement) -> Tensor:
    r"""chi2 at the best scale, :math:`1 - (\sum m|F|)^2 / (\sum m^2 \sum |F|^2)` over valid voxels (n,)."""
    seen = magnitude * data.valid
    overlap = (seen * data.magnitude).sum(AXES).square()
    return (1 - overlap / (seen.square().sum(AXES) * data.magnitude.square().sum(AXES)).clamp_min(1e-12)).clamp_min(1e-8)


def random_start(data: Measurement, generator: Generator) -> Tensor:
    """Random phases where the Patterson function says that the object may be, (n, z / 2, y / 2, x / 2) complex64."""
    _, extent = measurement_features(data)
    phase = 2 * torch.pi * torch.rand(extent.shape, generator=generator, device=generator.device).to(extent.device)
    return torch.polar(extent, phase)


def _normalised(field: Tensor) -> Tensor:
    """Typical amplitude to one: sum |p|^3 / sum |p|^2, which the empty part of the box does not dilute."""
    amplitude = field.detach().abs()
    power = amplitude.square()
    return field * (power.sum(AXES, keepdim=True) / (power * amplitude).sum(AXES, keepdim=True).clamp_min(1e-12))


def _mean_phase(field: Tensor) -> Tensor:
    """Unit number along sum |p| p: the global phase is free, so the steps always see it at zero."""
    total = (field.detach().abs() * field.detach()).sum(AXES, keepdim=True)
    return total / total.abs().clamp_min(1e-12)
