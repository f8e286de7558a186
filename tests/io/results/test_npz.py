import json

import numpy as np
from sample_reconstruction import SKEWED_BASIS, sample_reconstruction

from braggshot.io.results import npz


def test_a_script_reads_it_without_pickle(tmp_path):
    crystal = sample_reconstruction()
    npz.write(tmp_path / "a.npz", crystal)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        content = dict(archive)
    np.testing.assert_array_equal(content["rho"], crystal.rho)
    np.testing.assert_allclose(content["amplitude"] * np.exp(1j * content["phase"]), crystal.rho, rtol=1e-5)
    np.testing.assert_array_equal(content["support"], crystal.support)
    np.testing.assert_array_equal(content["basis"], SKEWED_BASIS)
    np.testing.assert_array_equal(content["q_bragg"], crystal.volume.q_bragg)
    assert content["chi2"] == 0.0123
    assert content["verdict"] == "good"
    assert content["reasons"].tolist() == list(crystal.reasons)
    assert json.loads(str(content["configuration"])) == crystal.configuration


def test_what_is_not_known_is_absent(tmp_path):
    npz.write(tmp_path / "a.npz", sample_reconstruction(basis=None))
    with np.load(tmp_path / "a.npz") as archive:
        assert "basis" not in archive
        assert "rho" in archive
