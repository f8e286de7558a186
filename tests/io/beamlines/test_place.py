"""The place of a detector, written and read, changes what the files of a scan say and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from arm_scans import arm
from sample_inputs import SAMPLES

from braggshot.errors import ConfigError
from braggshot.io.beamlines.place import place_detector, write_place
from braggshot.io.registry import read

NAMES = ("distance", "direct_beam", "detector_rotation", "tilt_azimuth", "tilt")


@pytest.mark.parametrize("name", ["aps_34idc", "esrf_id01", "petra_p10"])
def test_a_calibration_places_the_detector_of_a_scan(name, tmp_path):
    path, wanted = SAMPLES[name](tmp_path).path, arm()
    write_place(tmp_path / "place.toml", wanted, ["from here"])
    assert (tmp_path / "place.toml").read_text().startswith("# from here\ndistance_m = ")
    before, after = read(path).geometry, read(path, geometry=str(tmp_path / "place.toml")).geometry
    for field in NAMES:
        assert getattr(after, field) == pytest.approx(getattr(wanted, field), rel=1e-5), field
    assert after.energy == before.energy
    assert [(c.name, np.shape(c.angle)) for c in (*after.sample, *after.detector)] == [
        (c.name, np.shape(c.angle)) for c in (*before.sample, *before.detector)
    ]


def test_pixels_that_are_not_square_keep_their_sides(tmp_path):
    write_place(tmp_path / "place.toml", replace(arm(), pixel_size=(75e-6, 70e-6)))
    assert "pixel_size_m" not in (tmp_path / "place.toml").read_text()


def test_other_values_stay_and_wrong_ones_are_refused():
    geometry = arm()
    moved = place_detector(geometry, {"energy_ev": 8000, "tilt_deg": 0.5})
    assert (moved.distance, moved.direct_beam) == (geometry.distance, geometry.direct_beam)
    assert np.degrees(moved.tilt) == pytest.approx(0.5)
    with pytest.raises(ConfigError, match=r"geometry.distance_m must be a positive number, found -1"):
        place_detector(geometry, {"distance_m": -1.0})
    with pytest.raises(ConfigError, match="did you mean 'tilt_deg'"):
        place_detector(geometry, {"tilt_degrees": 1.0})
