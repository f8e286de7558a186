from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from measured_data import DATA
from numpy.testing import assert_array_equal
from sample_inputs import aps_geometry, draw_counts

from braggshot.errors import ConfigError, DataError, FormatError, GeometryError
from braggshot.io.beamlines.aps_34idc import can_read, scans, write_scan
from braggshot.io.registry import describe, read
from braggshot.physics.geometry import scattering_vector
from braggshot.volumes import Circle

SCAN54 = DATA / "aps-34idc-scan54"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """Scan 54 with its dark and flat field of a chip larger than the frames."""
    angle, geometry = aps_geometry()
    dark, flat = np.zeros((256, 256), np.int32), np.arange(65536, dtype=np.float32).reshape(256, 256) + 1
    dark[122 + 2, 123 + 5] = 7
    return write_scan(tmp_path / "Staff1", draw_counts(), angle, geometry, 54, dark=dark, flat=flat)


def frame(spec: Path, number: int) -> Path:
    return spec.parent / f"AD34idcTIM2_Staff1/Staff1_S0054/Staff1_S0054_{number:05d}.tif"


def test_what_is_written_comes_back(spec: Path) -> None:
    angle, geometry = aps_geometry()
    scan = read(spec, dark="dark.tif", flat="whitefield.tif")
    assert scan.name == "Staff1_S0054"
    assert_array_equal(scan.frames[...], draw_counts())
    assert scan.frames.dtype == np.int32
    assert np.allclose(scan.rocking_angle, angle, atol=1e-12)
    assert scan.geometry is not None
    found = dataclasses.asdict(scan.geometry)
    for name, value in dataclasses.asdict(geometry).items():
        if name in {"sample", "detector"}:
            for one, other in zip(found[name], value, strict=True):
                assert (one["axis"], one["name"]) == (other["axis"], other["name"])
                assert np.allclose(one["angle"], other["angle"], atol=1e-12)
        else:
            assert found[name] == (value if isinstance(value, str) else pytest.approx(value))
    assert scan.dark is not None
    assert scan.flat is not None
    assert scan.dark.shape == scan.flat.shape == scan.frames.shape[1:]
    assert np.argwhere(scan.dark > 1).tolist() == [[2, 5]]
    assert scan.flat[3, 2] == (122 + 3) * 256 + (123 + 2) + 1
    assert scan.provenance["command"].startswith("ascan th -0.2 0.3 8 1")
    assert scan.provenance["time"].count(":") == 2


def test_dark_and_flat_are_cut_where_the_region_says(spec: Path) -> None:
    """#UIMR5 lists column, width, row, height."""
    spec.write_text(spec.read_text().replace("#UIMR5  123 10 122 12 1", "#UIMR5  6 10 3 12 1"))
    scan = read(spec, flat="whitefield.tif")
    assert scan.flat is not None
    assert scan.flat[0, 0] == 3 * 256 + 6 + 1
    np.save(spec.parent / "small.npy", np.ones((8, 8)))
    with pytest.raises(DataError, match=r"dark field has shape \(8, 8\), which does not cover"):
        read(spec, dark="small.npy")
    spec.write_text(spec.read_text().replace("#UIMR5  6 10 3 12 1", "#UIMR5  6 99 3 99 1"))
    assert any("#UIMR5" in note for note in read(spec).provenance["noticed"])


def test_missing_frames_keep_the_angles_of_those_that_exist(spec: Path) -> None:
    angle, _ = aps_geometry()
    for number in (0, 4):
        frame(spec, number).unlink()
    scan = read(spec)
    kept = [1, 2, 3, 5, 6, 7, 8]
    assert_array_equal(scan.frames[...], draw_counts()[kept])
    assert np.allclose(scan.rocking_angle, angle[kept])
    assert scan.monitor is not None
    assert scan.monitor.shape == (7,)
    assert "2 of 9 points have no frame (number 0, 4, counted from 0)." in scan.provenance["noticed"]


