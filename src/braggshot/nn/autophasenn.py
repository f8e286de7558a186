r"""Define the published networks, for comparison: an encoder, a decoder for the amplitude and one for the phase.

.. math:: \rho = A\, e^{i \varphi} \,[A \ge T], \qquad A = \sigma(a), \quad \varphi = \pi \tanh(p), \qquad (a, p) = N(|F|)

The network N turns the measured magnitudes |F| into the outputs a and p of its two decoders. A sigmoid of a is the amplitude A, and
phi is the phase. The object rho is zero where A lies below the threshold T.

`AutoPhaseNN` is the network of the paper [1]_ (its TensorFlow code). It has five levels of two convolutions down to 512 channels,
nearest upsampling before the convolutions of each level, and zero-padding of the central half to the whole array *before* the last
three convolutions. `AutoPhaseNN2024` is the authors' later, smaller network (their PyTorch code). It has strided convolutions
instead of pooling, trilinear upsampling after the convolutions, zero-padding of the finished object, and a threshold that rises
during training. The threshold T is a hard mask: a voxel below T has no gradient that could bring it back.

Three things differ from the authors' code. Every axis may be any multiple of 16. Arrays come with the origin at the first voxel.
The authors' simulated patterns are scaled as for a crystal of amplitude one; `unit_scale` brings a measured pattern to that scale.

References
----------
.. [1] Y. Yao et al., AutoPhaseNN, npj Comput. Mater. 8, 124 (2022), doi 10.1038/s41524-022-00803-w; layers, initial weights and
   settings as in github.com/YudongYao/AutoPhaseNN and github.com/mcherukara/AutoPhaseNN (b0de63a)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from braggshot.nn.network import Convolution, Measurement, magnitude_of
from braggshot.physics.fourier import AXES, pad, to_centre

SLOPE = 0.01  # slope of the leaky rectified linear units at negative inputs [1]
SMALLEST = 0.01  # lower limit of the threshold that separates a Patterson function from noise, relative to its maximum [1]
DIFFERENCE_BODY = 8  # volume in which a convex, centrosymmetric crystal's Patterson function is not zero / its volume [1]


def unit_scale(data: Measurement) -> Tensor:
    r"""Return the factor s (n, 1, 1, 1) that turns magnitudes into those of a crystal of amplitude one.

    .. math:: s^2 \sum_q |F|^2 = \sum_r |\rho|^2 \approx V

    The transform is unitary. The volume V of the crystal rho [voxels] is estimated as an eighth of the volume of its Patterson
    function, whatever the phase of the crystal. For most simulated crystals the estimate was within a quarter of the truth.
    """
    power = data.magnitude.square()
    photons = power.sum(AXES, keepdim=True).clamp_min(1e-12)
    patterson = torch.fft.fftn(power, dim=AXES).abs() / photons
    level = (4 / photons.sqrt()).clamp(SMALLEST, 0.5)  # threshold on the Patterson function: 4 times its photon noise
    volume = (patterson > level).sum(AXES, keepdim=True) / DIFFERENCE_BODY
    return (volume / photons).sqrt()


class SameConvolution(Convolution):
    """Convolution of width 3 with zero padding, which at a stride of 1 keeps the shape of the array."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__(before, after, 3, stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a batch (n, c, z, y, x)."""
        # Where the grid is smaller than the kernel, oneDNN's bfloat16 gradient of the weights is wrong (torch 2.13, on a CPU).
        if min(x.shape[-3:]) > 2:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class Published(nn.Module):
    """Common part of the two published networks, AutoPhaseNN and its successor of 2024.

    `forward` takes the same arguments as the `forward` of the other networks, but ignores the start and the number of steps.

    Parameters
    ----------
    threshold : amplitude, 0 to 1, below which the object is zero: at the beginning and at the end of training [1]
    """

    def __init__(self, threshold: tuple[float, float]) -> None:
        super().__init__()
        self.bounds = threshold
        self.threshold: Tensor
        self.register_buffer("threshold", torch.tensor(threshold[1]))

    def anneal(self, share: float) -> None:
        """Set the amplitude threshold of the support, which changes in training; `share` is the part of training done, 0 to 1."""
        first, last = self.bounds
        self.threshold.fill_(first + (last - first) * min(share, 1.0))

    def decode(self, x: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Return the outputs of both decoders for an input (n, 1, z, y, x), before sigmoid and tanh.

        `shape` is that of the whole array. The outputs cover it in `AutoPhaseNN`; in `AutoPhaseNN2024`, its central half per axis.
        """
        raise NotImplementedError

    def scale(self, data: Measurement) -> Tensor:
        """Scale the magnitudes to the range on which the network was trained."""
        raise NotImplementedError

    def forward(
        self, magnitude: Tensor, valid: Tensor, rho: Tensor | None = None, steps: int | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Return the object and the modulus of its transform.

        Parameters
        ----------
        magnitude, valid : (n, z, y, x) square root of the counts, and mask of the trusted voxels, as in `Measurement`
        rho, steps : not used, because the published networks need no start and have one step

        Returns
        -------
        list of one pair: the complex object, zero below the threshold, on the grid of the outputs of `decode`; and the modulus of
            the object's transform (n, z, y, x)
        """
        x = to_centre(self.scale(Measurement(magnitude, valid)))[:, None]
        a, p = self.decode(x.contiguous(memory_format=torch.channels_last_3d), magnitude.shape[-3:])
        amplitude, phase = a.float()[:, 0].sigmoid(), math.pi * p.float()[:, 0].tanh()
        found = torch.polar(amplitude * (amplitude >= self.threshold), phase)
        return [(found, magnitude_of(found, magnitude.shape[-3:])[1])]


def _keras_norm(channels: int) -> nn.BatchNorm3d:
    return nn.BatchNorm3d(channels, eps=1e-3, momentum=0.01)


class AutoPhaseNN(Published):
    """Network AutoPhaseNN of the paper by Yao et al. (2022)."""

    CHANNELS = (32, 64, 128, 256, 512)
    AMPLITUDE, PHASE, LAST = (256, 128, 64), (128, 128, 64), 32

    def __init__(self) -> None:
        super().__init__((0.1, 0.1))
        self.encoder = nn.ModuleList(self._pair(a, b) for a, b in pairwise((1, *self.CHANNELS)))
        self.amplitude, self.phase = self._decoder(self.AMPLITUDE), self._decoder(self.PHASE)
        for module in self.modules():
            if isinstance(module, nn.Conv3d) and module.bias is not None:
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's annotations lack it

    def scale(self, data: Measurement) -> Tensor:
        """Scale the magnitudes to a crystal of amplitude one and a transform without the factor 1 / sqrt(number of voxels)."""
        return data.magnitude * unit_scale(data) * math.sqrt(data.magnitude[0].numel())

    def decode(self, x: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Return the outputs of the amplitude and the phase decoder on the whole array, (n, 1, z, y, x).

        Each decoder pads the central half of the array with zeros before its last convolutions.
        """
        for level, pair in enumerate(self.encoder):
            x = pair(functional.max_pool3d(x, 2) if level else x)
        outputs = []
        for decoder in (self.amplitude, self.phase):
            y = x
            for pair in decoder[:-1]:
                y = pair(functional.interpolate(y, scale_factor=2, mode="nearest"))
            outputs.append(decoder[-1](pad(y, shape)))
        return outputs[0], outputs[1]

    def _pair(self, before: int, after: int) -> nn.Sequential:
        layers = [(SameConvolution(c, after), nn.LeakyReLU(SLOPE), _keras_norm(after)) for c in (before, after)]
        return nn.Sequential(*layers[0], *layers[1])

    def _decoder(self, channels: Sequence[int]) -> nn.ModuleList:
        pairs = [self._pair(a, b) for a, b in pairwise((self.CHANNELS[-1], *channels))]
        last = [(SameConvolution(c, self.LAST), nn.ReLU(), _keras_norm(self.LAST)) for c in (channels[-1], self.LAST)]
        return nn.ModuleList([*pairs, nn.Sequential(*last[0], *last[1], SameConvolution(self.LAST, 1))])


class AutoPhaseNN2024(Published):
    """Smaller network by the authors of AutoPhaseNN, from their code of 2024."""

    ENCODER = ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 2))  # (channels, stride) of each convolution
    DECODER = (128, 64, 32)

    def __init__(self) -> None:
        super().__init__((0.07, 0.10))
        layers: list[nn.Module] = []
        for (before, _), (after, stride) in pairwise(((1, 1), *self.ENCODER)):
            layers += [SameConvolution(before, after, stride), nn.LeakyReLU(SLOPE), nn.BatchNorm3d(after)]
        self.encoder = nn.Sequential(*layers)
        self.amplitude, self.phase = self._decoder(), self._decoder()
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's annotations lack it

    def scale(self, data: Measurement) -> Tensor:
        """Scale the magnitudes so that the brightest voxel is one."""
        return data.magnitude / data.magnitude.amax(AXES, keepdim=True).clamp_min(1e-12)

    def decode(self, x: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Return the outputs of the amplitude and the phase decoder (n, 1, z / 2, y / 2, x / 2)."""
        encoded = self.encoder(x)
        return self.amplitude(encoded), self.phase(encoded)

    def _decoder(self) -> nn.Sequential:
        layers: list[nn.Module] = []
        for before, after in pairwise((self.ENCODER[-1][0], *self.DECODER)):
            for channels in (before, after):
                layers += [SameConvolution(channels, after), nn.LeakyReLU(SLOPE), nn.BatchNorm3d(after)]
            layers.append(nn.Upsample(scale_factor=2, mode="trilinear"))
        return nn.Sequential(*layers, SameConvolution(self.DECODER[-1], 1))
