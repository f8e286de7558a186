"""cdiutils itself on our files and fields; skipped where it is not installed (the extra ``interop`` does that)."""

import dataclasses
import importlib.util

import numpy as np
import pytest
from scipy import ndimage

from braggshot.crystal_frame import StrainConfig, strain_map, to_lab
from braggshot.io import results
from braggshot.io.results import cdiutils
from braggshot.physics import strain as physics
from braggshot.volumes import DiffractionVolume, Quality, Reconstruction

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("cdiutils") is None, reason="cdiutils is not installed (the extra interop)"),
    pytest.mark.filterwarnings("ignore"),  # of that program and its libraries
]
SHAPE = (40, 44, 36)
BASIS = np.array([[12.6, 0.0, -3.2], [3.3, -10.0, 0.5], [7.9, 0.0, 9.5]]) * 1e-9
Q = np.array([-7.0e9, 1.1e10, 2.1e10])


@pytest.fixture(scope="module")
def crystal():
    """An ellipsoid with a quadratic displacement, some radians of phase and a ramp, on skewed voxels."""
    r = np.tensordot(BASIS, np.indices(SHAPE) - np.array(SHAPE).reshape(3, 1, 1, 1) // 2, axes=1)
    inside = (r[0] / 110e-9) ** 2 + (r[1] / 80e-9) ** 2 + (r[2] / 95e-9) ** 2 < 1
    along = np.tensordot(Q / np.linalg.norm(Q), r, axes=1)
    u = 4e3 * along * (r[0] + 2 * r[1]) + 1e-4 * r[2]
    rho = inside * 50.0 * np.exp(-1j * np.linalg.norm(Q) * u)
    volume = DiffractionVolume(
        np.ones(SHAPE, np.float32), np.ones(SHAPE, bool), name="ball_S0007", q_bragg=Q,
        reciprocal_basis=2 * np.pi * np.linalg.inv(BASIS).T / np.array(SHAPE),
    )  # fmt: skip
    return Reconstruction(rho.astype(np.complex64), inside, volume, Quality(0, 0, 0, 0), basis=BASIS)


def test_it_finds_our_images_by_name(crystal, tmp_path):
    from cdiutils.io.cxi import load_cxi

    found = strain_map(crystal, StrainConfig(reflection=(1, 1, 1)))
    results.write(tmp_path / "a.cxi", dataclasses.replace(crystal, strain=found))
    read = load_cxi(str(tmp_path / "a.cxi"), "amplitude", "displacement", "strain", "support", "lattice_parameter")
    np.testing.assert_allclose(read["strain"], found.strain)
    np.testing.assert_allclose(read["lattice_parameter"], found.lattice_parameter, rtol=1e-6)
    np.testing.assert_array_equal(read["support"], found.support)


def test_its_pipeline_would_load_our_object(crystal, tmp_path):
    from cdiutils.io.cxi import CXIFile

    with CXIFile(str(cdiutils.export(tmp_path, crystal)), "r") as file:
        np.testing.assert_array_equal(file["entry_1/data_1/data"][0], crystal.rho)


def test_its_strain_of_our_field_is_ours(crystal):
    """Same field, same grid: displacement [Å] and strain [%] of both programs, where both take central differences."""
    from cdiutils.process.postprocessor import PostProcessor

    lab = to_lab(crystal, 10e-9)
    ours = strain_map(crystal, StrainConfig(frame="lab", voxel_size=10e-9))
    slope = physics.gradient(physics.phase_differences(np.exp(1j * ours.phase), ours.support), ours.basis)
    differences = physics.strain(slope, ours.q_bragg)  # along the axes, as theirs; the strain map takes them along q
    theirs = PostProcessor.get_structural_properties(
        np.array(lab.rho), 0.5, g_vector=tuple(ours.q_bragg * 1e-10), hkl=(1, 1, 1), voxel_size=(10.0, 10.0, 10.0), phase_factor=-1
    )
    # It crops about the centre of its support.
    size = theirs["support"].shape
    moved = np.rint(np.array(ndimage.center_of_mass(lab.rho != 0)) - ndimage.center_of_mass(theirs["support"])).astype(int) + 20
    window = tuple(slice(start, start + n) for start, n in zip(moved, size, strict=True))
    strain, displacement, bulk = (np.pad(array, 20)[window] for array in (differences, ours.displacement, ours.bulk))
    inner = ndimage.binary_erosion(bulk, iterations=2)
    assert inner.sum() > 500
    found = theirs["het_strain"][inner] / 100
    # The mean lattice is that of a fitted plane there, that of the mean gradient here.
    np.testing.assert_allclose(found - found.mean(), strain[inner] - strain[inner].mean(), atol=0.03 * np.std(strain[inner]))
    difference = theirs["displacement"][inner] * 1e-10 - displacement[inner]
    plane = np.column_stack([*np.nonzero(inner), np.ones(inner.sum())])
    difference -= plane @ np.linalg.lstsq(plane, difference, rcond=None)[0]
    assert np.std(difference) < 0.01 * np.std(displacement[inner])
