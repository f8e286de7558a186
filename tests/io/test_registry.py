from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from braggshot.errors import ConfigError, FormatError
from braggshot.io.registry import BUILT_IN, choose, describe, formats, option_names, read
from braggshot.volumes import Scan


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Register modules as entry points of another package; a module is given by its source."""

    def register(**sources: str) -> None:
        for name, source in sources.items():
            (tmp_path / f"plugin_{name}.py").write_text(source)
        points = [SimpleNamespace(name=name, value=f"plugin_{name}", dist=SimpleNamespace(name="beamline-x")) for name in sources]
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points if group == "braggshot.formats" else [])
        monkeypatch.syspath_prepend(tmp_path)
        for name in sources:
            sys.modules.pop(f"plugin_{name}", None)

    return register


READER = """
import numpy as np
from braggshot.volumes import Scan
{parent}
def can_read(path):
    return str(path).endswith({suffix!r})
def read(path, *, gain=1):
    return Scan(frames=np.full((3, 4, 5), gain), name="x")
"""


def test_another_package_adds_a_format(plugin: Any, tmp_path: Path) -> None:
    plugin(x=READER.format(parent="", suffix=".xyz"))
    (tmp_path / "a.xyz").write_text("anything")
    scan = read(tmp_path / "a.xyz", gain=4)
    assert isinstance(scan, Scan)
    assert scan.frames[0].max() == 4
    assert scan.provenance == {"format": "x", "path": str(tmp_path / "a.xyz"), "options": {"gain": 4}}
    assert formats()[-1].summary == "from the package beamline-x"


def test_two_unrelated_claimants_are_an_error_and_a_child_is_not(plugin: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4)))
    plugin(x=READER.format(parent="", suffix=".npy"))
    with pytest.raises(FormatError, match=r"stacks and x can both read this; choose one as the format"):
        choose(tmp_path / "a.npy")
    assert read(tmp_path / "a.npy", "stacks").frames.shape == (2, 3, 4)
    plugin(x=READER.format(parent='PARENT = "stacks"', suffix=".npy"))
    assert choose(tmp_path / "a.npy")[0].name == "x"


def test_a_reader_whose_package_is_missing_is_named_only_where_it_might_help(plugin: Any, tmp_path: Path) -> None:
    plugin(x="import no_such_package")
    (tmp_path / "a.xyz").write_text("anything")
    with pytest.raises(FormatError, match=r"tried cxi, .*, x\. Format x needs no_such_package .*: pip install beamline-x\."):
        read(tmp_path / "a.xyz")
    with pytest.raises(FormatError, match="pip install beamline-x"):
        read(tmp_path / "a.xyz", "x")
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4)))
    assert read(tmp_path / "a.npy").provenance["format"] == "stacks"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "this file is empty; tried"),
        (lambda path: path.mkdir(), "holds no TIFF, .npy, EDF or CBF images"),
        (lambda path: path.write_text("hello"), "no reader knows this file; tried cxi, stacks, images, nexus, aps_34idc"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)), "cannot be opened as HDF5"),
        (lambda path: path.write_bytes(b"II*\0" + bytes(3)), "cannot be read as TIFF"),
        (lambda path: path.write_bytes(b"\x93NUMPY" + bytes(3)), "cannot be read as .npy"),
        (lambda path: path.write_bytes(b"#F x.spec camdist"), "there is no scan|cannot be read as SPEC|choose a scan"),
    ],
)  # fmt: skip
def test_what_cannot_be_read(tmp_path: Path, make: Any, said: str) -> None:
    make(tmp_path / "a.dat")
    with pytest.raises(FormatError, match=said) as caught:
        read(tmp_path / "a.dat")
    assert "a.dat" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.mib", b"MQ1,000001,00384", r"a Merlin file: pip install rosettasciio, .*file_reader\('a\.mib'\)"),
        ("a.bin", bytes(99), "bare numbers: in Python"),
        ("a.h5", b"version https://git-lfs.github.com/spec/v1", "pointer of Git LFS: run 'git lfs pull'"),
        ("a.nxs", b"not HDF5", "does not begin like HDF5"),
        ("a.tar", b"\x1f\x8bxx", "packed file: unpack it"),
        ("a.png", b"\x89PNG....", "a picture, which holds no counts"),
    ],
)
def test_the_conversion_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=said):
        read(tmp_path / name)


def test_no_permission_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4)))

    def refuse(path: Any, **options: Any) -> Scan:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("braggshot.io.formats.stacks.read", refuse)
    with pytest.raises(FormatError, match=r"a\.npy: cannot be read as stacks \(Permission denied\)"):
        read(tmp_path / "a.npy")


def test_unreadable_file_says_so_before_any_reader_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4)))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(FormatError, match=r"a\.npy: you have no permission to read it"):
        read(tmp_path / "a.npy")


def test_unknown_format_and_option_name_the_known_ones(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4)))
    with pytest.raises(ConfigError, match=r"unknown format 'spec'; known: cxi, stacks, images, nexus, aps_34idc"):
        read(tmp_path / "a.npy", "spec")
    with pytest.raises(ConfigError, match=r"format stacks has no option scan; known: mask, geometry, dark, flat"):
        read(tmp_path / "a.npy", scan=3)
    _, module = choose(tmp_path / "a.npy", "petra_p10")
    calibration = ["detector_rotation_deg", "tilt_azimuth_deg", "tilt_deg"]
    assert option_names(module) == ["fio", "monitor", "energy_ev", "distance_m", "pixel_size_m", "direct_beam", *calibration]


def test_geometry_is_described_in_users_units(tmp_path: Path) -> None:
    from sample_inputs import draw_counts, write_bliss

    path = write_bliss(tmp_path, draw_counts(np.uint16), np.linspace(17.2, 17.8, 9))
    facts = describe(path)
    assert facts["scans"] == ["12.1"]
    assert facts["rocking_deg"] == pytest.approx([17.2, 17.8, 0.075])
    assert facts["geometry"]["energy_kev"] == pytest.approx(13.0)
    assert facts["geometry"]["distance_mm"] == pytest.approx(800)
    assert facts["geometry"]["pixel_size_um"] == pytest.approx([55, 55])
    assert facts["geometry"]["direct_beam_pixel"] == [7.0, 4.0]
    assert facts["geometry"]["sample_deg"]["eta"] == pytest.approx([17.2, 17.8])
    assert facts["monitor"] == [100.0, 110.0]


def test_listing_formats_imports_no_reader() -> None:
    script = (
        "import sys; from braggshot.io.registry import formats; n = len(formats()); "
        "print(n, [m for m in sys.modules if m in {'h5py', 'tifffile', 'silx', 'torch'}])"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == f"{len(BUILT_IN)} []"


def test_choosing_imports_no_reader_of_another_kind_of_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 4, 5)))
    script = (
        "import sys; from braggshot.io.registry import choose; chosen, _ = choose(sys.argv[1]); "
        "print(chosen.name, [m for m in sys.modules if m.startswith('braggshot.io.beamlines.')])"
    )
    said = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.npy")], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "stacks []"
