"""The place of a detector against simulated scans of its arm, and what its errors do."""

from dataclasses import replace

import numpy as np
import pytest
from arm_scans import UNKNOWN, arm, places_of

from braggshot.errors import GeometryError
from braggshot.io.beamlines.instruments import INSTRUMENTS
from braggshot.physics.arm_scan import PARAMETERS, TILT, beam_places, find_effects, fit_arm_scan
from braggshot.physics.geometry import reciprocal_basis
from braggshot.volumes import Circle, Window

NOISE = 0.02


def measured(geometry, seed=0, noise=NOISE):
    return beam_places(geometry) + np.random.default_rng(seed).normal(0, noise, (49, 2))


def values(geometry):
    tilt = geometry.tilt * np.exp(1j * geometry.tilt_azimuth)
    return np.array([geometry.distance, *geometry.direct_beam, geometry.detector_rotation, tilt.real, tilt.imag])


def line(circle, span=0.3):
    angles = np.zeros((49, 2))
    angles[:, circle] = np.linspace(-span, span, 49)
    return angles


@pytest.mark.parametrize("name", ["34idc", "id01", "p10", "sixs2022"])
def test_the_beam_lies_where_the_scattering_vector_is_zero(name):
    geometry = arm(name)
    np.testing.assert_allclose(beam_places(geometry), places_of(geometry), atol=1e-6)


def test_the_beam_lies_where_xrayutilities_has_no_scattering():
    xu = pytest.importorskip("xrayutilities")
    geometry = arm(direct_beam=(6.3, 9.1), angles=[[0.004, -0.006]] * 49)
    conversion = xu.experiment.QConversion(["x-"], [c.axis for c in geometry.detector], (0, 0, 1), en=9000.0)
    conversion.init_area(
        geometry.row_axis, geometry.column_axis, cch1=6.3, cch2=9.1, Nch1=20, Nch2=20, distance=1.234, pwidth1=55e-6,
        pwidth2=55e-6, detrot=0.4, tiltazimuth=40.0, tilt=0.8,
    )  # fmt: skip
    q = np.hypot(*np.stack(conversion.area(0.0, 0.004, -0.006, deg=True))[:2])
    row, column = beam_places(geometry)
    nearest = np.unravel_index(q.argmin(), q.shape)
    assert np.abs(np.subtract(nearest, (row, column))).max() <= 0.5


@pytest.mark.parametrize("name", [name for name, known in INSTRUMENTS.items() if len(known.detector) > 1])
def test_a_scan_of_both_circles_tells_all_six(name):
    geometry = arm(name)
    fit = fit_arm_scan(replace(geometry, **UNKNOWN), measured(geometry))
    error, sigma = np.abs(values(fit.geometry) - values(geometry)), np.sqrt(np.diag(fit.covariance))
    assert (error < 3 * sigma).all()
    assert error[0] < 1e-4 * geometry.distance
    assert error[1:3].max() < 0.05
    assert error[3] < np.radians(0.01)
    assert fit.used.all()
    assert fit.spread == pytest.approx(NOISE, rel=0.25)


@pytest.mark.parametrize("angles", [None, line(0), line(1)], ids=["both", "first", "second"])
def test_the_errors_cover(angles):
    """Of 16 scans: each value lies as far from the truth as its error says; what one circle does not tell is not made up."""
    geometry, pulls = arm(angles=angles), []
    for seed in range(16):
        fit = fit_arm_scan(replace(geometry, **UNKNOWN), measured(geometry, seed))
        pulls.append((values(fit.geometry) - values(geometry)) / np.sqrt(np.diag(fit.covariance)))
    spread = np.sqrt(np.mean(np.square(pulls), axis=0))
    assert (spread < 1.4).all()
    assert (spread[:3] > 0.3).all()
    assert fit.geometry.distance == pytest.approx(1.234, rel=3e-4)
    assert set(fit.sigma) == set(PARAMETERS)


