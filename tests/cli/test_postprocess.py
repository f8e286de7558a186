"""What cannot be postprocessed is said in one line; the command at work: tests/test_postprocess.py."""

from __future__ import annotations

import numpy as np
from command_line import run


def test_what_is_no_reconstruction_is_said_in_one_line(tmp_path, capsys):
    np.save(tmp_path / "image.npy", np.ones((4, 4, 4)))
    for path, said in ((tmp_path / "none.cxi", "no such file"), (tmp_path / "image.npy", "complex 3D")):
        assert run("postprocess", path, "-o", tmp_path / "out") == 1
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not list((tmp_path / "out").glob("*"))
