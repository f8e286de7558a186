r"""Predict, before a scan, the photons of a Bragg peak, the error of the strain, the coherence of the beam, and the dose; SI.

Photons. A crystal of volume V and unit cells of volume v, in a beam of flux density :math:`\Phi`, scatters into the solid angle
:math:`\Delta\Omega` of a pixel, at the top of its Bragg peak,

.. math:: \dot N_{max} = \Phi\, r_e^2\, P\, |F|^2 \left(\frac{V}{v}\right)^2 \Delta\Omega, \qquad
          \frac{N}{N_{max}} = \frac{(2\pi)^3}{V\,|\det B|}

photons per second. The second formula is Parseval's theorem for a crystal of one density: N are all photons of the scan, B holds
the reciprocal voxel edges. Both give the integrated intensity of B. E. Warren, X-Ray Diffraction (1969), chapter 4, and of
J. Als-Nielsen & D. McMorrow, Elements of Modern X-Ray Physics (2nd edition, 2011), chapter 5. F is the structure factor of the
cell [electrons], r_e the radius of the electron, P the polarisation factor: 1 where the beam is scattered vertically, and
:math:`\cos^2 2\theta` where horizontally.

Strain. A crystal of n voxels has the amplitude :math:`\sqrt{N/n}` in each. A count tells :math:`|F|` with the variance 1/4. All
of them hold the Fisher information :math:`\sum_k 4 \cos^2(\cdot) / V_k = 2` about one component of one voxel's amplitude, V_k the
number of voxels of the pattern. So its variance is at least 1/2, and

.. math:: \sigma_\varphi = \sqrt{\frac{n}{2N}}, \qquad \sigma_g = \frac{\sigma_\varphi}{\sqrt 2}, \qquad
          \sigma_\varepsilon = \frac{\sigma_g}{|q|\,s}

for the phase, for its central difference per voxel, and for the strain along q, with s the length of a voxel along q. What is
measured is larger, because phases have to be found. So `gradient_error` is a law, fitted to simulated crystals that were phased
(``benchmarks/plan.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import constants

from braggshot.volumes import FloatArray

ELECTRON_RADIUS = constants.physical_constants["classical electron radius"][0]  # [m]
# Photons per voxel of the crystal -> error of the phase gradient [rad per voxel], measured where crystals were phased by "auto".
LAW = {20.0: 0.0838, 400.0: 0.0492, 8e3: 0.0194, 8e4: 0.0029}


def ellipsoid_volume(size: Sequence[float]) -> float:
    """Compute the volume [m^3] of an ellipsoid with the diameters `size` (3,) [m]."""
    return math.pi / 6 * float(np.prod(size))


def oversampling_of(size: Sequence[float], reciprocal_basis: FloatArray) -> NDArray[np.float64]:
    r"""Compute the oversampling (3,) of an ellipsoid with the diameters `size` along the laboratory's axes (z, y, x) [m].

    An ellipsoid with diameters :math:`D_j` is :math:`|D b|` wide along the reciprocal voxel edge b, times the length of b, so it is
    sampled :math:`2\pi/|D b|` times as finely as a crystal that fills the array.
    """
    return np.asarray(2 * math.pi / np.linalg.norm(np.asarray(size)[:, None] * reciprocal_basis, axis=0))


def peak_rate(flux: float, structure_factor: float, cells: float, solid_angle: float, polarisation: float = 1.0) -> float:
    """Compute the photons per second in the pixel at the top of the Bragg peak.

    Parameters
    ----------
    flux : flux density of the beam at the crystal [photons/m^2/s]
    structure_factor : |F| of the reflection, for one unit cell [electrons]
    cells : number of unit cells in the crystal
    solid_angle : solid angle of a pixel [sr]
    polarisation : polarisation factor [1]
    """
    return flux * ELECTRON_RADIUS**2 * polarisation * (structure_factor * cells) ** 2 * solid_angle


def photons_over_peak(volume: float, reciprocal_basis: FloatArray) -> float:
    """Compute all photons of a scan over those in its brightest voxel, for an unstrained crystal of `volume` [m^3]."""
    return (2 * math.pi) ** 3 / (volume * abs(float(np.linalg.det(reciprocal_basis))))


def step_along(q: FloatArray, edges: FloatArray) -> float:
    """Compute the length [m] along q of the voxel with these `edges` (columns), as the strain's differences take it."""
    return float(1 / np.linalg.norm(np.linalg.solve(edges, q / np.linalg.norm(q))))


def photon_noise(photons: float) -> float:
    """Compute the error of the phase gradient [rad per voxel] from counting alone, for `photons` per voxel of the crystal."""
    return 0.5 / math.sqrt(photons)


def gradient_error(photons: float) -> float:
    """Predict the root mean square error of the phase gradient [rad per voxel], for `photons` per voxel of the crystal."""
    return _interpolate(photons, LAW)


def photons_for(error: float) -> float:
    """Compute the photons per voxel of the crystal at which `gradient_error` is `error`."""
    return _interpolate(error, {value: photons for photons, value in reversed(LAW.items())}, power=-2.0)


def transverse_coherence(wavelength: float, source: float, distance: float) -> float:
    r"""Compute the transverse coherence length [m], :math:`\lambda R / 2 D`, of a source of full width `source` at `distance` [m].

    F. van der Veen & F. Pfeiffer, J. Phys.: Condens. Matter 16, 5003 (2004).
    """
    return wavelength * distance / (2 * source)


def longitudinal_coherence(wavelength: float, bandwidth: float) -> float:
    r"""Compute the longitudinal coherence length [m], :math:`\lambda^2 / 2 \Delta\lambda`, for the relative `bandwidth` [1].

    F. van der Veen & F. Pfeiffer, J. Phys.: Condens. Matter 16, 5003 (2004).
    """
    return wavelength / (2 * bandwidth)


def rocking_width(spacing: float, size: float) -> float:
    """Compute the full width at half maximum [rad] of the rocking curve of planes `spacing` apart, for a crystal of `size` [m].

    It is that of a block, 0.886 d / D (Scherrer's formula turned round; Warren 1969, chapter 13).
    """
    return 0.886 * spacing / size


def dose_rate(flux: float, energy: float, attenuation: float) -> float:
    """Compute the absorbed dose per second [Gy/s]: flux density x energy x mass attenuation coefficient.

    M. R. Howells et al., J. Electron Spectrosc. Relat. Phenom. 170, 4 (2009). What leaves a nanocrystal as fluorescence or as
    photoelectrons counts as absorbed, so this is an upper limit.

    Parameters
    ----------
    flux : flux density [photons/m^2/s]
    energy : photon energy [J]
    attenuation : mass attenuation coefficient [m^2/kg]
    """
    return flux * energy * attenuation


def _interpolate(at: float, law: Mapping[float, float], power: float = -0.5) -> float:
    """Interpolate a law straight in logarithms between its points; beyond its ends go on with `power`, that of photon noise."""
    points, values = np.array(list(law)), np.array(list(law.values()))
    inside = float(np.clip(at, points[0], points[-1]))
    return float(np.exp(np.interp(math.log(inside), np.log(points), np.log(values)))) * (at / inside) ** power