def test_a_full_set_may_be_numbered_from_one_but_a_shifted_one_is_not_full(spec: Path) -> None:
    for number in range(8, -1, -1):
        frame(spec, number).rename(frame(spec, number + 1))
    assert_array_equal(read(spec).frames[...], draw_counts())
    frame(spec, 5).rename(frame(spec, 0))  # nine frames for nine points, yet one point has none
    scan = read(spec)
    assert scan.frames.shape[0] == 8
    assert_array_equal(scan.frames[1], draw_counts()[0])
    assert "1 of 9 points have no frame (number 5, counted from 0)." in scan.provenance["noticed"]


def test_frames_without_numbers_must_be_complete(spec: Path) -> None:
    for number in range(9):
        frame(spec, number).rename(frame(spec, number).with_name(f"Staff1_S0054_{'abcdefghi'[number]}.tif"))
    assert_array_equal(read(spec).frames[...], draw_counts())
    frame(spec, 0).with_name("Staff1_S0054_c.tif").unlink()
    with pytest.raises(FormatError, match="8 frames for 9 points, and their names end in no number"):
        read(spec)


def test_repeated_and_surplus_frames_are_noticed(spec: Path) -> None:
    shutil.copy(frame(spec, 8), frame(spec, 9))
    shutil.copy(frame(spec, 2), frame(spec, 3).with_name("Staff1_S0054_b_00003.tif"))
    scan = read(spec)
    assert scan.frames.shape[0] == 9
    notes = " ".join(scan.provenance["noticed"])
    assert "1 frames repeat the number of another one" in notes
    assert "1 frames lie beyond the last of 9 points" in notes


def test_too_few_frames(spec: Path) -> None:
    for number in range(1, 9):
        frame(spec, number).unlink()
    with pytest.raises(DataError, match="1 frames belong to the 9 points"):
        read(spec)
    frame(spec, 0).unlink()
    with pytest.raises(FormatError, match=r"no frames of scan 54: looked for \*S0054\*\.tif\* in .*; say frames="):
        read(spec, scan=54)
    with pytest.raises(FormatError, match=r"choose a scan with scan=\.\.\.; no frames lie beside it"):
        read(spec)


def test_frames_elsewhere_and_in_two_places(spec: Path, tmp_path: Path) -> None:
    moved = tmp_path / "far" / "away" / "frames"
    shutil.move(frame(spec, 0).parent, moved)
    assert_array_equal(read(spec, scan=54, frames=moved).frames[...], draw_counts())
    assert_array_equal(read(spec, scan=54, frames=f"{moved}/*.tif").frames[2], draw_counts()[2])
    with pytest.raises(FormatError, match="nowhere: no frames"):
        read(spec, scan=54, frames="nowhere")
    for name in ("a", "b"):
        shutil.copytree(moved, spec.parent / name)
    with pytest.raises(FormatError, match=r"frames of scan 54 lie in .*a, .*b; choose with frames="):
        read(spec, scan=54)


def test_scans_of_a_file(spec: Path) -> None:
    block = spec.read_text()[spec.read_text().index("#S 54") :]
    spec.write_text(spec.read_text() + "\n" + block.replace("#S 54", "#S 57") + "\n" + block.replace("#S 54", "#S 58"))
    assert scans(spec) == ["54"]
    assert read(spec).name == "Staff1_S0054"
    with pytest.raises(FormatError, match=r"there is no scan 55; the file holds 54, 57-58"):
        read(spec, scan=55)
    with pytest.raises(FormatError, match="scan must be a number, found 'last'"):
        read(spec, scan="last")
    spec.write_text(spec.read_text() + "\n" + block)
    assert read(spec).provenance["scan"] == "54.2"
    assert any("2 scans of number 54 (54.1, 54.2): 54.2 is taken" in note for note in read(spec).provenance["noticed"])


def set_region(spec: Path, detector: str, row: int, column: int) -> None:
    size = {"34idcTIM1": 256, "": 0}.get(detector, 512)
    text = spec.read_text().replace("#UIMDET 34idcTIM1:", f"#UIMDET {detector}:" if detector else "#C")
    text = text.replace("#Readout 0 256 0 256", f"#Readout 0 {size} 0 {size}" if size else "#C")
    spec.write_text(text.replace("#UIMR5  123 10 122 12 1", f"#UIMR5  {column} 10 {row} 12 1"))


