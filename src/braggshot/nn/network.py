r"""Define the low-resolution network: an unrolled phasing network for any array size, one forward pass from counts to crystal.

.. math::
    \rho_{t+1} = \sigma(a)\, \frac{z}{\sqrt{|z|^2 + \epsilon^2}}, \qquad
    z = g\,p + u, \quad a = 10 g |p| + b - a_0, \quad (b, g, u) = U(\rho_t, p, c, h_t), \quad p = P_M \rho_t / \|P_M \rho_t\|

Step t turns the object :math:`\rho_t` into :math:`\rho_{t+1}`. Its inputs are the object, its modulus projection (P_M), normalised
as p, features c of the measurement (Patterson functions and compressed counts), and a memory h_t from earlier steps. U is one small
U-Net with the same weights in all steps. U returns a bias b, a gate g and a correction u. sigma is the logistic function, a_0 a
shift that fixes the scale of the amplitude, and epsilon the value of |z| below which the amplitude fades. With b = u = 0 and g = 1
a step is error reduction with a soft support. The amplitude lies in (0, 1). The phase is that of a complex number, so it never
wraps. There is no hard threshold, so a weak amplitude keeps its gradient.

The network begins from a start, an object with a smooth random phase. So K starts give K hypotheses. As in any iterative phasing,
chance decides between the crystal and its twin. Voxels that are not valid may take any value. The object lives in the central half
of the array (oversampling of at least 2 on each axis). No label is used; the loss is in `braggshot.nn.losses`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from braggshot.physics.fourier import AXES, crop, pad, to_centre, to_corner

EPSILON = 0.1  # modulus of a step's complex output z below which the amplitude fades [1]
PHOTON_NOISE = 0.25  # variance that photon noise gives a measured magnitude sqrt(I) [photons]
# Slope k of the factor sigmoid(k d) that dims a random start on one side of a plane. d is the distance from the plane in units of
# half the box, negative on the dimmed side [1].
LEAN = 8.0
STRIDE = 16  # the length of every axis of the data must be a multiple of this number [voxels]


@dataclass(frozen=True)
class NetworkConfig:
    """Size of the network.

    Parameters
    ----------
    channels : number of channels of each level of the U-Net, the finest first; each level has half as many voxels per axis as the
        level before
    steps : number of learned steps in one forward pass
    """

    channels: tuple[int, ...] = (32, 64, 128, 192)
    steps: int = 2


@dataclass(frozen=True)
class Measurement:
    """Magnitudes and masks of a batch of patterns, in corner layout (origin at the first voxel), so that transforms need no shifts.

    Parameters
    ----------
    magnitude : sqrt(counts), 0 where not valid (n, z, y, x) [sqrt(photons)]
    valid : 1 on trusted voxels, 0 elsewhere (n, z, y, x)
    """

    magnitude: Tensor
    valid: Tensor

    @classmethod
    def of(cls, counts: Tensor, valid: Tensor) -> Measurement:
        """Build a measurement from counts (n, z, y, x) and a mask, both centred at N // 2 [photons]."""
        known = to_corner(valid).float()
        return cls(to_corner(counts.float()).clamp_min(0).sqrt() * known, known)

    def repeat(self, times: int) -> Measurement:
        """Return a measurement in which each pattern is repeated `times` times in succession.

        So the network can predict several objects for each pattern.
        """
        return Measurement(self.magnitude.repeat_interleave(times, 0), self.valid.repeat_interleave(times, 0))


