"""The example notebooks run as they stand, on small inputs, and are shipped with what they show."""

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from braggshot.crystals.scan import ScanSettings, gold_at_34idc, simulate_scan
from braggshot.io.beamlines.aps_34idc import write_scan

pytest.importorskip("nbclient")
ROOT = Path(__file__).parents[1]
QUICK = (
    'settings = {"prepare": {"shape": [32, 48, 48]}, "output": {"formats": ["cxi"]}, "phasing": {"method": "iterative", '
    '"starts": 2, "iterative": {"recipe": "15*RAAR+15*ER"}, "partial_coherence": "off"}}\n'
)
SMALL = {
    "quickstart": QUICK,
    "raw_scan": QUICK,
    "series": QUICK + 'settings["series"] = {"movie": False}\nsettings["phasing"]["starts"] = 1\n',
    "live": QUICK + 'rate = 0\nsettings.pop("prepare")\n',
}


def load_runner():
    spec = importlib.util.spec_from_file_location("execute", ROOT / "notebooks" / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runner = load_runner()


def shown(book):
    return [output for cell in book.cells for output in cell.get("outputs", ())]


def test_every_notebook_is_run():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(runner.NAMES) == set(SMALL)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs(name, tmp_path):
    if name == "raw_scan":
        geometry = replace(gold_at_34idc(frames=81), direct_beam=(31.5, 31.5))
        about = ScanSettings(detector_shape=(64, 64), peak=(40, 30, 34), diameter=200e-9, alien=0)
        scan, _ = simulate_scan(7, geometry, about)
        frames = np.asarray(scan.frames)
        write_scan(tmp_path / "demo-output" / "raw", frames, scan.rocking_angle, scan.geometry, 1, scan.dark, scan.flat)
    book = runner.run(name, tmp_path / "notebooks", SMALL[name])
    outputs = shown(book)
    assert any("image/png" in output.get("data", {}) for output in outputs) or name == "live"
    for cell in book.cells:
        lines = [str(o.get("text", o.get("data", {}).get("text/plain", ""))) for o in cell.get("outputs", ())]
        assert sum(text.count("\n") + 1 for text in lines) <= 40, cell.source
    if name in {"quickstart", "live"}:
        assert any("<img alt=" in output.get("data", {}).get("text/html", "") for output in outputs)  # the slide


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_is_shipped_with_what_it_shows(name):
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text()
    assert len(text) < 1e6
    assert not re.search(r"/(home|work|root|tmp|Users)/", text)
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells)
    assert "image/png" in text
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])