@pytest.mark.parametrize(
    ("detector", "row", "column", "beam"),
    [
        ("34idcTIM1", 0, 0, (127.5, 127.5)),
        ("34idcTIM1", 100, 112, (27.5, 15.5)),
        ("34idcTIM2", 0, 0, (258, 257.5)),  # 517 x 516 pixels with the seam
        ("34idcTIM2", 100, 112, (158, 145.5)),
        ("34idcTIM2", 256, 300, (258 - 261, 257.5 - 304)),  # beyond the seam
        ("34idcTIM2", 250, 0, (8, 257.5)),  # across it
        ("34idcNEW", 100, 112, (155.5, 143.5)),
        ("34idcNEW", 250, 300, (5.5, -44.5)),
        ("34idcTIM1", 250, 0, (5.5, 4.5)),  # rows that are not there: the frame's centre
        ("", 10, 10, (5.5, 4.5)),  # the size of the detector is not in the file
    ],
)
def test_the_direct_beam_stays_on_the_detector_when_the_region_moves(
    spec: Path, detector: str, row: int, column: int, beam: tuple[float, float]
) -> None:
    set_region(spec, detector, row, column)
    scan = read(spec)
    assert scan.geometry is not None
    assert scan.geometry.direct_beam == beam
    note = next(note for note in scan.provenance["noticed"] if "direct beam" in note and "assumed" in note)
    assert ("volume, orientation and lattice spacing depend on it: give direct_beam=" in note) == (beam != (5.5, 4.5))
    assert not any("assumed" in note for note in read(spec, direct_beam=(1, 2)).provenance["noticed"])


def test_the_gap_between_the_chips_of_the_quad_is_opened_and_masked(spec: Path, tmp_path: Path) -> None:
    set_region(spec, "34idcTIM2", 251, 249)  # five rows and seven columns before the gap
    np.save(tmp_path / "mask.npy", np.pad([[1]], ((2, 9), (8, 1))))
    np.save(tmp_path / "flat.npy", np.arange(512.0 * 512).reshape(512, 512))
    scan = read(spec, flat=tmp_path / "flat.npy", mask=tmp_path / "mask.npy", direct_beam=(1, 2))
    rows, columns = [*range(5), *range(10, 17)], [*range(7), *range(11, 14)]
    assert scan.frames.shape == (9, 17, 14)
    counts = scan.frames[...]
    assert_array_equal(counts[np.ix_(range(9), rows, columns)], draw_counts())
    assert counts.sum() == draw_counts().sum()
    assert_array_equal(scan.frames[2:8:2, 3:12:2, 6:], counts[2:8:2, 3:12:2, 6:])
    assert not scan.frames[0, 5:9].any()
    good = np.zeros((17, 14), bool)
    good[np.ix_(rows, columns)] = True
    good[2, 12] = False
    assert_array_equal(scan.valid, good)
    assert scan.flat is not None
    assert scan.flat[10, 11] == 256 * 512 + 256
    assert scan.geometry is not None
    assert scan.geometry.direct_beam == (1, 2)
    assert any("5 rows from row 5 on and 4 columns from column 7 on are inserted, masked" in n for n in scan.provenance["noticed"])


def test_frames_of_any_size_come_back_with_the_direct_beam_in_their_middle(tmp_path: Path) -> None:
    for rows, columns in ((12, 10), (13, 10), (256, 256), (8, 300), (512, 512)):
        angle, geometry = aps_geometry((3, rows, columns))
        frames = np.ones((3, rows, columns), np.int32)
        scan = read(write_scan(tmp_path / f"{rows}x{columns}", frames, angle, geometry, 1))
        assert scan.frames.shape == frames.shape
        assert scan.geometry is not None
        assert scan.geometry.direct_beam == ((rows - 1) / 2, (columns - 1) / 2)


def test_overrides_replace_what_the_file_says(spec: Path) -> None:
    geometry = read(spec, energy_ev=8000, distance_m=2.0, pixel_size_m=75e-6, direct_beam=[3, 4.5]).geometry
    assert geometry is not None
    assert geometry.energy == pytest.approx(8000 * 1.602176634e-19)
    assert (geometry.distance, geometry.pixel_size, geometry.direct_beam) == (2.0, (75e-6, 75e-6), (3.0, 4.5))
    with pytest.raises(ConfigError, match="distance_m must be a positive number, found -1"):
        read(spec, distance_m=-1)


