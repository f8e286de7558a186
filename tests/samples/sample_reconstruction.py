"""A small crystal with every field filled, on a grid of unequal and odd sizes, and the volume that it explains exactly."""

import numpy as np
import torch

from braggshot.physics.fourier import fourier
from braggshot.volumes import Circle, DiffractionVolume, Ensemble, Geometry, Quality, Reconstruction, Window

SHAPE = (10, 12, 15)
GEOMETRY = Geometry(
    energy=1.44e-15,
    distance=0.5,
    pixel_size=(55e-6, 56e-6),
    sample=(Circle("x-", 0.1, "mu"), Circle("y+", np.linspace(0.2, 0.21, 10), "theta")),
    detector=(Circle("y+", 0.5, "delta"), Circle("x-", 0.3, "gamma")),
    direct_beam=(120.5, 99.0),
    row_axis="y-",
    column_axis="x+",
    instrument="APS 34-ID-C",
)
SKEWED_BASIS = np.array([[9e-9, 1e-9, 0.0], [0.0, 8e-9, 0.5e-9], [0.0, 0.0, 7e-9]])


def sample_volume(rho, **fields):
    intensity = fourier(torch.from_numpy(rho)).abs().square().numpy()
    valid = np.ones(rho.shape, bool)
    valid[0, 0, :3] = False
    return DiffractionVolume(np.where(valid, intensity, 0).astype(np.float32), valid, name="example_S0054", **fields)


def sample_reconstruction(shape=SHAPE, **changes):
    random = np.random.default_rng(1)
    support = np.zeros(shape, bool)
    support[tuple(slice(n // 2 - n // 4, n // 2 + n // 5 + 1) for n in shape)] = True  # not symmetric about the centre
    rho = np.where(support, random.uniform(5, 9, shape) * np.exp(1j * random.uniform(-3, 3, shape)), 0).astype(np.complex64)
    volume = sample_volume(
        rho,
        window=Window((3, -1, 7), (1, 2, 2), (64, 256, 256)),
        reciprocal_basis=2 * np.pi * np.linalg.inv(SKEWED_BASIS).T / np.array(shape),
        q_bragg=np.array([1e9, 2.5e10, -3e9]),
        oversampling=(2.5, 3.0, 3.75),
        steps=("masked 3 pixels", "cropped to 10 x 12 x 15"),
        geometry=GEOMETRY,
        provenance={"files": ["a.tif", "b.tif"], "options": {"scan": 54, "roi": None}},
    )
    fields = {
        "rho": rho,
        "support": support,
        "volume": volume,
        "quality": Quality(0.0123, 0.08, 0.9, 1.1, agreement=(1.0, 0.99, 0.42), resolution=21e-9),
        "basis": SKEWED_BASIS,
        "ensemble": Ensemble(
            table={"start": np.arange(3), "seed": np.array([7, 8, 9]), "chi2": np.array([0.0123, 0.0125, 0.09])},
            mode_weights=np.array([0.8, 0.15, 0.05]),
            prtf=np.array([1.0, 0.9, 0.4]),
            prtf_frequency=np.array([0.0, 1e8, 2e8]),
            mode=0.9 * rho,
        ),
        "verdict": "good",
        "reasons": ("two of three starts agree", "die Übereinstimmung ist χ² = 0,012"),
        "history": {"iteration": np.arange(4), "error": np.array([0.5, 0.2, 0.1, 0.05])},
        "method": "oneshot",
        "network": "small-64",
        "configuration": {
            "seed": 3,
            "refine": {"recipe": "RAAR**50", "beta": 0.9, "steps": [1, 2], "mixed": [1, "a"], "psf": None},
        },
        "choices": {"sign": "phase = -q.u", "twin": "kept"},
        "psf": {"kind": "pseudo-voigt", "sigma": (0.3, 0.4, 0.5), "eta": 0.1},
        "seconds": {"prepare": 0.5, "phasing": 3.25},
    }
    return Reconstruction(**(fields | changes))