def test_a_scan_over_a_large_detector_tells_the_tilt_too():
    grid = np.linspace(-1.2, 1.2, 7)
    geometry = arm(angles=np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2), tilt=np.radians(3.0))
    fit = fit_arm_scan(replace(geometry, **UNKNOWN), measured(geometry))
    assert fit.is_tilt_known
    assert np.degrees(fit.geometry.tilt) == pytest.approx(3.0, abs=0.1)
    assert np.degrees(fit.geometry.tilt_azimuth) == pytest.approx(40.0, abs=2.0)
    one = fit_arm_scan(replace(arm(angles=line(0)), **UNKNOWN), measured(arm(angles=line(0))))
    assert not one.is_tilt_known
    assert max(one.sigma["tilt_row"], one.sigma["tilt_column"]) == pytest.approx(TILT, rel=0.05)


def test_frames_astray_are_left_out():
    geometry, places = arm(), measured(arm())
    places[[3, 30]] += [[8.0, -3.0], [0.0, 1.0]]
    places[10] = np.nan
    fit = fit_arm_scan(replace(geometry, **UNKNOWN), places)
    assert np.flatnonzero(~fit.used).tolist() == [3, 10, 30]
    assert fit.geometry.distance == pytest.approx(1.234, rel=1e-4)


def refused(geometry, places):
    with pytest.raises(GeometryError) as error:
        fit_arm_scan(replace(geometry, **UNKNOWN), places)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_no_calibration_is_said_in_one_line():
    geometry, places = arm(), measured(arm())
    few = np.where(np.arange(49)[:, None] < 4, places, np.nan)
    assert "4 of 49 frames hold the direct beam, expected at least 5 angles of nu and delta" in refused(geometry, few)
    still = replace(geometry, detector=tuple(Circle(c.axis, 0.0, c.name) for c in geometry.detector))
    assert "no detector circle moves" in refused(still, places)
    assert "does not move on the detector" in refused(geometry, np.full((49, 2), 7.0))
    narrow = arm(angles=line(0, 0.0005))
    assert "too few angles: the distance is" in refused(narrow, measured(narrow, noise=0.05))


def test_axes_that_point_elsewhere_are_told():
    mirrored = replace(arm(), column_axis="x-")
    assert "columns along x-" in refused(mirrored, measured(arm()))
    turned = replace(arm(), row_axis="y+", column_axis="x-")
    assert "rotated by 180 degrees" in refused(turned, measured(arm()))


def test_what_errors_do_to_a_reflection():
    geometry = arm()
    fit = fit_arm_scan(replace(geometry, **UNKNOWN), measured(geometry))
    rocking = replace(
        geometry,
        sample=tuple(
            replace(c, angle=np.radians(17.0 + 0.01 * np.arange(41)) if c.name == "eta" else 0.0) for c in geometry.sample
        ),
        detector=tuple(replace(c, angle=np.radians(35.0) if c.name == "delta" else 0.0) for c in geometry.detector),
    )
    window, shape = Window((4, 100, 100), (1, 1, 1), (41, 256, 250)), (32, 64, 64)
    effects = find_effects(fit, rocking, window, shape)
    assert list(effects) == [*PARAMETERS, "together"]
    # By hand: the voxel's two edges on the detector scale with 1/D; a row more or less turns the outgoing beam by a pixel / D.
    assert effects["distance"].volume == pytest.approx(2 * fit.sigma["distance"] / 1.234, rel=0.05)
    turn = fit.sigma["row"] * 55e-6 / 1.234
    assert effects["row"].spacing == pytest.approx(turn / (2 * np.tan(np.radians(17.5))), rel=0.05)
    assert effects["row"].orientation == pytest.approx(turn / 2, rel=0.3)
    # By drawing: places of the detector within the errors, and what the reflection is then.
    place = fit.geometry
    spacings = []
    for draw in np.random.default_rng(1).multivariate_normal(values(place), fit.covariance, 300):
        moved = replace(
            rocking, distance=draw[0], direct_beam=(draw[1], draw[2]), detector_rotation=draw[3],
            tilt=np.hypot(draw[4], draw[5]), tilt_azimuth=np.arctan2(draw[5], draw[4]),
        )  # fmt: skip
        spacings.append(1 / np.linalg.norm(reciprocal_basis(moved, window, shape)[1]))
    assert effects["together"].spacing == pytest.approx(np.std(spacings) / np.mean(spacings), rel=0.15)