def magnitude_of(rho: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Pad objects `rho` (n, z, y, x) to `shape` and transform them; return the transform and its modulus, in corner layout.

    The objects are not shifted to the corner of direct space. A shift would multiply the transform by a phase ramp, which changes
    neither the modulus nor the object that the inverse transform returns.
    """
    field = torch.fft.fftn(pad(rho, shape), dim=AXES, norm="ortho")
    parts = torch.view_as_real(field)
    return field, (parts.square().sum(-1) + 1e-12).sqrt()


def scale_to(magnitude: Tensor, data: Measurement) -> Tensor:
    """Return the factor c = sum m |F| / sum |F|^2 that fits moduli |F| to measured magnitudes m over valid voxels, (n, 1, 1, 1)."""
    seen = magnitude * data.valid
    return (seen * data.magnitude).sum(AXES, keepdim=True) / seen.square().sum(AXES, keepdim=True).clamp_min(1e-12)


def modulus_projection(field: Tensor, magnitude: Tensor, data: Measurement, box: torch.Size) -> Tensor:
    """Return the modulus projection of objects, cropped to the shape `box`.

    `field` is the transform of the objects, and `magnitude` its modulus. The field is multiplied by the ratio of measured to
    computed magnitudes; voxels that are not valid keep the computed amplitude. Where no photon was counted, the variance of photon
    noise is added to the computed intensity, so that the ratio does not divide by zero.
    """
    scaled = magnitude * scale_to(magnitude.detach(), data)
    ratio = data.magnitude / (scaled.square() + PHOTON_NOISE * (data.magnitude == 0)).clamp_min(1e-6).sqrt()
    ratio = ratio * data.valid + (1 - data.valid)
    projected = torch.view_as_complex(torch.view_as_real(field) * ratio[..., None])
    return crop(torch.fft.ifftn(projected, dim=AXES, norm="ortho"), box)


def unshuffle(x: Tensor, factor: int) -> Tensor:
    """Turn each block of factor^3 voxels into channels of one voxel: (n, c, z, y, x) -> (n, c factor^3, z / factor, ...)."""
    n, c, *size = x.shape
    z, y, x_ = (s // factor for s in size)
    x = x.reshape(n, c, z, factor, y, factor, x_, factor)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(n, c * factor**3, z, y, x_)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def _channels(field: Tensor) -> Tensor:
    """Turn a complex field (n, z, y, x) into a real field with the channels real part and imaginary part (n, 2, z, y, x)."""
    return torch.view_as_real(field).movedim(-1, 1)


def _compress(field: Tensor) -> Tensor:
    """Compress a Patterson function, whose values span decades: keep the phase, take the square root of the modulus.

    The largest modulus becomes one.
    """
    power = torch.view_as_real(field).square().sum(-1)
    factor = (power + 1e-12 * power.amax(AXES, keepdim=True)).pow(-0.25) * power.amax(AXES, keepdim=True).clamp_min(1e-30).pow(
        -0.25
    )
    return _channels(field) * factor[:, None]


@dataclass(frozen=True)
class Features:
    """Features of the measured patterns that every step of the network sees.

    Parameters
    ----------
    direct : complex Patterson functions of the counts I and of sqrt(I), compressed. At a voxel r of the array's central half, the
        channels hold the values of both functions at r and at 2 r (n, 8, z / 2, y / 2, x / 2)
    whole : Patterson functions, counts and mask on the whole array. The 4^3 voxels of each block are channels of one voxel, so
        there are WHOLE channels (n, WHOLE, z / 4, y / 4, x / 4)
    extent : square root of the Patterson function of I at 2 r; large where r lies inside a convex body (n, z / 2, y / 2, x / 2)
    """

    direct: Tensor
    whole: Tensor
    extent: Tensor

    @classmethod
    def of(cls, data: Measurement) -> Features:
        """Compute the features of a batch of patterns; no weight is learned here."""
        half = [n // 2 for n in data.magnitude.shape[-3:]]
        patterson = torch.cat(
            [_compress(to_centre(torch.fft.ifftn(m, dim=AXES))) for m in (data.magnitude.square(), data.magnitude)], 1
        )
        brightest = data.magnitude.amax(AXES, keepdim=True).clamp_min(1e-12)
        counts = to_centre((data.magnitude / brightest).pow(0.25))
        # Logarithm of the magnitudes, not divided by the largest magnitude, so that the network sees how many photons there are.
        noise = to_centre((1 + data.magnitude).log() / 8)
        reciprocal = torch.stack([counts, noise, to_centre(data.valid)], 1)
        twice = patterson[..., ::2, ::2, ::2]
        return cls(
            direct=torch.cat([crop(patterson, half), twice], 1),
            whole=unshuffle(torch.cat([patterson, reciprocal], 1), 4),
            extent=torch.linalg.vector_norm(twice[:, :2], dim=1),
        )


# Number of channels of `Features.whole`: each block of 4 x 4 x 4 voxels gives 64 values of 7 fields (4 of the Patterson function,
# 3 in reciprocal space)
WHOLE = 64 * (4 + 3)
SEEN = 6  # number of channels that hold real part, imaginary part and modulus of the object and of its modulus projection


class Convolution(nn.Conv3d):
    """Convolution `torch.nn.Conv3d` that always uses oneDNN on a CPU.

    For a batch of one small pattern torch would choose a kernel that takes up to 20 times as long.
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if len(x) > 1 or not (plain and has_onednn):
            return super()._conv_forward(x, weight, bias)
        assert not isinstance(self.padding, str)
        return torch.mkldnn_convolution(x, weight, bias, self.padding, self.stride, self.dilation, self.groups)


class Block(nn.Module):
    """Residual block: convolutions whose output is added to the input."""

    def __init__(self, channels: int, depth: int = 2) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(depth))
        self.convolutions = nn.ModuleList(Convolution(channels, channels, 3, padding=1) for _ in range(depth))
        nn.init.zeros_(self.convolutions[-1].get_parameter("weight"))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to (n, c, z, y, x); the shape is kept."""
        # Where the grid is smaller than the kernel, oneDNN's bfloat16 gradient of the weights is wrong (torch 2.13, on a CPU).
        with torch.autocast(x.device.type, enabled=torch.is_autocast_enabled(x.device.type) and min(x.shape[-3:]) > 2):
            return x + self._residual(x)

    def _residual(self, x: Tensor) -> Tensor:
        y = x if torch.is_autocast_enabled(x.device.type) else x.float()
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            y = convolution(functional.silu(norm(y)))
        return y


class UNet(nn.Module):
    """U-Net of residual blocks.

    Skip connections add the output of each level on the way down to the same level on the way up. A second input, the context, is
    added at the second-finest level.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(pairwise(channels))
        depths = [1, *(2 for _ in pairs)]  # number of convolutions in each level's block; one at the finest, which has most voxels
        self.down = nn.ModuleList(Block(c, d) for c, d in zip(channels, depths, strict=True))
        self.up = nn.ModuleList(Block(c, d) for c, d in zip(channels, depths, strict=True))
        self.coarser = nn.ModuleList(Convolution(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.finer = nn.ModuleList(nn.ConvTranspose3d(coarse, fine, 2, stride=2) for fine, coarse in pairs)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Apply the U-Net to (n, c, z, y, x); `context` has the grid and the channels of the second-finest level."""
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
    """Input of a learned step: the object, its modulus projection, its misfit, and the memory of earlier steps."""

    rho: Tensor
    projected: Tensor
    error: Tensor
    memory: Tensor


class PhaseNetwork(nn.Module):
    """Network of learned phasing steps; `forward` returns the object after every step, and the last object is the prediction."""

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
        """Return the object and the modulus of its transform after every step.

        Parameters
        ----------
        magnitude, valid : square root of the counts, and mask of the trusted voxels, as in `Measurement`: (n, z, y, x), or
            (1, z, y, x) for one pattern and n starts
        rho : object from which the network starts, in the central half of the array, from `random_start`
        steps : number of steps; None takes the number of the configuration

        Returns
        -------
        pair of rho (n, z / 2, y / 2, x / 2) complex and |F| (n, z, y, x) for each step; the last rho is the prediction
        """
        data = Measurement(magnitude, valid)
        features = Features.of(data)
        context = self.context(_channels_last(features.whole))
        told = self.told(_channels_last(features.direct))
        memory = torch.zeros_like(told)
        shape, box = magnitude.shape[-3:], rho.shape[-3:]
        seen, outputs = magnitude_of(rho, shape), []
        for _ in range(steps or self.config.steps):
            # No gradient passes through the projection, because it grows without bound as |F| -> 0. So each step learns alone.
            with torch.no_grad():
                projected, error = modulus_projection(*seen, data, box), misfit(seen[1], data).sqrt()
            rho, memory = self._step(_State(rho.detach(), projected, error, memory), told, context)
            seen = magnitude_of(rho, shape)
            outputs.append((rho, seen[1]))
        return outputs

    def _step(self, state: _State, told: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Apply one learned step: return the object (n, z / 2, y / 2, x / 2) complex, and the memory for the next step."""
        gauge = _mean_phase(state.projected).conj()
        p, old = _channels(normalise(state.projected) * gauge), _channels(state.rho * gauge)
        size, was = p.square().sum(1, keepdim=True).add(1e-8).sqrt(), old.square().sum(1, keepdim=True).add(1e-8).sqrt()
        level = state.error.reshape(-1, 1, 1, 1, 1).expand_as(size)
        x = self.entry(_channels_last(torch.cat([p, size, old, was, level], 1)))
        memory = self.body(x + told + self.recall(state.memory), context)
        out = self.exit(functional.silu(memory)).float()
        gate = torch.sigmoid(4 * out[:, 1:2])
        z = gate * p + out[:, 2:]
        amplitude = torch.sigmoid(_anchor(10 * gate * size + 4 * out[:, :1]))
        rho = amplitude * z * (z.square().sum(1, keepdim=True) + EPSILON**2).rsqrt()
        return torch.view_as_complex(rho.movedim(1, -1).contiguous()), memory


def misfit(magnitude: Tensor, data: Measurement) -> Tensor:
    r"""Return chi2 (n,) at the best scale, :math:`1 - (\sum m|F|)^2 / (\sum m^2 \sum |F|^2)` over valid voxels.

    |F| are the computed moduli, and m the measured magnitudes.
    """
    seen = magnitude * data.valid
    overlap = (seen * data.magnitude).sum(AXES).square()
    return (1 - overlap / (seen.square().sum(AXES) * data.magnitude.square().sum(AXES)).clamp_min(1e-12)).clamp_min(1e-8)


def random_start(data: Measurement, generator: Generator, times: int = 1, strongest: float = 2.0) -> Tensor:
    """Draw random starts, (n times, z / 2, y / 2, x / 2) complex64: `times` in a row for each of n patterns.

    The amplitude is large where the Patterson function says that the object may be. The phase is smooth like that of a crystal,
    because white noise would only be speckle. The strength of the phase is drawn between 0 and `strongest` [rad]. The amplitude
    falls off on one side of a random plane through the middle. So a start is nearer to the crystal or to its twin, and the network
    can learn to predict the nearer of the two instead of a blend of both.
    """
    extent = Features.of(data).extent.repeat_interleave(times, 0)
    n = extent.shape[0]
    side = functional.normalize(torch.randn(n, 3, generator=generator, device=generator.device), dim=1).to(extent.device)
    # Coordinates from -1 to 1 along each axis, zero at the voxel N // 2.
    axes = [torch.linspace(-1, 1, size + 1, device=extent.device)[:-1] for size in extent.shape[1:]]
    distance = torch.einsum("na,azyx->nzyx", side, torch.stack(torch.meshgrid(*axes, indexing="ij")))
    extent = extent * torch.sigmoid(LEAN * distance)
    draw = torch.randn(n, 1, 4, 4, 4, generator=generator, device=generator.device).to(extent.device)
    strength = strongest * torch.rand(n, 1, 1, 1, generator=generator, device=generator.device).to(extent.device)
    smooth = functional.interpolate(draw, size=extent.shape[1:], mode="trilinear", align_corners=True)[:, 0]
    return torch.polar(extent, strength * smooth)


def normalise(field: Tensor) -> Tensor:
    """Scale a field to a typical amplitude of one.

    The typical amplitude is sum |p|^3 / sum |p|^2 of the field p; the empty part of the box does not reduce it.
    """
    amplitude = field.detach().abs()
    power = amplitude.square()
    return field * (power.sum(AXES, keepdim=True) / (power * amplitude).sum(AXES, keepdim=True).clamp_min(1e-12))


def _anchor(logit: Tensor, share: float = 1 / 64, top: float = 2.0) -> Tensor:
    """Shift the logits of the amplitude (n, 1, z, y, x) so that their mean over the brightest `share` of the voxels is `top`.

    The scale of an object cannot be measured. Without this shift nothing would keep all amplitudes from drifting to zero.
    """
    flat = logit.flatten(1)
    brightest = flat.topk(max(1, int(share * flat.shape[1])), dim=1).values.mean(1)
    return logit - (brightest - top).reshape(-1, 1, 1, 1, 1)


def _mean_phase(field: Tensor) -> Tensor:
    """Return the phase factor, a complex number of modulus one, of sum |p| p over the voxels of a field p.

    Diffraction does not fix the global phase of an object. So this factor is divided out before a step of the network sees the
    object.
    """
    total = (field.detach().abs() * field.detach()).sum(AXES, keepdim=True)
    return total / total.abs().clamp_min(1e-12)
