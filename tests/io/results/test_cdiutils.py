import dataclasses

import h5py
import numpy as np
import pytest
from sample_reconstruction import sample_reconstruction

from braggshot.errors import OutputError
from braggshot.io.results import cdiutils


def test_post_processing_finds_the_first_mode(tmp_path):
    """As its ``_load_reconstruction`` does."""
    crystal = sample_reconstruction()
    path = cdiutils.export(tmp_path, crystal)
    assert path == tmp_path / "S54_pynx_reconstruction_mode.cxi"
    with h5py.File(path) as file:
        modes = file["entry_1/data_1/data"][()]
        assert modes.shape == (1, *crystal.rho.shape)
        np.testing.assert_array_equal(modes[0], crystal.rho)
        np.testing.assert_array_equal(file["entry_1/image_1/support"][()], crystal.support)
        np.testing.assert_array_equal(file["entry_1/result_1/mode_weights"][()], [0.8, 0.15, 0.05])


@pytest.mark.parametrize(("name", "scan", "expected"), [("S11_48x64x64", None, 11), ("run_7", None, 7), ("crystal", 3, 3)])
def test_the_scan_number(tmp_path, name, scan, expected):
    crystal = sample_reconstruction()
    named = dataclasses.replace(crystal, volume=dataclasses.replace(crystal.volume, name=name))
    assert cdiutils.export(tmp_path, named, scan).name.startswith(f"S{expected}_")


def test_what_cdiutils_could_not_use_is_refused(tmp_path):
    crystal = sample_reconstruction()
    with pytest.raises(OutputError, match="detector frame"):
        cdiutils.export(tmp_path, dataclasses.replace(crystal, frame="crystal"))
    with pytest.raises(OutputError, match="scan number"):
        cdiutils.export(tmp_path, dataclasses.replace(crystal, volume=dataclasses.replace(crystal.volume, name="crystal")))
