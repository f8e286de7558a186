"""Nothing that is measured is ever written to, whatever is asked; what is written is whole, and lies where it should."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import tifffile
from sample_reconstruction import sample_reconstruction

from braggshot import output
from braggshot.cli import main
from braggshot.errors import BraggshotError, OutputError
from braggshot.io import registry
from braggshot.io.atomic import CheckedStream, check_room, file_name, refuse_target, replacing, sweep
from braggshot.io.formats import patterns
from braggshot.io.formats.recorded import Plan, Recorder
from braggshot.output import OutputConfig, check_writable, targets_of
from braggshot.volumes import Frame

QUICK = ("--method", "iterative", "--starts", "1", "--recipe", "3*ER", "--set", "strain.half_data=false")


@pytest.fixture
def data(tmp_path):
    """A folder of what may be read: a scan, patterns, a network, a settings file, a mask; nothing in it may change."""
    folder = tmp_path / "data"
    folder.mkdir()
    z, y, x = np.indices((16, 16, 16)) - 8
    counts = 1e4 * np.exp(-(z**2 + y**2 + x**2) / 8)
    with h5py.File(folder / "g.cxi", "w") as file:
        file["entry_1/instrument_1/detector_1/data"] = counts.astype(np.uint32)
    with h5py.File(folder / "s.h5", "w") as file:
        file["patterns"] = counts.astype(np.float32)[None]
    np.save(folder / "s.npy", counts.astype(np.float32)[None])
    (folder / "best.safetensors").write_bytes(b"a network")
    (folder / "series.csv").write_text("scan,potential_V\n1,0\n")
    return folder


def content(folder):
    return {path.name: (path.read_bytes(), path.lstat().st_ino) for path in sorted(folder.iterdir()) if path.is_file()}


def linked(data, name, how, place):
    """A path that leads to a file of the data: itself, or a link of either kind elsewhere."""
    if how == "same":
        return data / name
    place.mkdir(exist_ok=True)
    path = place / name
    path.symlink_to(data / name) if how == "symbolic link" else os.link(data / name, path)
    return path


# Command -> words before the output, the input whose place is asked for as output, and the output that names its folder.
COMMANDS = {
    "reconstruct": (["reconstruct", "g.cxi", *QUICK], "g.cxi"),
    "postprocess": (["postprocess", "g.cxi"], "g.cxi"),
    "series": (["series", "g.cxi"], "g.cxi"),
    "series, table": (["series", "g.cxi", "--metadata", "series.csv"], "series.csv"),
    "stack": (["stack", "s.npy"], "s.npy"),
    "stack, HDF5": (["stack", "s.h5"], "s.h5"),
    "train": (["train", "--steps", "1", "--init", "best.safetensors"], "best.safetensors"),
    "simulate": (["simulate", "--shape", "32", "32", "32"], "g.cxi"),
}
NEEDS_FOLDER = {"series", "series, table", "train"}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("how", ["same", "folder", "symbolic link", "hard link"])
def test_no_command_writes_over_what_is_measured(data, command, how, monkeypatch, capsys):
    words, name = COMMANDS[command]
    if how == "folder" and command in {"stack", "stack, HDF5", "simulate", "postprocess"}:
        pytest.skip("writes one file, or by a name of its own")
    monkeypatch.chdir(data)
    before = content(data)
    target = data if how == "folder" else linked(data, name, how, data.parent / "elsewhere")
    if command in NEEDS_FOLDER and how != "folder":
        target = target.parent
    assert main([*words, "-o", str(target)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "bug" not in said
    assert content(data) == before


def test_a_live_session_takes_no_name_that_is_taken(data):
    from braggshot.live.session import Session

    session = Session(data)
    assert session.receiver.assembly.is_taken("g")
    session.journal.close()
    assert main(["live", f"folder:{data}", "-o", str(data), "--no-browser"]) == 1


def test_emit_writes_among_no_other_files(data, capsys):
    """Neither over frames that are read, nor over files of the same names that something else wrote."""
    before = content(data)
    frames = data / "g_0001"
    frames.mkdir()
    tifffile.imwrite(frames / "g_0001_00000.tif", np.zeros((4, 4), np.uint16))
    (data / "g_0001.h5").write_bytes(b"somebody's")
    for options in ([], ["--hdf5"]):
        assert main(["emit", str(data / "g.cxi"), "--to", f"folder:{data}", "--rate", "0", *options]) == 1
    assert (data / "g_0001.h5").read_bytes() == b"somebody's"
    assert content(frames).keys() == {"g_0001_00000.tif"}
    assert {name: found for name, found in content(data).items() if name in before} == before
    for _ in range(2):  # what was emitted before is replaced
        assert main(["emit", str(data / "g.cxi"), "--to", f"folder:{data.parent / 'frames'}", "--rate", "0"]) == 0
    assert not list((data.parent / "frames").rglob(".*"))


@pytest.fixture(params=["device", "FIFO", "socket"])
def special(request, tmp_path):
    import socket

    path = tmp_path / "N.cxi"
    with socket.socket(socket.AF_UNIX) as server:
        if request.param == "device":
            path.symlink_to("/dev/null")
        elif request.param == "FIFO":
            os.mkfifo(path)
        else:
            server.bind(str(path))
        yield path


def test_no_command_writes_to_a_device_a_fifo_or_a_socket(data, special, monkeypatch, capsys):
    monkeypatch.chdir(data)
    kind = special.stat().st_mode
    for words in (COMMANDS["reconstruct"], COMMANDS["postprocess"], COMMANDS["stack"], COMMANDS["simulate"]):
        assert main([*words[0], "-o", str(special)]) == 1
        assert "not a place for a result" in capsys.readouterr().err or words is COMMANDS["postprocess"]
        assert special.stat().st_mode == kind


SPECIAL_FILES = {"series": "series.csv", "train": "last.safetensors", "evaluate": "results.json", "live": "events.jsonl"}


@pytest.mark.parametrize("command", SPECIAL_FILES)
def test_no_folder_of_results_holds_a_device_a_fifo_or_a_socket(data, special, command, monkeypatch, capsys):
    monkeypatch.chdir(data)
    place = special.with_name("out") / SPECIAL_FILES[command]
    place.parent.mkdir()
    special.rename(place)
    kind = place.stat().st_mode
    words = {"series": ["g.cxi"], "train": ["--steps", "1"], "evaluate": [], "live": ["replay:g.cxi", "--no-browser", "--once"]}
    assert main([command, *words[command], "-o", str(place.parent)]) == 1
    assert "not a place for a result" in capsys.readouterr().err
    assert place.stat().st_mode == kind


def test_what_somebody_else_wrote_is_replaced_only_by_force(data, monkeypatch, capsys):
    monkeypatch.chdir(data)
    (data / "mine.cxi").write_bytes(b"another program's object")
    for words in (COMMANDS["reconstruct"], COMMANDS["simulate"], COMMANDS["stack"]):
        assert main([*words[0], "-o", "mine.cxi"]) == 1
        assert "--force" in capsys.readouterr().err
    assert (data / "mine.cxi").read_bytes() == b"another program's object"
    assert main([*COMMANDS["simulate"][0], "-o", "mine.cxi", "--force"]) == 0
    assert main([*COMMANDS["simulate"][0], "-o", "mine.cxi"]) == 0  # it is our own now


def test_every_kind_of_result_is_known_again(tmp_path):
    found = sample_reconstruction()
    formats = ("cxi", "vti", "png", "html", "npz")
    output.write(found, tmp_path, formats)
    files = targets_of(tmp_path, found.volume.name, formats)
    for file in files.values():
        refuse_target(file, force=False)
    check_writable(tmp_path, (), [found.volume.name], formats, force=OutputConfig().force)
    for file in files.values():
        file.write_bytes(b"\0" * 10**6)
        with pytest.raises(OutputError, match="--force"):
            refuse_target(file, force=False)


def test_a_link_stays_and_its_target_keeps_its_permissions(tmp_path):
    target, link = tmp_path / "private.cxi", tmp_path / "link.cxi"
    target.write_bytes(b"old")
    target.chmod(0o600)
    link.symlink_to(target)
    with replacing(link) as temporary:
        temporary.write_bytes(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "name",
    ["../../victim", "/abs/path", "a\\b", "a\nb\x1b[2J", ".hidden", "", "..", "x" * 400, "é" * 300, "a\udcffb", "C:x", "\u202eb"],
)
def test_a_name_leads_nowhere_else(tmp_path, name):
    safe = file_name(name)
    assert safe == file_name(safe)
    assert len(f"{safe}.html".encode()) <= 255
    (target,) = targets_of(tmp_path, name, ["cxi"]).values()
    assert target.parent == tmp_path
    assert target.name.isprintable()
    with replacing(target) as temporary:
        temporary.write_bytes(b"")
    assert os.listdir(tmp_path) == [target.name]


def test_plain_names_stay():
    for name in ("S0054_a-1.5", "Probe 1 é", "Pt(111)"):
        assert file_name(name) == name


@pytest.mark.parametrize("name", ["../../victim", "/abs/path", None, 7])
def test_the_name_of_a_recording_is_no_path(tmp_path, name):
    recorder = Recorder(tmp_path / "rec", Plan("plain", (4, 4), np.dtype("u2"), 2))
    recorder.add(Frame(0, np.ones((4, 4), np.uint16)))
    with h5py.File(tmp_path / "rec" / "about.h5", "r+") as file:
        del file["name"]
        if name is not None:
            file["name"] = name
    read = registry.read(tmp_path / "rec").name
    assert read == {None: "rec", 7: "rec"}.get(name, read)
    assert "/" not in read
    assert not read.startswith(".")


def test_two_programs_that_begin_in_one_folder_at_once(tmp_path):
    failed = []

    def begin():
        try:
            for _ in range(200):
                check_writable(tmp_path / "out")
        except BraggshotError as error:
            failed.append(error)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert not list((tmp_path / "out").iterdir())


def test_a_sweep_leaves_what_is_being_written(tmp_path):
    left = tmp_path / ".killed-0123abcd.cxi"
    left.write_bytes(b"half")
    with replacing(tmp_path / "a.cxi") as temporary:
        temporary.write_bytes(b"whole")
        sweep(tmp_path)
    assert os.listdir(tmp_path) == ["a.cxi"]


def test_a_restart_finds_whole_files_after_a_power_cut(tmp_path, monkeypatch):
    """The disk has what a restart depends on before the file gets its name."""
    order = []
    real, renamed = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("disk"), real(descriptor)))
    monkeypatch.setattr(os, "replace", lambda old, new: (order.append(Path(new).name), renamed(old, new)))
    recorder = Recorder(tmp_path / "rec", Plan("s", (4, 4), np.dtype("u2"), 2))
    recorder.end()
    from braggshot.evaluation import rows
    from braggshot.nn import weights
    from braggshot.series import table

    weights.write(tmp_path / "last.safetensors", {}, {})
    table.write(tmp_path / "series.csv", [])
    rows.write(tmp_path / "results.json", [])
    names = ["about.h5", "ended.json", "last.safetensors", "series.csv", "results.json"]
    assert order == [word for name in names for word in ("disk", name)]


def test_no_room_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=10**9, free=1000))
    for attempt in (
        lambda: check_room(tmp_path, 1, "x"),
        lambda: check_writable(tmp_path),
        lambda: Recorder(tmp_path / "r", Plan("s", (4, 4), np.dtype("u2"), 2)),
        lambda: patterns.create_objects(tmp_path / "o.h5", 2, (4, 4, 4), {}).__enter__(),
    ):
        with pytest.raises(OutputError, match="are free"):
            attempt()
    assert not list(tmp_path.iterdir())


FULL = """
import resource, sys
import numpy as np
from braggshot import output
from braggshot.cli import main
from braggshot.io.formats import patterns
limit = int(sys.argv[1])
patterns.check_room = lambda *_: None
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with patterns.create_objects(sys.argv[2], 40, (16, 16, 16), {"seed": 1}) as (file, disk):
        for done in range(0, 40, 4):
            file["object"][done : done + 4] = np.ones((4, 16, 16, 16), np.complex64)
            disk.check()
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("limit", [1000, 100_000, 1_310_000])
def test_hdf5_never_hears_of_a_full_disk(tmp_path, limit):
    done = subprocess.run([sys.executable, "-c", FULL, str(limit), tmp_path / "o.h5"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("OutputError cannot write")
    assert os.listdir(tmp_path) == []


def test_a_checked_file_is_an_hdf5_file(tmp_path):
    with patterns.create_objects(tmp_path / "o.h5", 3, (2, 2, 2), {"seed": 1}) as (file, disk):
        assert isinstance(disk, CheckedStream)
        for place in range(3):
            file["object"][place] = np.full((2, 2, 2), place, np.complex64)
        disk.check()
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["object"][:, 0, 0, 0].tolist() == [0, 1, 2]
        assert file.attrs["seed"] == 1


def test_a_full_disk_while_frames_are_emitted_is_one_line(data, tmp_path, monkeypatch, capsys):
    real = os.replace

    def full(old, new):
        if str(new).endswith("_00003.tif"):
            raise OSError(28, "No space left on device")
        real(old, new)

    monkeypatch.setattr(os, "replace", full)
    assert main(["emit", str(data / "g.cxi"), "--to", f"folder:{tmp_path / 'frames'}", "--rate", "0"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not [path for path in (tmp_path / "frames").rglob("*") if path.name.startswith(".")]