def test_without_distance_there_is_no_geometry_but_a_note(spec: Path) -> None:
    spec.write_text(spec.read_text().replace("camdist", "camDist").replace("#D", "#C camdist\n#D", 1))
    scan = read(spec)
    assert scan.geometry is None
    assert scan.rocking_angle is not None
    assert any("do not give distance_m; say distance_m=..." in note for note in scan.provenance["noticed"])
    assert read(spec, distance_m=0.5).geometry is not None


def test_scan_of_another_motor_has_no_rocking_angle(spec: Path) -> None:
    spec.write_text(spec.read_text().replace("#L Theta", "#L Piezo_X").replace("ascan  th", "ascan  px"))
    scan = read(spec)
    assert scan.rocking_angle is None
    assert scan.geometry is None
    assert any("no sample circle (Theta, Chi, Phi) moved" in note for note in scan.provenance["noticed"])


def test_other_spec_files_are_not_claimed(tmp_path: Path) -> None:
    (tmp_path / "id01.spec").write_text("#F id01.spec\n#O0 eta delta nu\n\n#S 1 ascan eta 0 1 2 1\n#N 1\n#L eta\n0\n1\n2\n")
    assert not can_read(tmp_path / "id01.spec")
    with pytest.raises(FormatError, match="no reader knows this file"):
        read(tmp_path / "id01.spec")


def test_only_geometries_of_this_beamline_are_written(tmp_path: Path) -> None:
    angle, geometry = aps_geometry()
    wrong = dataclasses.replace(geometry, sample=(Circle("x-", angle, "eta"), *geometry.sample[1:]))
    off_centre = dataclasses.replace(geometry, direct_beam=(0.0, 0.0))
    still = dataclasses.replace(geometry, sample=tuple(dataclasses.replace(circle, angle=0.1) for circle in geometry.sample))
    for bad, said in (
        (wrong, "expected those of APS 34-ID-C"),
        (off_centre, "direct beam other than"),
        (still, "found none; check the scanned motor"),
    ):
        with pytest.raises(GeometryError, match=said):
            write_scan(tmp_path / "x", draw_counts(), angle, bad, 1)
    assert not (tmp_path / "x").exists()


@pytest.mark.data
def test_scan_54_agrees_with_its_own_spec_file() -> None:
    """Frame sums and maxima are columns of the SPEC file: the frames are the right ones, in the right order."""
    from silx.io.specfile import SpecFile

    if not SCAN54.exists():
        pytest.skip(f"no measured data in {SCAN54}")
    scan = read(SCAN54 / "example.spec", scan=54, dark="dark.tif", flat="whitefield.tif")
    table = SpecFile(str(SCAN54 / "example.spec"))["54.1"]
    counts = scan.frames[...]
    assert_array_equal(counts.sum(axis=(1, 2)), table.data_column_by_name("ImageTot"))
    assert_array_equal(counts.max(axis=(1, 2)), table.data_column_by_name("ImageMax"))
    assert np.allclose(np.rad2deg(scan.rocking_angle), table.data_column_by_name("Theta"))  # type: ignore[arg-type]
    assert counts.sum() == 46_155_653
    assert scan.dark is not None
    assert scan.dark.shape == (256, 256)
    assert scan.geometry is not None
    q = scattering_vector(scan.geometry, 99, 126, 127)
    assert 2 * np.pi / np.linalg.norm(q) == pytest.approx(2.3679e-10, rel=1e-4)  # gold (111), 0.6 % long
    facts = describe(SCAN54 / "example.spec")
    assert facts["scans"] == ["54"]
    angles = facts["geometry"]["sample_deg"] | facts["geometry"]["detector_deg"]
    assert angles.pop("Theta") == pytest.approx([-0.2799992, 0.7200076])
    assert angles == pytest.approx({"Chi": 90, "Phi": -5, "Delta": 32.174, "Gamma": 12.6346})
    with pytest.raises(FormatError, match="there is no scan 999; the file holds 1-498"):
        read(SCAN54 / "example.spec", scan=999)
