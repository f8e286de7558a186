"""Every command and program of the manual runs as printed, in the order of its page, in a folder with nothing but small inputs."""

from __future__ import annotations

import re
import shutil
import urllib.request

import pytest
from manual_pages import PAGES, ROOT, bare, steps
from reader import Reader
from stand_ins import WRITERS, write_34idc

INPUTS = {
    "README.md": "exp.spec scan.cxi frames",
    "docs/benchmarks.md": "benchmarks",
    "docs/cluster.md": "scans/a.cxi scans/b.cxi t00.cxi t01.cxi exp.spec@54-55",
    "docs/gallery.md": "examples demo-output/raw_S0001.cxi",
    "docs/howto/beamlines.md": "exp.spec sample.h5 scan_00012_master.h5 scan.h5 000012.h5 1040323.nxs S12.nxs Sample1_1.spec",
    "docs/howto/formats.md": "counts.npy",
    "docs/howto/jupyter.md": "exp.spec frames",
    "docs/howto/postprocess.md": "exp.spec recon.cxi out/scan.cxi",
    "docs/howto/settings.md": "scan.cxi",
    "docs/howto/stack.md": "patterns.h5",
    "docs/howto/training.md": "scan.cxi tuned taught",
    "docs/live.md": "exp/S0054 scan.cxi",
    "docs/live-sources.md": "exp/S0054 scan.cxi",
    "docs/network.md": "scan.cxi",
    "docs/reading.md": "examples",
    "docs/series.md": "examples exp.spec@54-60 t00.cxi t01.cxi t02.cxi log.csv",
    "docs/viewer.md": "scans/a.cxi scans/b.cxi out/crystal.cxi series/a.cxi series/b.cxi a.cxi b.cxi c.cxi",
}
"""What a reader has before the first command of a page."""

NOT_RUN = {
    "make ": "makes an environment from the network; tests/test_distribution.py looks at what the targets run",
    ". .venv/bin/activate": "these tests have their environment already",
    "pip install ": "needs the network",
    "podman ": "needs containers",
    "rattler-build ": "needs conda channels of the network; tests/test_distribution.py renders the recipe",
    "cd benchmarks && asv ": "needs asv, which only developers install; tests/test_benchmarks.py runs what it calls",
    "python benchmarks/atomistic.py ": "needs LAMMPS, which the tests do not install because of its licence",
    "braggshot reconstruct scans/*.cxi -o out/ --cluster slurm ": "needs SLURM",
    "braggshot reconstruct scans/*.cxi -o out/ --cluster tcp://head:8786": "needs a machine named head",
    "braggshot series exp.spec --scans 54-90 -o out/ --cluster tcp://head:8786": "needs a machine named head",
    "dask scheduler --host 192.168.1.10": "needs a machine with this address",
    "dask worker tcp://192.168.1.10:8786": "needs a machine with this address",
    "braggshot live 'pva:34ide:": "needs a detector",
    "braggshot live 'zmq:tcp://10.0.0.6:9999'": "needs a detector",
    "braggshot live 'stins:": "needs a detector",
    "braggshot live 'bluesky:": "needs a proxy of Bluesky",
    "braggshot live tiled:": "needs a server; tests/live/sources/test_tiled.py runs one",
    "braggshot live 'blissdata:": "needs a server; tests/live/sources/test_blissdata.py runs one",
    "braggshot reconstruct exp.spec --scan 54-60 --sum ": "copies are refused; tests/cli/test_repeats.py sums scans",
    "braggshot series exp.spec --scans 54-62 --sum 3 ": "copies are refused; tests/series/test_repeats.py sums scans",
    "braggshot tensor ": "needs scans of several reflections; tests/reflections makes them",
    "braggshot calibrate ": "needs a scan of a detector's arm; tests/cli/test_calibrate.py runs it",
    "braggshot reconstruct exp.spec --scan 54 --set input.geometry=place.toml": "needs what `braggshot calibrate` writes",
    "braggshot stack patterns.h5 -o objects.h5 --dataset entry/counts --starts 4 --device cuda": "needs a GPU",
    "torchrun ": "takes ten hours; tests/nn shares a small run between two processes",
}
"""Beginnings of the commands that are not run, and why."""

