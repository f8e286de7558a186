"""A workflow of Ewoks, run by its own command: a BLISS file becomes a CXI; skipped without the extra ``ewoks``."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stand_ins import write_id01

from braggshot.io import results

WORKFLOW = Path(__file__).parents[1] / "examples" / "ewoks.json"
QUICK = {"phasing": {"method": "iterative", "starts": 1, "iterative": {"recipe": "4*HIO+2*ER"}, "partial_coherence": "off"}}

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ewoks") is None, reason="ewoks is not installed (the extra ewoks)")


def execute(folder, **inputs):
    words = [sys.executable, "-m", "ewoks", "execute", str(WORKFLOW), "--outputs", "all", "--merge-outputs"]
    for name, value in inputs.items():
        words += ["-pn", f"reconstruct:{name}={value}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)


def test_a_scan_of_bliss_becomes_a_cxi(tmp_path):
    write_id01(tmp_path)
    done = execute(tmp_path, scan_file="sample.h5", scan=12, output="out.cxi", settings=json.dumps(QUICK))
    assert done.returncode == 0, done.stderr
    found = results.read(tmp_path / "out.cxi")
    assert found.support.any()
    assert found.configuration["phasing"]["starts"] == 1
    assert f"'verdict': '{found.verdict}'" in done.stdout
    assert "out.cxi" in done.stdout


def test_settings_come_from_a_file_too_and_a_fault_is_one_line(tmp_path):
    write_id01(tmp_path)
    (tmp_path / "my.toml").write_text('[phasing]\nmethod = "nonsense"\n')
    done = execute(tmp_path, scan_file="sample.h5", scan=12, output="out.cxi", settings="my.toml")
    assert done.returncode != 0
    assert "nonsense" in done.stderr
    assert not (tmp_path / "out.cxi").exists()
    assert "none.h5: no such file" in execute(tmp_path, scan_file="none.h5", output="out.cxi").stderr
