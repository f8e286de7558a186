r"""Correct a phased crystal for what phasing leaves out: the curvature of the measured grid, and refraction and absorption.

Phasing takes the measured grid for straight: frame, row and column count along three fixed edges of q. Over a wide window pixels
and angles lie on curves. Interpolated counts are no Poisson numbers any more, so the found field F(k) is interpolated instead: it
is taken where q is on the straight grid. Where counts were interpolated (`braggshot.prepare.straight`), nothing is left.

A crystal slows and weakens the beam on its way in and out, so the phased object is

.. math:: \rho_\text{found}(r) = \rho(r)\, e^{-k (i \delta + \beta) L(r)}

with the refractive index n = 1 - delta + i beta, the wave number k = 2 pi / lambda, and the length L of the path inside the crystal
to r along the incoming beam and from r along the scattered beam.

Sources: Harder et al., Phys. Rev. B 76, 115425 (2007), for refraction in Bragg coherent diffraction.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.polynomial.polynomial import polygrid3d
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.errors import GeometryError
from braggshot.physics.geometry import curvature, direction, mean_energy, wavelength
from braggshot.physics.iso_surface import iso_surface
from braggshot.physics.strain import on_grid
from braggshot.volumes import BoolArray, ComplexArray, FloatArray, Reconstruction

# Displacement of a voxel in reciprocal space from which the grid is straightened [voxels].
_BENT = 0.5
# Step by which the path of the beam through the crystal is followed [voxels].
_STRIDE = 0.25


def straighten(reconstruction: Reconstruction, *, correct: bool) -> tuple[Reconstruction, dict[str, str]]:
    """Take a crystal from the curved grid of pixels and angles to the straight one, where they differ by half a voxel or more.

    Returns
    -------
    The crystal, and a note on how far the grid bends and what was done; the note is empty where the grid is straight.
    """
    volume = reconstruction.volume
    if volume.geometry is None or volume.window is None or volume.window.straight or reconstruction.frame != "detector":
        return reconstruction, {}
    try:
        bends = curvature(volume.geometry, volume.window, volume.shape)
    except GeometryError as error:  # of an object whose angles and counts do not belong together
        return reconstruction, {"curvature": f"curvature of the measured grid not checked: {error}"}
    ends = np.array([-1.0, 0.0, 1.0])
    farthest = float(np.abs(polygrid3d(ends, ends, ends, bends)).max())
    if farthest < _BENT:
        return reconstruction, {}
    said = f"pixels and angles lie on curves: at the corners of the volume they are {farthest:.1f} voxels off a straight grid"
    if not correct:
        return reconstruction, {
            "curvature": f"{said}; not corrected, so fine detail is blurred; results are corrected by strain.curvature = true"
        }
    rho: ComplexArray = np.where(reconstruction.support, reconstruction.rho, 0)
    field = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(rho)))
    z, y, x = (2 * (np.arange(size) - size // 2) / size for size in volume.shape)
    places = np.indices(volume.shape) + polygrid3d(z, y, x, bends)
    parts = [ndimage.map_coordinates(part, places, order=5, mode="grid-wrap") for part in (field.real, field.imag)]
    straight = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(parts[0] + 1j * parts[1])))
    support = ndimage.binary_dilation(reconstruction.support)
    spread = reconstruction.uncertainty
    if spread is not None and spread.deviations is not None:
        widened = np.stack([on_grid(one, reconstruction.support)[support] for one in spread.deviations])
        spread = replace(spread, deviations=widened)
    found = replace(reconstruction, rho=(support * straight).astype(np.complex64), support=support, uncertainty=spread)
    return found, {"curvature": f"{said}; corrected in the found field, the counts were not interpolated"}


def remove_refraction(reconstruction: Reconstruction, index: tuple[float, float]) -> tuple[Reconstruction, dict[str, str]]:
    """Take phase and weakening by the crystal's own refractive index off a crystal.

    Parameters
    ----------
    reconstruction : crystal with its geometry
    index : delta and beta of the refractive index n = 1 - delta + i beta [1]

    Returns
    -------
    The crystal, and a note on what was taken off

    Raises
    ------
    GeometryError : if the photon energy or the directions of the beams are not known.
    """
    geometry, q, basis = reconstruction.volume.geometry, reconstruction.volume.q_bragg, reconstruction.basis
    if geometry is None or q is None or basis is None or reconstruction.frame not in ("detector", "lab"):
        raise GeometryError("the correction of refraction needs energy, angles and voxel size; give the geometry.")
    delta, beta = index
    wave_number = 2 * np.pi / wavelength(mean_energy(geometry))
    incoming = wave_number * direction("z+")
    amplitude = np.abs(reconstruction.rho).astype(np.float64)
    inside = reconstruction.support & (amplitude >= iso_surface(amplitude, reconstruction.support).level)
    lengths = path_length(inside, reconstruction.support, basis, -incoming)
    lengths = lengths + path_length(inside, reconstruction.support, basis, incoming + q)
    factor = np.exp(wave_number * (1j * delta + beta) * lengths)
    longest = float(lengths.max(initial=0))
    turn, lost = wave_number * delta * longest, 100 * -np.expm1(-wave_number * beta * longest)
    said = (
        f"taken off by the crystal's shape, delta {delta:g}, beta {beta:g}: up to {turn:.2f} rad and {lost:.2g} % of the amplitude "
        f"over {longest * 1e9:.0f} nm; wrong if the crystal is the twin"
    )
    return replace(reconstruction, rho=(reconstruction.rho * factor).astype(np.complex64)), {"refraction": said}


def path_length(inside: BoolArray, wanted: BoolArray, basis: FloatArray, towards: FloatArray) -> NDArray[np.float64]:
    """Measure how far a straight path runs inside a body, from the middle of each wanted voxel in one direction [m]; 0 elsewhere.

    Parameters
    ----------
    inside : voxels of the body (z, y, x)
    wanted : voxels from which paths begin
    basis : columns are the voxel edges [m]
    towards : vector along the path, of any length
    """
    heading = np.linalg.solve(basis, towards)
    move = _STRIDE * heading / np.linalg.norm(heading)  # [voxels]
    stride = float(np.linalg.norm(basis @ move))
    body, points = inside.astype(np.float32), np.argwhere(wanted).T.astype(float)
    extent = np.ptp(np.argwhere(inside), axis=0) + 2 if inside.any() else np.zeros(3)
    steps = int(np.ceil(np.linalg.norm(extent) / _STRIDE))
    total = np.zeros(points.shape[1])
    for number in range(steps):
        total += ndimage.map_coordinates(body, points + (number + 0.5) * move[:, None], order=1)
    lengths = np.zeros(inside.shape)
    lengths[wanted] = stride * total
    return lengths
