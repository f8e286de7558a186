"""The crystal in space, as numbers."""

from dataclasses import replace

import numpy as np
import pytest
from sample_crystal import EDGE, RADIUS, result, strain_map

from braggshot.report import figures
from braggshot.report import solid as solids
from braggshot.report.solid import View


@pytest.fixture(scope="module")
def found():
    return result()


@pytest.fixture(scope="module")
def solid(found):
    return solids.solid(found)


def test_the_surface_is_that_of_the_crystal_in_nanometres(solid):
    surface = solids.mesh(solid, View())
    _, y, x = surface.points.T
    distance = np.linalg.norm(surface.points, axis=1)
    flat = x > 0.65 * RADIUS * 1e9
    assert distance[~flat] == pytest.approx(RADIUS * 1e9, abs=EDGE * 1e9)
    assert x.max() == pytest.approx(0.7 * RADIUS * 1e9, abs=0.6 * EDGE * 1e9)
    assert surface.points.dtype == np.float32
    assert surface.triangles.max() < len(surface.points)
    above, below = surface.values[y > 12], surface.values[y < -12]
    assert above == pytest.approx(4e-4)
    assert below == pytest.approx(-4e-4)


@pytest.mark.parametrize(("colouring", "unit"), [("displacement", "pm"), ("phase", "rad"), ("amplitude", "√photons")])
def test_every_colouring_has_its_unit(solid, colouring, unit):
    surface = solids.mesh(solid, View(colouring))
    assert solid.colours[colouring].unit == unit
    assert np.isfinite(surface.values).all()
    if colouring != "amplitude":
        assert solid.colours[colouring].low == -solid.colours[colouring].high


def test_a_cut_is_flat_and_shows_the_inside(solid):
    whole, cut = solids.mesh(solid, View()), solids.mesh(solid, View(cut="x", kept=0.4))
    plane = solid.low[2] + 0.4 * (solid.high[2] - solid.low[2])
    assert cut.points[:, 2].max() == pytest.approx(plane, abs=0.01)
    face = cut.points[np.abs(cut.points[:, 2] - plane) < 0.01]
    assert np.linalg.norm(face[:, :2], axis=1).min() < 10  # nm from the middle: the face is closed
    assert len(cut.points) < len(whole.points)


def test_nothing_is_drawn_where_the_level_leaves_nothing(solid):
    assert solids.mesh(solid, View(level=1.5)) is None


def test_a_phase_that_wraps_is_coloured_by_triangle_without_a_seam():
    turned = strain_map(phase=np.angle(np.exp(3j * np.indices((28, 32, 30))[0])).astype(np.float32))
    shown = solids.solid(replace(result(), strain=turned))
    surface = solids.mesh(shown, View("phase"))
    assert shown.colours["phase"].name == "twilight_shifted"
    assert surface.is_by_triangle
    assert not solids.mesh(shown, View("strain")).is_by_triangle


def test_without_strain_it_is_drawn_in_voxels_of_the_detector():
    shown = solids.solid(result(with_strain=False))
    assert shown.unit == "voxels"
    assert set(shown.fields) == {"phase", "amplitude"}
    assert shown.colouring("strain") == "phase"
    assert solids.mesh(shown, View()).points[:, 1].max() == pytest.approx(10, abs=1)


def test_an_empty_crystal_has_no_surface(found):
    empty = replace(found, rho=np.zeros_like(found.rho), support=np.zeros_like(found.support), strain=None)
    assert solids.solid(empty) is None


def test_what_goes_over_the_wire_is_bounded():
    fine = strain_map(shape=(170, 170, 170), edge=1e-9)
    shown = solids.solid(replace(result(), strain=fine))
    surface = solids.mesh(shown, View())
    assert 10_000 < len(surface.triangles) <= solids.MAX_TRIANGLES
    assert max(max(plane.values.shape) for plane in solids.planes(shown, View())) <= 128
    assert len(solids.mesh(shown, View(max_triangles=solids.MAX_TRIANGLES_LIVE)).triangles) <= solids.MAX_TRIANGLES_LIVE
    assert np.linalg.norm(surface.points, axis=1).max() == pytest.approx(RADIUS * 1e9, abs=3)


def test_slices_are_where_they_say(solid):
    across_z, across_y, across_x = solids.planes(solid, View(places=(0.5, 0.75, 0.5)))
    assert (across_z.normal, across_z.across, across_z.up) == ("z", "x", "y")
    assert across_y.at == pytest.approx(solid.low[1] + 0.75 * (solid.high[1] - solid.low[1]))
    assert np.nanmin(across_y.values) == pytest.approx(4e-4)
    upper = across_z.values[across_z.y > 12]
    assert np.nanmax(np.abs(upper - 4e-4)) < 1e-5
    assert np.isnan(across_x.values[0, 0])


def test_what_is_known_of_the_lattice_has_its_unit_and_a_range_with_two_ends(found):
    strain = found.strain
    known = {"lattice_parameter": 3.9e-10 * (1 + strain.strain), "strain_sigma": np.where(strain.support, 2e-5, np.nan)}
    shown = solids.solid(replace(found, strain=replace(strain, **known, d_spacing=2.3e-10 * (1 + strain.strain))))
    assert shown.colours["lattice_parameter"].low == pytest.approx(3.9 * (1 - 4e-4), abs=1e-6)
    assert shown.colours["d_spacing"].unit == "Å"
    assert solids.mesh(shown, View("sigma")).values == pytest.approx(2e-5)
    assert shown.colours["sigma"].low < 2e-5 < shown.colours["sigma"].high
    low, high = figures.ends(shown.colours["d_spacing"])
    assert (low, high) == ("2.29908", "2.30092")


def test_what_is_not_known_is_not_offered(solid):
    assert set(solid.fields) == {"strain", "displacement", "phase", "amplitude", "d_spacing"}
    assert solid.colouring("sigma") == "strain"
