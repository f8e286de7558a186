"""SPEC files as they are found: every point keeps its place, whatever is odd is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sample_inputs import aps_geometry, draw_counts

from braggshot.errors import DataError, FormatError
from braggshot.io.beamlines.aps_34idc import can_read, write_scan
from braggshot.io.beamlines.spec import list_scans, read_scan
from braggshot.io.beamlines.tables import announced_points, decode, read_rows
from braggshot.io.registry import read
from braggshot.volumes import Scan

ANGLE = np.linspace(-0.2, 0.3, 9)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    angle, geometry = aps_geometry()
    return write_scan(tmp_path / "Staff1", draw_counts(), angle, geometry, 54)


def change(spec: Path, *pairs: tuple[str, str]) -> None:
    text = spec.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    spec.write_text(text)


def notes(scan: Scan) -> str:
    return " ".join(scan.provenance["noticed"])


def row(spec: Path, point: int) -> str:
    lines = spec.read_text().split("\n")
    return lines[next(i for i, line in enumerate(lines) if line.startswith("#L")) + 1 + point]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: b"\n\n" + text,
        lambda text: b"\xef\xbb\xbf\r\n" + text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"User = user", "User = Béatrice".encode("latin-1")),
        lambda text: text.replace(b"#T 1", "#C sample at 25 °C\n#T 1".encode("latin-1")),
        lambda text: text.replace(b"#N 5\n", b"#N 5\n#@MCA 16C\n").replace(b"\n-0.1375", b"\n@A 1 2 3 \\\n4 5 6 \\\n7 8\n-0.1375"),
        lambda text: text.replace(b"\n-0.1375", b"\n#C stopped and resumed\n#R 1 2\n\n-0.1375"),
        lambda text: text.replace(b"#O0", b" #O0").replace(b"#S 54", b" #S 54"),
        lambda text: text.replace(
            b"#S 54", b"#S 53  ct 1\n#D now\n\n#E 12\n#D now\n#O0 Delta  Theta\n\n#F again\n" + text + b"\n#S 55"
        ),
    ],
)
def test_what_does_not_matter_changes_nothing(spec: Path, damage: Any) -> None:
    whole = read(spec, scan=54)
    spec.write_bytes(damage(spec.read_bytes()))
    assert can_read(spec)
    scan = read(spec, scan=54)
    assert_array_equal(scan.frames[...], draw_counts())
    assert np.allclose(np.rad2deg(scan.rocking_angle), ANGLE)  # type: ignore[arg-type]
    assert scan.monitor is not None
    assert scan.provenance["noticed"] == whole.provenance["noticed"]
    assert scan.geometry is not None


def test_nan_in_a_counter_moves_no_angle(spec: Path) -> None:
    for point in (2, 5):
        change(spec, (row(spec, point), row(spec, point).replace(" 1000", " nan")))
    scan = read(spec)
    assert np.allclose(np.rad2deg(scan.rocking_angle), ANGLE)  # type: ignore[arg-type]
    assert_array_equal(scan.frames[...], draw_counts())
    assert "Monitor is no number at points 2, 5 of 9" in notes(scan)
    assert "the median flux is assumed for 2 frames" in notes(scan)
    assert_array_equal(scan.monitor, np.full(9, 1000))


@pytest.mark.parametrize("word", ["nan", "----", ""])
def test_a_point_whose_angle_is_not_known_is_left_out(spec: Path, word: str) -> None:
    old = row(spec, 3)
    change(spec, (old, f"{word} {old.partition(' ')[2]}"))  # without a word the row is short
    scan = read(spec)
    kept = [0, 1, 2, 4, 5, 6, 7, 8]
    assert_array_equal(scan.frames[...], draw_counts()[kept])
    assert np.allclose(np.rad2deg(scan.rocking_angle), ANGLE[kept])  # type: ignore[arg-type]
    assert scan.geometry is not None
    assert np.isfinite(scan.geometry.sample[0].angle).all()
    assert "frame 3 (counted from 0) has no angle and is left out" in notes(scan)


def test_a_scan_that_stopped_early_is_read_to_where_it_stopped(spec: Path) -> None:
    text = spec.read_text()
    spec.write_text(text[: text.index(row(spec, 6)) + 8])  # in the midst of a row
    scan = read(spec)
    assert_array_equal(scan.frames[...], draw_counts()[:6])
    assert "announces 9 points (ascan th -0.2 0.3 8 1), and 6 were measured: the scan stopped early" in notes(scan)
    assert "the last row is cut off" in notes(scan)
    assert "3 frames lie beyond the last of 6 points and were left out (number 6-8)" in notes(scan)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("#P0 ", "#P0 1 2 ", "the line #P0 holds 9 positions for the 7 names of #O0"),
        ("#P0 ", "#C ", "the line #P0 holds 0 positions for the 7 names"),
        ("#O0 ", "#C ", "the line #P0 holds 7 positions for the 0 names"),
        ("  Energy\n", "\n", "the line #P0 holds 7 positions for the 6 names of #O0"),
    ],
)
def test_motors_whose_positions_cannot_be_told_apart_are_left_out(spec: Path, old: str, new: str, said: str) -> None:
    change(spec, (old, new), ("#C sixc", "#C camdist"))
    scan = read(spec)
    assert_array_equal(scan.frames[...], draw_counts())
    assert np.allclose(np.rad2deg(scan.rocking_angle), ANGLE)  # type: ignore[arg-type]
    assert scan.geometry is None
    assert said in notes(scan)
    assert "say energy_ev=..., distance_m=...; the detector cannot be placed: say geometry=..." in notes(scan)


def test_names_and_columns_that_do_not_fit_keep_the_scanned_motor(spec: Path) -> None:
    change(spec, ("  Seconds", ""))
    scan = read(spec)
    assert np.allclose(np.rad2deg(scan.rocking_angle), ANGLE)  # type: ignore[arg-type]
    assert scan.monitor is None
    assert "names 4 columns and the rows hold 5 values: only the first column (Theta) is read" in notes(scan)


@pytest.mark.parametrize(
    ("line", "monitored"),
    [("#L\tTheta\tSeconds\tImageTot\tImageMax\tMonitor", True), ("#L Theta Seconds ImageTot ImageMax Monitor", True),
     ("#L Theta Seconds  ImageTot  ImageMax  Monitor", False)],
)  # fmt: skip
def test_names_of_columns_may_stand_apart_in_another_way(spec: Path, line: str, monitored: bool) -> None:
    change(spec, ("#L Theta  Seconds  ImageTot  ImageMax  Monitor", line))
    scan = read(spec)
    assert np.allclose(np.rad2deg(scan.rocking_angle), ANGLE)  # type: ignore[arg-type]
    assert (scan.monitor is not None) == monitored
    assert ("only the first column (Theta) is read" in notes(scan)) != monitored


def test_a_number_that_stands_twice_can_be_chosen(spec: Path) -> None:
    text = spec.read_text()
    block = text[text.index("#S 54") :]
    short = "\n".join(block.split("\n")[:-4]) + "\n"
    spec.write_text(f"{text}\n{short.replace('1000', '900')}\n#S 54  ascan  th 0 1 5 1\n#L Theta  Monitor\n\n")
    scan = read(spec)
    assert scan.provenance["scan"] == "54.1"
    assert "(54.1, 54.2, 54.3): 54.1 is taken, because it has as many points as there are frames, 9" in notes(scan)
    for asked in ("54.2", 54.2):
        scan = read(spec, scan=asked)
        assert scan.provenance["scan"] == "54.2"
        assert scan.frames.shape[0] == 6
        assert "is taken" not in notes(scan).replace("direct beam", "")
    with pytest.raises(DataError, match="scan 54 has no points"):
        read(spec, scan="54.3")
    with pytest.raises(FormatError, match=r"there is no scan 54\.7; number 54 stands 3 times: 54\.1, 54\.2, 54\.3"):
        read(spec, scan="54.7")


def test_the_names_of_the_scan_itself_come_first() -> None:
    text = b"#F x\n#O0 Theta  Chi\n\n#S 1  ascan  th 0 1 2 1\n#O0 Chi  Theta\n#P0 90 3\n#N 2\n#L Theta  I0 b\n0 1\n1 2\n2 3\n"
    scan = read_scan(text, list_scans(text)[0])
    assert scan.motors == {"Chi": 90, "Theta": 3}
    assert list(scan.columns) == ["Theta", "I0 b"]
    assert scan.points == 3
    assert scan.noticed == ()


@pytest.mark.parametrize(
    ("command", "points"),
    [
        ("ascan  th 0 1 47 1", 48),
        ("dscan om -.1 .1 20 1.0", 21),
        ("a2scan a 0 1 b 0 1 30 2", 31),
        ("d3scan a 0 1 b 0 1 c 0 1 9 1", 10),
        ("lup th 0 1 5 1", 6),
        ("mesh x 0 1 4 y 0 1 2 .1", 15),
        *((command, None) for command in ("ct 1", "ascan th 0 1", "", "ascan th 0 1 x 1")),
    ],
)
def test_points_that_a_command_announces(command: str, points: int | None) -> None:
    assert announced_points(command) == points


def test_rows_keep_their_place() -> None:
    table, said = read_rows(["1 2", "3", "5 x", "7 8 9", "9 10"], 2, whole=True)
    assert_array_equal(table, [[1, 2], [np.nan] * 2, [5, np.nan], [np.nan] * 2, [9, 10]])
    assert "points 1, 3 of 5 (counted from 0) have another number of words" in said[0]
    assert decode(b"\xef\xbb\xbfa\r\nb\rc") == "a\nb\nc"


@pytest.mark.data
def test_columns_and_motors_are_those_of_silx() -> None:
    from measured_data import DATA

    path = DATA / "aps-34idc-scan54" / "example.spec"
    if not path.exists():
        pytest.skip(f"no measured data in {path}")
    from silx.io.specfile import SpecFile

    content, peer = path.read_bytes(), SpecFile(str(path))
    places = list_scans(content)
    assert [place.key for place in places] == list(peer.keys())
    for place in places[10::97]:
        scan, table = read_scan(content, place), peer[place.key]
        assert_array_equal(list(scan.columns.values()), table.data)
        assert scan.motors == dict(zip(table.motor_names, table.motor_positions, strict=True))
