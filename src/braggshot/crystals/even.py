"""Draw crystals whose body and phase have a centre of inversion: radial and cosine fields in cubes, balls and cylinders.

Crystal and twin fill the same body there, and random starts stagnate between them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from braggshot.physics.fourier import fourier

SHAPES, FIELDS = ("cube", "ball", "cylinder"), ("radial", "cosine")


def draw_even(seed: int, size: int) -> tuple[str, float, Tensor, Tensor]:
    """Draw a crystal: phase range pi to 4 pi, oversampling 2.3 to 3, peak 3e4 to 1e6 photons; edges of the body are sharp.

    Returns
    -------
    name : body, field and phase range in words
    span : maximum minus minimum of the phase inside [rad]
    rho : (size, size, size) complex64, centred at N // 2, amplitude 1
    expected : expected intensity, proportional to |F[rho]|^2 [photons]
    """
    generator = np.random.default_rng(seed)
    shape, field, span = SHAPES[seed % 3], FIELDS[seed // 3 % 2], np.pi * generator.uniform(1, 4)
    edges = size / generator.uniform(2.3, 3.0, 3)
    z, y, x = np.meshgrid(*((np.arange(size) - size // 2) / (edge / 2) for edge in edges), indexing="ij")
    inside = {
        "cube": np.maximum(np.maximum(abs(z), abs(y)), abs(x)) <= 1,
        "ball": z**2 + y**2 + x**2 <= 1,
        "cylinder": (abs(z) <= 1) & (y**2 + x**2 <= 1),
    }[shape]
    along = generator.normal(size=3)
    along *= np.pi * generator.uniform(0.7, 1.3) / np.linalg.norm(along)
    power = generator.uniform(0.7, 1.3)
    phi = (z**2 + y**2 + x**2) ** power if field == "radial" else np.cos(along[0] * z + along[1] * y + along[2] * x)
    phi = span * (phi - phi[inside].min()) / np.ptp(phi[inside])
    rho = torch.from_numpy((inside * np.exp(1j * phi)).astype(np.complex64))
    expected = fourier(rho[None])[0].abs().square()
    expected *= 10 ** generator.uniform(4.5, 6) / expected.max()
    return f"{shape} {field} {span / np.pi:.2f} pi", span, rho, expected
