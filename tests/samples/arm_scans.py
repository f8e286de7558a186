"""Scans of a detector's arm through the direct beam, drawn where the scattering vector of a pixel is zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from braggshot.io.beamlines.instruments import INSTRUMENTS
from braggshot.io.frames import ArrayFrames
from braggshot.physics.geometry import KEV, scattering_vector
from braggshot.volumes import Circle, Geometry, Scan

PIXEL, SIDES = 55e-6, (256, 250)
UNKNOWN = {"distance": 5.0, "direct_beam": (0.0, 0.0), "detector_rotation": 0.0, "tilt_azimuth": 0.0, "tilt": 0.0}
"""What is not known before a calibration."""


def arm(name="id01", angles=None, **changes):
    """Geometry of an arm scan: (n, 2) angles [deg] of the two innermost detector circles; by default 7 x 7 of them."""
    known, grid = INSTRUMENTS[name], np.linspace(-0.25, 0.25, 7)
    angles = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2) if angles is None else np.asarray(angles, float)
    sample = tuple(Circle(axis.axis, 0.0, axis.motor) for axis in known.sample)
    still = tuple(Circle(axis.axis, 0.0, axis.motor) for axis in known.detector[:-2])
    turned = [np.radians(column) if np.ptp(column) else float(np.radians(column[0])) for column in angles.T]
    moving = tuple(Circle(axis.axis, angle, axis.motor) for axis, angle in zip(known.detector[-2:], turned, strict=True))
    places = {"distance": 1.234, "direct_beam": (130.3, 118.8), "detector_rotation": np.radians(0.4)}
    places |= {"tilt_azimuth": np.radians(40.0), "tilt": np.radians(0.8)}
    return Geometry(
        9 * KEV, sample=sample, detector=(*still, *moving), pixel_size=(PIXEL, PIXEL), row_axis=known.row_axis,
        column_axis=known.column_axis, **{**places, **changes},
    )  # fmt: skip


def places_of(geometry):
    """Pixels (n, 2) of zero scattering vector, found by search."""
    number = max(np.size(circle.angle) for circle in geometry.detector)
    rocking = (replace(geometry.sample[0], angle=np.zeros(2)), *geometry.sample[1:])
    found = []
    for index in range(number):
        detector = tuple(replace(c, angle=float(np.ravel(c.angle)[index % np.size(c.angle)])) for c in geometry.detector)
        still = replace(geometry, sample=rocking, detector=detector)
        pixel = np.array(geometry.direct_beam)
        for _ in range(4):  # Newton's rule; q is almost linear
            q, down, right = scattering_vector(still, 0, *(pixel + np.array([[0.0, 0], [1, 0], [0, 1]])).T)[:, 1:]
            pixel = pixel - np.linalg.solve(np.stack([down - q, right - q], axis=1), q)
        found.append(pixel)
    return np.array(found)


def arm_scan(geometry, width=1.6, counts=20000.0, seed=0, sides=SIDES):
    """Frames of a round beam of so many photons and `width` pixels (standard deviation), on a background with hot pixels."""
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[: sides[0], : sides[1]]
    frames = np.stack([
        counts / (2 * np.pi * width**2) * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))
        for row, column in places_of(geometry)
    ])  # fmt: skip
    frames = rng.poisson(frames + 0.05).astype(np.uint32)
    frames[:, 40, 60], frames[:, 200, 33] = 5000, rng.poisson(900, len(frames))
    return Scan(ArrayFrames(frames), "arm", geometry=replace(geometry, **UNKNOWN))
