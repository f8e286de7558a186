"""Built-in diffractometers against xrayutilities, and a geometry that the user states."""

from dataclasses import replace

import numpy as np
import pytest

from braggshot.errors import ConfigError
from braggshot.io import registry
from braggshot.io.beamlines import instruments
from braggshot.physics import geometry as g

# A Bragg peak somewhere in reach of each instrument; the third angle list rocks.
ANGLES = {
    "34idc": {"Theta": (-0.3, 0.7), "Chi": 88.0, "Phi": -5.0, "Delta": 32.2, "Gamma": 12.6},
    "id01": {"mu": 0.3, "eta": (17.0, 18.0), "phi": 41.0, "nu": -3.2, "delta": 35.1},
    "p10": {"mu": 0.2, "om": (20.1, 21.0), "chi": 88.5, "phi": 12.0, "gam": 4.0, "del": 40.2},
    "i16": {"mu": 1.1, "eta": (18.0, 19.0), "chi": 89.0, "phi": -33.0, "gam": 2.0, "delta": 37.0},
    "nanomax": {"gontheta": (15.2, 15.9), "gonphi": 3.0, "gamma": 12.0, "delta": 27.0},
    "sixs": {"beta": 0.4, "mu": (10.0, 11.0), "gamma": 22.0, "delta": 15.0},
    "1ide": {"AeroTech": (10.0, 11.0), "vff_eta": 25.0},
    "7idd": {"wedge": 10.0, "Chi": 2.0, "ThetaN": (8.0, 9.0), "Phi": 40.0, "Yaw": 4.0, "Pitch": 33.0},
    "28idb": {"Mu": 0.3, "Eta": (18.0, 19.0), "Chi": 1.0, "Phi": 41.0, "Nu": 3.0, "Delta": 35.0},
    "20ide": {"samRy": (3.0, 4.0)},
    "id27": {"nath": (3.0, 4.0)},
    "id05": {"mu": 0.4, "eta": (18.0, 19.0), "chi": 88.5, "phi": -12.0, "nu": 3.0, "del": 36.0},
    "id05_4c": {"thh": 0.4, "th": (18.0, 19.0), "chi": 88.5, "phi": -12.0, "tthh": 3.0, "tth": 36.0},
    "cristal": {"mgomega": (10.0, 11.0), "mgphi": 3.0, "gamma": 2.0, "delta": 25.0},
    "sixs2022": {"beta": 0.4, "mu": (10.0, 11.0), "gamma": 22.0, "delta": 15.0},
}
SHAPE = (11, 24, 31)


def settings(name, **changes):
    table = {"instrument": name, "energy_ev": 8500.0, "distance_m": 0.8, "pixel_size_m": 55e-6, "angles_deg": ANGLES[name]}
    return instruments.GeometrySettings(**(table | {"direct_beam": (9.3, 16.1)} | changes))


def of_xrayutilities(geometry, frames):
    """q in the axes of the sample, (frame, row, column, zyx) [1/m]."""
    xu = pytest.importorskip("xrayutilities")
    conversion = xu.experiment.QConversion(
        [c.axis for c in geometry.sample], [c.axis for c in geometry.detector], (0, 0, 1), en=geometry.energy / g.KEV * 1e3
    )
    conversion.init_area(
        geometry.row_axis, geometry.column_axis, cch1=geometry.direct_beam[0], cch2=geometry.direct_beam[1], Nch1=SHAPE[1],
        Nch2=SHAPE[2], distance=geometry.distance, pwidth1=geometry.pixel_size[0], pwidth2=geometry.pixel_size[1],
        detrot=np.degrees(geometry.detector_rotation), tiltazimuth=np.degrees(geometry.tilt_azimuth),
        tilt=np.degrees(geometry.tilt),
    )  # fmt: skip
    circles = (*geometry.sample, *geometry.detector)
    angles = [np.degrees(c.angle[frames] if np.ndim(c.angle) else c.angle) for c in circles]
    return np.stack(conversion.area(*angles, deg=True)[::-1], axis=-1) * 1e10