HOURS = ("braggshot train ", "braggshot evaluate ")
"""Commands that take from many minutes to hours: they are begun, write their first file, and end by Ctrl-C without a traceback."""

REFUSED = {"braggshot reconstruct scan/scan.spec --scan 2": "braggshot: scan/scan.spec: there is no scan 2; the file holds 1.\n"}
"""Commands that a page shows to fail, with what they then say."""

FOUR = (".cxi", ".vti", ".png", ".html")
WRITTEN = {
    "braggshot reconstruct exp.spec --scan 54 ": [f"out/exp_S0054{ending}" for ending in FOUR],
    "braggshot reconstruct scan.cxi": [f"scan-braggshot/scan{ending}" for ending in FOUR],
    "braggshot simulate --raw ": ["scan/scan.spec", "scan/dark.tif", "scan/whitefield.tif"],
    "braggshot reconstruct scan/scan.spec --dark dark.tif --flat whitefield.tif --hkl": [f"out/scan_S0001{e}" for e in FOUR],
    "braggshot reconstruct scan/scan.spec --dark dark.tif --flat whitefield.tif --method oneshot": ["quick.cxi"],
    "braggshot reconstruct sample.h5": ["out/sample*.cxi"],
    "braggshot reconstruct scan_00012_master.h5": ["out/scan_00012*.cxi"],
    "braggshot reconstruct scan.h5": ["scan-braggshot/scan.cxi"],
    "braggshot reconstruct scans/*.cxi -o out/ --cluster local": ["out/a.cxi", "out/a.json", "out/b.cxi", "out/b.json"],
    "braggshot reconstruct exp.spec -o out/ --cluster": ["out/exp-54.cxi", "out/exp-55.json"],
    "braggshot series ": ["out/series.csv", "out/series.png", "out/series.gif", "out/series.html", "out/series.parquet"],
    "braggshot postprocess recon.cxi": [f"out/exp_S0054{ending}" for ending in FOUR],
    "braggshot postprocess out/scan.cxi": ["lab/scan.cxi", "lab/scan.vti", "lab/scan.pdf"],
    "braggshot template > my.toml": ["my.toml"],
    "braggshot simulate -o crystal.cxi": ["crystal.cxi"],
    "braggshot stack ": ["objects.h5"],
    "braggshot live 'folder:": ["out/*.cxi", "out/events.jsonl"],
    "braggshot live 'replay:": ["out/scan.cxi", "out/events.jsonl"],
    "braggshot emit scan.cxi --to folder:frames/": ["frames/**/*.tif"],
    "braggshot emit scan.cxi --to 'folder:frames/?eiger=20'": ["frames/**/*_master.h5"],
    "python examples/gallery.py": ["*.png"],
    "python examples/corrosion.py": ["corrosion/*.png", "corrosion/series/series.csv"],
    "python examples/charging.py": ["charging/*.png", "charging/series/series.gif"],
}
"""Files that a page promises of a command; the longest beginning holds."""

SHOWING = {
    str(page.relative_to(ROOT)): list(steps(page.read_text())) for page in PAGES if page.parent.name not in {"lab", "reference"}
}
SHOWING = {name: shown for name, shown in SHOWING.items() if shown}
COMMANDS = [step.text for shown in SHOWING.values() for step in shown if step.kind == "shell"]


def begins(command, table):
    """The longest of these beginnings that the command has."""
    return max((start for start in table if command.startswith(start)), key=len, default=None)


def run(reader, command):
    """Run a command to its end, or for as long as its kind needs."""
    command = bare(command)
    before = {path: path.stat().st_mtime_ns for path in reader.folder.glob("out/*")}
    if begins(command, HOURS):
        begin_and_interrupt(reader, command)
    elif command.startswith(("braggshot view ", "braggshot live ")) and "--once" not in command:
        serve(reader, command)
    elif re.search(r"emit .*(pva|zmq|stins|bluesky):", command):
        send(reader, command)
    else:
        with reader.begin(command) as running:
            status = running.wait()
            assert status == (1 if command in REFUSED else 0), f"{command}\n{running.told()}"
            assert command not in REFUSED or running.err.read_text() == REFUSED[command]
    for pattern in WRITTEN.get(begins(command, WRITTEN), ()):
        assert any(path.stat().st_mtime_ns != before.get(path) for path in reader.folder.glob(pattern)), f"{command}: no {pattern}"


