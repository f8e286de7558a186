"""What a user of Python sees of records and of running work."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
from sample_crystal import result

import braggshot
from braggshot import display
from braggshot.crystals.scan import gold_at_34idc
from braggshot.io.frames import ArrayFrames
from braggshot.output import Result
from braggshot.volumes import Circle, Ensemble, Scan, Uncertainty

FOUND = result()
SCAN = Scan(
    ArrayFrames(np.zeros((201, 64, 64), np.uint16)),
    "scan_1",
    dark=np.zeros((64, 64)),
    rocking_angle=np.linspace(0.1, 0.2, 201),
    geometry=gold_at_34idc(),
    provenance={"path": "x" * 300, **{f"key_{n}": n for n in range(40)}},
)
RECORDS = {
    "scan": SCAN,
    "geometry": gold_at_34idc(),
    "circle": Circle("y+", np.linspace(0, 1, 400), "theta"),
    "volume": FOUND.volume,
    "reconstruction": FOUND,
    "strain": FOUND.strain,
    "quality": FOUND.quality,
    "ensemble": Ensemble({"start": np.arange(500.0)}, np.ones(500), np.ones(500), np.ones(500)),
    "uncertainty": Uncertainty(np.zeros((64, 64, 64)), None, 3, "starts"),
    "result": Result(FOUND),
    "settings": braggshot.Settings(),
    "preparation": braggshot.PrepareConfig(),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_told_in_ten_lines(name):
    text = repr(RECORDS[name])
    assert text.count("\n") < 10
    assert max(map(len, text.splitlines())) <= 120
    assert type(RECORDS[name]).__name__ in text


def test_the_text_names_what_is_there_with_types_and_shapes():
    assert "frames=" in repr(SCAN)
    assert "dark=<float64 64×64>" in repr(SCAN)
    assert "rocking_angle=<float64 201, 0.1 … 0.2>" in repr(SCAN)
    assert "monitor" not in repr(SCAN)
    assert "q_bragg=[0, 2.7e+10, 0]" in repr(FOUND.strain)
    assert "resolution=2.1e-08" in repr(FOUND.quality)
    assert "Agreement(same=1, others=1, stuck=0, limit=0.95)" in repr(FOUND.quality)


def test_a_text_that_is_too_long_says_that_it_goes_on():
    assert display.within_lines("word " * 1000).splitlines()[-1].strip() == "…"


def test_settings_show_what_was_changed_as_they_are_given():
    from braggshot.pipeline import resolve

    given = {"phasing": {"method": "iterative", "iterative": {"recipe": "30*RAAR"}}}
    assert repr(resolve({})) == "Settings()"
    assert repr(resolve(given)) == f"Settings(phasing={given['phasing']!r})"


def test_a_result_says_its_verdict_reasons_and_numbers():
    text = repr(Result(FOUND))
    assert text.startswith("Result of scan_1: good\n    this is why it is good\n")
    assert "resolution 21 nm" in text


PROGRAM = textwrap.dedent("""
    from types import SimpleNamespace
    from braggshot.display import progress_line
    with progress_line("scan_1", {shown}) as show:
        for n in range(1, 4):
            show(SimpleNamespace(iteration=n, n_iterations=3, starts=(1,), step="RAAR", error=None))
""")


def said(shown, terminal):
    """What a program that phases writes to stderr."""
    command = [sys.executable, "-c", PROGRAM.format(shown=shown)]
    if not terminal:
        return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True).stderr
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    subprocess.run(command, stderr=theirs, check=True)
    os.write(theirs, b"|")  # so that there is something to read
    os.close(theirs)
    text = os.read(ours, 100_000).decode()
    os.close(ours)
    return text.removesuffix("|")


def test_a_terminal_shows_step_and_time_left():
    text = said(None, terminal=True)
    assert "scan_1: start 2: 100%" in text
    assert "RAAR" in text
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d", text)


def test_nothing_is_printed_into_a_log_or_where_it_is_switched_off():
    assert said(None, terminal=False) == ""
    assert said(False, terminal=True) == ""
    assert "100%" in said(True, terminal=False)


def test_a_kernel_is_a_notebook_and_a_shell_is_not(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not display.in_notebook()
    shell = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert not display.in_notebook()
    shell.kernel = object()
    assert display.in_notebook()


def test_the_error_is_shown_and_another_start_begins_anew(capsys):
    error = np.array([0.04, 0.09])
    with display.progress_line("scan_1", True) as show:
        show(SimpleNamespace(iteration=3, n_iterations=3, starts=(0,), step="ER", error=error))
        show(SimpleNamespace(iteration=1, n_iterations=4, starts=(1,), step="HIO", error=error))
    last = capsys.readouterr().err.split("\r")[-1]
    assert "start 2" in last
    assert "1/4" in last
    assert "HIO, error 0.2000" in last


@pytest.fixture
def _as_python_begins():
    """Ctrl-C is a KeyboardInterrupt, whatever a library that another test imported has made of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_as_python_begins")
def test_an_interrupt_ends_the_phasing_and_nothing_is_left(tmp_path, monkeypatch):
    """As a notebook does it: the kernel is interrupted, and the next cell runs again."""
    from braggshot.crystals.sample import CrystalSettings, simulate_volume
    from braggshot.io.formats import cxi

    _, volume = simulate_volume(5, CrystalSettings(shape=(32, 32, 32)))
    cxi.write_data(tmp_path / "scan.cxi", volume)
    monkeypatch.chdir(tmp_path)
    quick = {"phasing": {"method": "iterative", "starts": 2, "iterative": {"recipe": "20*ER"}, "partial_coherence": "off"}}
    seen = []

    def interrupt(progress):
        seen.append(progress.iteration)
        if len(seen) == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        braggshot.reconstruct("scan.cxi", quick, on_progress=interrupt)
    assert len(seen) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["scan.cxi"]
    assert braggshot.reconstruct("scan.cxi", quick).rho.any()
