"""A small crystal whose shape and strain are known, as a result, as files, and as a feed that a test changes."""

import dataclasses
import threading

import numpy as np
import torch

from braggshot.physics.fourier import fourier
from braggshot.snapshot import Snapshot
from braggshot.volumes import Agreement, DiffractionVolume, Quality, Reconstruction, StrainMap

SHAPE = (28, 32, 30)
EDGE, RADIUS = 8e-9, 80e-9
Q = 2.7e10 * np.array([0.0, 1.0, 0.0])


def strain_map(strain=4e-4, shape=SHAPE, edge=EDGE, **changes):
    """A ball with a flat side at x > 0.7 R, stretched where y > 0 and squeezed below."""
    r = edge * (np.indices(shape) - np.array(shape).reshape(3, 1, 1, 1) // 2)
    depth = np.minimum(RADIUS - np.linalg.norm(r, axis=0), 0.7 * RADIUS - r[2])
    support = depth > 0
    bulk = depth > edge
    fields = {
        "amplitude": (3 * np.clip(0.5 + depth / edge, 0, 1)).astype(np.float32),
        "phase": np.where(support, -np.linalg.norm(Q) * strain * np.abs(r[1]), 0).astype(np.float32),
        "displacement": np.where(support, strain * np.abs(r[1]), np.nan).astype(np.float32),
        "strain": np.where(support, strain * np.sign(r[1]), np.nan).astype(np.float32),
        "d_spacing": np.where(support, 2.3e-10, np.nan),
        "support": support,
        "surface": support & ~bulk,
        "bulk": bulk,
        "dislocation": np.zeros(shape, bool),
        "basis": edge * np.eye(3),
        "q_bragg": Q,
        "frame": "crystal",
        "rotation": np.eye(3),
        "iso_level": 1.5,
        "choices": {"frame": "crystal frame, q along y+"},
    }
    return StrainMap(**(fields | changes))


def result(name="scan_1", strain=4e-4, verdict="good", with_strain=True, shape=SHAPE, edge=EDGE):
    """The same crystal on the detector's grid, with the counts that it would give and a gap."""
    found = strain_map(strain, shape, edge, name=name)
    rho = torch.from_numpy((found.amplitude * found.support * np.exp(1j * found.phase)).astype(np.complex64))
    rho *= np.sqrt(1e4) / fourier(rho).abs().max()
    counts = np.random.default_rng(0).poisson(fourier(rho).abs().square().numpy()).astype(np.float32)
    valid = np.ones(shape, bool)
    valid[:, 5] = False
    return Reconstruction(
        rho=rho.numpy(),
        support=found.support,
        volume=DiffractionVolume(np.where(valid, counts, 0), valid, name=name, q_bragg=Q if with_strain else None),
        quality=Quality(0.0081, 0.052, 0.71, 0.93, (1.0, 0.99), 21e-9, agreeing=Agreement(1, 1, 0, 0.95)),
        basis=found.basis if with_strain else None,
        verdict=verdict,
        reasons=(f"this is why it is {verdict}",),
        history={"iteration": np.arange(5.0), "error": np.geomspace(1, 0.01, 5)},
        seconds={"phasing": 1.0},
        strain=found if with_strain else None,
    )


def row(name, number, verdict="good"):
    """As `braggshot series` makes it."""
    return {
        "input": f"{name}.cxi",
        "name": name,
        "elapsed_s": 60.0 * number,
        "strain_mean": 1e-4 * number,
        "strain_std": 2e-4 * (1 + number),
        "displacement_range_m": 4e-11,
        "d_spacing_m": 2.3e-10,
        "volume_m3": 2e-21,
        "verdict": verdict,
    }


class Changing:
    """A feed that shows what it is told to."""

    def __init__(self, **fields):
        self._lock, self._latest = threading.Lock(), (1, Snapshot(**fields))

    def latest(self):
        with self._lock:
            return self._latest

    def show(self, **changes):
        """Change some fields of the snapshot; its number."""
        with self._lock:
            number, snapshot = self._latest
            self._latest = number + 1, dataclasses.replace(snapshot, **changes)
            return number + 1