def serve(reader, command):
    """Look at the page that a command shows, once; a live session also has a result; then press Ctrl-C."""
    with reader.begin(command) as running:
        assert running.wait(lambda: "\n" in running.out.read_text()) is None, running.told()
        assert "<title>braggshot" in look_at(running.out.read_text().splitlines()[0])
        if " live " in command:
            assert running.wait(lambda: "to see it again: " in running.out.read_text()) is None, running.told()
        assert running.interrupt() == 0, running.told()
        assert running.err.read_text() == ""


def look_at(url):
    """Open an address as a browser does, which keeps what the server asks it to keep."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with browser.open(url, timeout=60) as answer:
        return answer.read().decode()


def send(reader, command):
    """Send frames over a real transport, to a session that listens to what the command names."""
    heard = reader.folder / "heard"
    shutil.rmtree(heard, ignore_errors=True)
    with reader.begin(command) as sending:
        assert sending.wait(lambda: " frames of " in sending.out.read_text()) is None, sending.told()
        place = sending.out.read_text().split(" has ")[0]
        with reader.begin(f"braggshot live '{place}' -o heard/ --no-browser") as listening:
            assert sending.wait() == 0, sending.told()
            assert listening.wait(lambda: '"scan finished"' in _text(heard / "events.jsonl")) is None, listening.told()
            listening.interrupt()


def _text(path):
    return path.read_text() if path.exists() else ""


def begin_and_interrupt(reader, command):
    """Begin a command that takes hours, and press Ctrl-C once it has written something."""
    folder = reader.folder / re.search(r"-o (\S+)", command)[1]
    known = set(folder.rglob("*"))
    with reader.begin(command) as running:
        assert running.wait(lambda: {path for path in folder.rglob("*") if path.is_file()} - known) is None, running.told()
        assert running.interrupt() == 1
        assert running.err.read_text().endswith("braggshot: interrupted; nothing was half-written.\n")
        assert "Traceback" not in running.err.read_text()


def read_page(reader, name, after=lambda command: None):
    """Do all that a page says."""
    for wanted in INPUTS.get(name, "").split():
        WRITERS[wanted](reader.folder)
    for step in SHOWING[name]:
        if step.kind == "file":
            (reader.folder / re.match(r"# (\S+)", step.text)[1]).write_text(step.text)
        elif step.kind == "python":
            reader.execute(step.text, name)
        elif not begins(step.text, NOT_RUN):
            run(reader, step.text)
            after(step.text)


@pytest.fixture
def reader(tmp_path):
    return Reader(tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_readme_runs(reader):
    read_page(reader, "README.md")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_tutorial_runs_with_a_small_scan(reader):
    """The scan that the tutorial simulates gives way to a small one of the same name."""

    def shrink(command):
        if "simulate" in command:
            shutil.rmtree(reader.folder / "scan")
            write_34idc(reader.folder / "scan", "scan", (1,))

    read_page(reader, "docs/tutorial.md", shrink)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(set(SHOWING) - {"README.md"}))
def test_a_page_runs(reader, name):
    read_page(reader, name)


def test_every_entry_of_the_tables_is_about_something_that_a_page_shows():
    commands = [bare(command) for command in COMMANDS]
    for start in (*NOT_RUN, *HOURS, *REFUSED, *WRITTEN):
        assert any(command.startswith(start) for command in commands), start
    assert set(INPUTS) <= set(SHOWING)


def test_most_commands_are_run():
    run = [command for command in COMMANDS if not begins(command, NOT_RUN)]
    assert len(run) > 60
    assert all(command.startswith(("braggshot ", "python ", "cd ", "export ")) for command in run)