@pytest.mark.parametrize("name", ANGLES)
@pytest.mark.parametrize("calibration", [{}, {"detector_rotation_deg": 1.3, "tilt_azimuth_deg": 35.0, "tilt_deg": 2.5}])
def test_scattering_vectors_agree_with_xrayutilities(name, calibration):
    geometry = instruments.build_geometry(settings(name, **calibration), SHAPE)
    frames = np.array([0, 4, 10])
    expected = of_xrayutilities(geometry, frames)
    found = g.scattering_vector(geometry, *np.ix_(frames, range(SHAPE[1]), range(SHAPE[2]))) @ g.sample_rotation(geometry, 5)
    np.testing.assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max())


def test_zero_of_a_motor_is_taken_off():
    chi = next(c for c in instruments.build_geometry(settings("p10"), SHAPE).sample if c.name == "chi")
    assert np.degrees(chi.angle) == pytest.approx(-1.5)


def test_a_stated_geometry_goes_with_any_format(tmp_path):
    np.save(tmp_path / "scan.npy", np.ones(SHAPE))
    stated = {
        "energy_ev": 8000,
        "distance_m": 1.0,
        "pixel_size_m": 55e-6,
        "sample": [["tilt", "z+"], ["rock", "y-"]],
        "detector": [["arm", "x-"]],
        "row_axis": "x-",
        "column_axis": "y+",
        "angles_deg": {"rock": [3.0, 4.0], "arm": 30.0},
        "tilt_deg": 0.5,
    }
    scan = registry.read(tmp_path / "scan.npy", geometry=stated)
    assert [c.axis for c in scan.geometry.sample] == ["z+", "y-"]
    np.testing.assert_allclose(np.degrees(scan.rocking_angle), np.linspace(3, 4, SHAPE[0]))
    assert scan.geometry.direct_beam == (11.5, 15)
    assert scan.geometry.row_axis == "x-"
    assert np.degrees(scan.geometry.tilt) == pytest.approx(0.5)
    (tmp_path / "geometry.toml").write_text(
        'instrument = "id01"\nenergy_ev = 9000\ndistance_m = 0.5\npixel_size_m = 55e-6\n'
        "angles_deg = {eta = [17.0, 17.1], delta = 30}\n"
    )
    scan = registry.read(tmp_path / "scan.npy", geometry=str(tmp_path / "geometry.toml"))
    assert scan.geometry.instrument == "ESRF ID01"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"instrument": "id99"}, "'id99' is not built in"),
        ({"angles_deg": {"psi": 3.0}}, "no circle psi"),
        ({"angles_deg": {"eta": (1.0, 2.0, 3.0)}}, "eta has 3 angles for 11 frames"),
        ({"distance_m": 0.0}, "distance_m must be a positive"),
    ],
)
def test_what_does_not_fit_says_why(change, words):
    with pytest.raises(ConfigError, match=words):
        instruments.build_geometry(replace(settings("id01"), **change), SHAPE)


def test_tilt_and_zero_survive_a_result_file(tmp_path):
    import h5py

    from braggshot.io.hdf5 import add_group
    from braggshot.io.measurement import read_geometry, write_measurement
    from braggshot.volumes import DiffractionVolume

    calibration = {"detector_rotation_deg": 1.0, "tilt_azimuth_deg": 2.0, "tilt_deg": 3.0}
    geometry = instruments.build_geometry(settings("i16", **calibration), SHAPE)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = add_group(file, "instrument_1", "NXinstrument")
        write_measurement(group, DiffractionVolume(np.ones(SHAPE), np.ones(SHAPE, bool), geometry=geometry))
        found = read_geometry(group)
    assert (found.detector_rotation, found.tilt_azimuth, found.tilt) == pytest.approx(np.radians([1, 2, 3]))
