"""Where the instruments' circles point: by physics, and against xrayutilities in its own frame."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from sample_inputs import SAMPLES, aps_geometry

from braggshot.io.beamlines.instruments import ESRF_ID01
from braggshot.io.beamlines.readings import Readings
from braggshot.io.beamlines.readings import geometry as build
from braggshot.io.beamlines.values import Value
from braggshot.io.registry import read
from braggshot.physics.geometry import rotation, sample_rotation, scattering_vector
from braggshot.volumes import Circle, Geometry

xrayutilities = pytest.importorskip("xrayutilities")
INSTRUMENTS = ("aps_34idc", "esrf_id01", "petra_p10")
CXI_TO_XU = {"z": "x", "y": "z", "x": "y"}  # xrayutilities: x downstream, y outboard, z up


@pytest.fixture(params=INSTRUMENTS)
def geometry(request: pytest.FixtureRequest, tmp_path: Path) -> Geometry:
    found = read(SAMPLES[request.param](tmp_path).path, direct_beam=(4.0, 7.0)).geometry
    assert found is not None
    return found


def turn(geometry: Geometry, **angles: float) -> Geometry:
    """All circles at zero but those named [rad]."""
    rocking = {circle.name: circle.angle for circle in geometry.sample if np.ndim(circle.angle)}

    def set_to(circle: Circle) -> Circle:
        value = angles.get(circle.name, 0.0)
        return dataclasses.replace(circle, angle=np.full(2, value) if circle.name in rocking else value)

    return dataclasses.replace(geometry, sample=tuple(map(set_to, geometry.sample)), detector=tuple(map(set_to, geometry.detector)))


def test_detector_goes_up_and_sideways(geometry: Geometry) -> None:
    vertical = {"APS 34-ID-C": "Gamma", "ESRF ID01": "delta", "PETRA III P10": "del"}[geometry.instrument]
    horizontal = {"APS 34-ID-C": ("Delta", 1), "ESRF ID01": ("nu", -1), "PETRA III P10": ("gam", 1)}[geometry.instrument]
    up = scattering_vector(turn(geometry, **{vertical: 0.3}), 0, 4.0, 7.0)
    aside = scattering_vector(turn(geometry, **{horizontal[0]: 0.3}), 0, 4.0, 7.0)
    assert up[1] > 0
    assert abs(up[2]) < 1e-6 * up[1]
    assert np.sign(aside[2]) == horizontal[1]
    assert abs(aside[1]) < 1e-6 * abs(aside[2])


def test_first_row_is_the_highest_and_columns_grow_outboard_but_at_p10(geometry: Geometry) -> None:
    still = turn(geometry)
    above, right = scattering_vector(still, 0, 0.0, 7.0), scattering_vector(still, 0, 4.0, 9.0)
    assert above[1] > 0
    assert np.sign(right[2]) == (-1 if geometry.instrument == "PETRA III P10" else 1)


def test_positive_incidence_lets_the_beam_meet_the_upper_surface(geometry: Geometry) -> None:
    """A horizontal surface whose normal is y: tilted by eta or om, its normal turns against the beam."""
    name = {"ESRF ID01": "eta", "PETRA III P10": "om"}.get(geometry.instrument)
    if name is None:
        pytest.skip("34-ID-C has no incidence circle at zero chi")
    normal = sample_rotation(turn(geometry, **{name: 0.2}), 0) @ np.array([0.0, 1.0, 0.0])
    assert normal[0] < 0 < normal[1]


def test_phi_turns_about_the_surface_normal(geometry: Geometry) -> None:
    """Innermost circle at the chi that each beamline uses: about y at ID01 and P10, about x at 34-ID-C, where chi is 90."""
    phi = geometry.sample[-1]
    settings = {"Chi": np.pi / 2} if geometry.instrument == "APS 34-ID-C" else {}
    before, after = (sample_rotation(turn(geometry, **settings, **{phi.name: angle}), 0) for angle in (0.0, 0.3))
    axis = "x+" if geometry.instrument == "APS 34-ID-C" else phi.axis
    assert np.allclose(after @ before.T, rotation(axis, 0.3))


def test_scattering_vectors_agree_with_xrayutilities(geometry: Geometry) -> None:
    def to_xu(axis: str) -> str:
        return CXI_TO_XU[axis[0]] + axis[1]

    sample = [to_xu(circle.axis) for circle in geometry.sample]
    detector = [to_xu(circle.axis) for circle in geometry.detector]
    conversion = xrayutilities.experiment.QConversion(sample, detector, (1, 0, 0), en=geometry.energy / 1.602176634e-19)
    conversion.init_area(
        to_xu(geometry.row_axis), to_xu(geometry.column_axis), cch1=4.0, cch2=7.0, Nch1=12, Nch2=10,
        distance=geometry.distance, pwidth1=geometry.pixel_size[0], pwidth2=geometry.pixel_size[1],
    )  # fmt: skip
    angles = [np.rad2deg(circle.angle) for circle in (*geometry.sample, *geometry.detector)]
    q = np.stack(conversion.area(*angles, deg=True), axis=-1)[6, 10, 2] * 1e10  # (x, y, z) of xrayutilities, sample frame
    expected = sample_rotation(geometry, 6).T @ scattering_vector(geometry, 6, 10.0, 2.0, reference=6)
    assert np.allclose(q[[0, 2, 1]], expected, rtol=1e-5)  # its h c differs in the sixth digit


def test_the_files_of_34_id_c_keep_their_geometry(tmp_path: Path) -> None:
    _, wanted = aps_geometry()
    found = read(SAMPLES["aps_34idc"](tmp_path).path).geometry
    assert found is not None
    assert np.allclose(scattering_vector(found, 3, 5, 6), scattering_vector(wanted, 3, 5, 6), rtol=1e-9)


def test_a_scan_of_the_detectors_arm_keeps_its_geometry() -> None:
    motors = {"eta": 17.0, "nu": np.linspace(-0.1, 0.1, 5), "delta": 0.0}
    known = Readings(motors, Value(1.4e-15), Value(1.2), (Value(55e-6), Value(55e-6)))
    noticed: list[str] = []
    found = build(ESRF_ID01, known, (5, 20, 20), {}, noticed)
    assert found is not None
    assert [np.shape(circle.angle) for circle in found.detector] == [(5,), ()]
    still = build(ESRF_ID01, dataclasses.replace(known, motors={"eta": 17.0, "nu": 0.0, "delta": 0.0}), (5, 20, 20), {}, noticed)
    assert still is None
    assert noticed[-1].startswith("no geometry: no circle moved, and the photon energy stands still")
