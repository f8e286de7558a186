"""Series: one grid, one twin, one origin; warm starts that are checked; a table that survives a kill; bad scans skipped."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from braggshot import cli, series
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.errors import ConfigError, DataError, FormatError
from braggshot.io import results
from braggshot.io.formats import cxi
from braggshot.iterative.iterate import Guess, IterativeConfig
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import phase
from braggshot.physics.fourier import fourier, to_corner
from braggshot.physics.geometry import direct_basis
from braggshot.physics.strain import mean_turn, without_ramp
from braggshot.pipeline import drain
from braggshot.prepare import PrepareConfig
from braggshot.report import series as report
from braggshot.series import registration, table
from braggshot.series.scan import doubt_twin, doubt_warm_start
from braggshot.series.sources import Source, list_sources, parse_numbers, parse_value
from braggshot.volumes import DiffractionVolume, Ensemble, Quality, Reconstruction, Scan, StrainMap

SHAPE = (24, 26, 28)
CRYSTAL = CrystalSettings(shape=SHAPE, counts=(1e5, 1e5), displacements=("gaussians",), shapes=("fcc",))
QUICK = {
    "phasing": {
        "method": "iterative",
        "starts": 2,
        "partial_coherence": "off",
        "device": "cpu",
        "iterative": {"recipe": "2*(20*HIO+20*RAAR+10*ER)+20*ER"},
    }
}


def inverted(array):
    """n - N // 2 replaced by N // 2 - n on every axis."""
    return np.roll(np.flip(array), [1 - n % 2 for n in array.shape], axis=(0, 1, 2))


def blob(shape, basis=None, centre=(0.0, 0.0, 0.0)):
    """A lopsided complex object of the position alone, and its support."""
    basis = np.eye(3) if basis is None else basis
    index = np.indices(shape).reshape(3, -1) - np.array(shape)[:, None] // 2
    r = (basis @ index).reshape(3, *shape) - np.reshape(centre, (3, 1, 1, 1))
    amplitude = np.clip(4.5 - np.abs(r[0]) - 0.4 * np.abs(r[1]) + 0.3 * r[2], 0, 1) * (np.abs(r[1]) < 5) * (np.abs(r[2]) < 5)
    rho = amplitude * np.exp(1j * (0.05 * r[0] * r[1] + 0.03 * r[2] ** 2 + 0.002 * r[0] ** 3))
    return rho.astype(np.complex64), amplitude > 0


def found_of(rho, support, basis=None, q=None):
    counts = fourier(torch.from_numpy(rho)).abs().square().numpy()
    reciprocal = None if basis is None else 2 * np.pi * np.linalg.inv(basis).T / np.array(rho.shape)
    volume = DiffractionVolume(counts, np.ones(rho.shape, bool), reciprocal_basis=reciprocal, q_bragg=q)
    return Reconstruction(rho, support, volume, Quality(0, 0, 0, 0), basis=basis)


def correlation(a, b):
    return abs(np.vdot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b)


# registration


@pytest.mark.parametrize("shape", [(20, 22, 24), (21, 23, 19)])
def test_inversion_is_about_the_centre_voxel(shape):
    point = np.zeros(shape)
    point[tuple(n // 2 + 2 for n in shape)] = 1
    assert inverted(point)[tuple(n // 2 - 2 for n in shape)] == 1


@pytest.mark.parametrize("shape", [(20, 22, 24), (21, 23, 19)])
@pytest.mark.parametrize("twin", [False, True])
def test_twin_and_shift_are_undone_exactly(shape, twin):
    rho, support = blob(shape)
    turned = inverted(rho).conj() if twin else rho
    where = inverted(support) if twin else support
    other = np.roll(turned, (2, -1, 3), (0, 1, 2)) * np.exp(0.7j)
    placed, how = registration.register(found_of(other, np.roll(where, (2, -1, 3), (0, 1, 2))), rho)
    assert how.twin is twin
    assert how.correlation > 0.9999
    assert how.margin > 0.05
    np.testing.assert_array_equal(placed.support, support)
    np.testing.assert_allclose(placed.rho * np.exp(-1j * np.angle(np.vdot(rho, placed.rho))), rho, atol=1e-5)


def test_a_peak_off_centre_does_not_disturb_the_comparison():
    rho, support = blob((20, 22, 24))
    ramped = without_ramp(rho, np.array([0.12, -0.1, 0.08])).astype(np.complex64)
    placed, how = registration.register(found_of(ramped, support), rho)
    assert how.correlation > 0.9999
    np.testing.assert_allclose(np.abs(placed.rho), np.abs(rho), atol=1e-6)
    np.testing.assert_allclose(mean_turn(placed.rho), mean_turn(ramped), atol=1e-6)  # its own ramp is where its peak lies


def test_counts_tell_the_ramp_of_any_object_that_explains_them():
    rho, support = blob((20, 23, 24))
    rho = without_ramp(rho, np.array([0.2, -0.1, 0.05])).astype(np.complex64)
    np.testing.assert_allclose(registration.measured_turn(found_of(rho, support).volume), mean_turn(rho), atol=1e-5)


def test_the_neighbour_is_carried_to_another_grid_in_the_crystal_frame():
    """Same body, other voxels and another direction of q in the laboratory: the crystal frame relates them."""
    first = np.array([[1.0, 0.1, 0.0], [0.0, 1.1, 0.2], [0.1, 0.0, 0.9]])
    second = np.array([[1.2, 0.0, 0.1], [0.1, 1.0, 0.0], [0.0, -0.2, 1.05]])
    turn = registration.rotation_onto(np.array([0.2, 3.0, 0.3]), np.array([0.0, 1.0, 0.0]))
    before = found_of(*blob((28, 26, 30), first), first, np.array([0.0, 3.0, 0.0]))
    rho, support = blob((24, 30, 28), second)
    now = found_of(rho, support, turn.T @ second, turn.T @ np.array([0.0, 3.0, 0.0]))
    np.testing.assert_allclose(direct_basis(now.volume.reciprocal_basis, rho.shape), turn.T @ second, rtol=1e-9)
    brought = registration.carry_neighbour(before, now.volume)
    assert correlation(brought, rho) > 0.95  # linear interpolation of a body ten voxels wide
    assert np.linalg.norm(brought) == pytest.approx(np.linalg.norm(rho), rel=1e-3)
    as_indices = np.pad(before.rho, ((0, 0), (2, 2), (0, 0)))[2:-2, :, 1:-1]
    assert correlation(as_indices, rho) < 0.9  # so the frames matter
    same = registration.carry_neighbour(replace(before, volume=replace(before.volume, q_bragg=None)), before.volume)
    assert correlation(same, before.rho) > 0.9999


def test_another_shape_without_geometry_is_an_error():
    rho, support = blob((20, 22, 24))
    other = DiffractionVolume(np.ones((20, 20, 20)), np.ones((20, 20, 20), bool))
    with pytest.raises(DataError, match="no geometry to relate"):
        registration.carry_neighbour(found_of(rho, support), other)


def test_the_window_of_the_first_scan_holds():
    grid = registration.Grid((40, 42, 44), (1, 2, 2), None, None)
    raw = Scan(np.zeros((60, 100, 100)), "raw")
    assert registration.hold_grid(PrepareConfig(), grid, raw).shape == (40, 42, 44)
    assert registration.hold_grid(PrepareConfig(), grid, raw).binning == (1, 2, 2)
    ready = Scan(np.zeros((40, 42, 44)), "ready", prepared=True)
    assert registration.hold_grid(PrepareConfig(), grid, ready) == PrepareConfig()
    assert registration.hold_grid(PrepareConfig(), None, raw) == PrepareConfig()


def strain_map_of(shape, side):
    support = np.zeros(shape, bool)
    support[tuple(slice(n // 2 - side, n // 2 + side + 1) for n in shape)] = True
    array = np.where(support, 1.0, np.nan)
    nothing = np.zeros(shape, bool)
    return StrainMap(
        amplitude=support * 1.0, phase=np.zeros(shape), displacement=array, strain=array, d_spacing=array, support=support,
        surface=nothing, bulk=support, dislocation=nothing, basis=np.eye(3), q_bragg=np.array([0, 1.0, 0]), frame="crystal",
        rotation=np.eye(3), iso_level=0.5,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(15, 9, 13), (7, 21, 9)])
def test_maps_get_one_shape_about_the_origin(shape):
    found = registration.on_map(strain_map_of((11, 13, 9), 2), shape)
    assert found.support.shape == found.strain.shape == shape
    assert found.support[tuple(slice(n // 2 - 2, n // 2 + 3) for n in shape)].all()
    assert found.support.sum() == 125
    assert np.isnan(found.strain[~found.support]).all()
    with pytest.raises(DataError, match="reaches beyond"):
        registration.on_map(strain_map_of((11, 13, 9), 3), (5, 21, 9))


# warm starts


@pytest.fixture(scope="module")
def sample():
    return simulate_volume(3, replace(CRYSTAL, phase_range=(1, 1)))


def test_a_warm_start_leaves_the_cold_ones_alone(sample):
    rho, volume = sample
    config = PhasingConfig(
        method="iterative",
        starts=2,
        partial_coherence="off",
        device="cpu",
        iterative=IterativeConfig(recipe="20*HIO+20*RAAR+20*ER"),
    )
    corner = to_corner(torch.from_numpy(rho))
    alone = drain(phase(volume, config))
    both = drain(phase(volume, config, [Guess(corner, corner.abs() > 0.1 * corner.abs().max())]))
    assert both.ensemble.table["warm"].tolist() == [0, 0, 1]
    np.testing.assert_allclose(both.ensemble.table["llk_free"][:2], alone.ensemble.table["llk_free"])
    assert both.ensemble.table["llk_free"][2] < alone.ensemble.table["llk_free"].min()
    facts = table.compare_starts(both)
    assert facts["start"] == "warm"
    assert facts["cold_llk_free"] == pytest.approx(alone.quality.llk_free)


def judged(llk, agreement, warm, verdict="good"):
    rho, support = blob((20, 22, 24))
    found = found_of(rho, support)
    columns = {"llk_free": np.array(llk), "correlation": np.array(agreement), "warm": np.array(warm)}
    ensemble = Ensemble(columns, np.ones(1), np.ones(3), np.arange(3.0))
    return replace(
        found, ensemble=ensemble, quality=Quality(1e-4, 0.01, 0.5, 0.5, tuple(agreement)), verdict=verdict, reasons=("x",)
    )


def test_a_warm_start_that_no_cold_one_confirms_is_doubtful():
    settings = series.SeriesSettings()
    alone = doubt_warm_start(judged([5.0, 4.0, 0.5], [0.6, 0.7, 1.0], [0.0, 0.0, 1.0], "failed"), settings)
    assert alone.verdict == "doubtful"
    assert "cold start is another crystal (correlation 0.70)" in alone.reasons[0]
    for fine in (judged([0.6, 4.0, 0.5], [0.99, 0.7, 1.0], [0, 0, 1.0]), judged([0.5, 0.6], [1.0, 0.5], [0, 1.0])):
        assert doubt_warm_start(fine, settings) is fine


def test_twins_that_the_neighbour_does_not_tell_apart_are_doubtful():
    found = judged([0.5], [1.0], [0.0])
    clear = registration.Registration(0.9, 0.3, False, (0, 0, 0), (0.0, 0.0, 0.0))
    assert doubt_twin(found, clear) is found
    assert doubt_twin(found, replace(clear, margin=0.01)).verdict == "doubtful"


# sources and table


def test_numbers_columns_and_metadata(tmp_path):
    assert parse_numbers("54-56, 60") == ["54", "55", "56", "60"]
    assert [parse_value(text) for text in ("1e-3", "", "idle")] == [1e-3, None, "idle"]
    with pytest.raises(ConfigError, match="54-60"):
        parse_numbers("60-54")
    for k in range(2):
        (tmp_path / f"s{k}.npz").touch()
    files = [tmp_path / f"s{k}.npz" for k in range(2)]
    listed = list_sources(files, columns=["V=0.1,0.2", "state=idle,run"])
    assert [source.metadata for source in listed] == [{"V": 0.1, "state": "idle"}, {"V": 0.2, "state": "run"}]
    with pytest.raises(ConfigError, match="found 3 values for 2 scans"):
        list_sources(files, columns=["V=1,2,3"])
    with pytest.raises(ConfigError, match="name=v1"):
        list_sources(files, columns=["V"])
    with pytest.raises(ConfigError, match="at least one scan"):
        list_sources([])
    known = tmp_path / "log.csv"
    known.write_text("input,charge\ns1,0.5\ns0.npz,0.25\n")
    assert [source.metadata for source in list_sources(files, metadata=known)] == [{"charge": 0.25}, {"charge": 0.5}]
    known.write_text("scan,charge\n8,0.5\n7,0.25\n")
    assert [s.metadata for s in list_sources(files[:1], scans="7-8", metadata=known)] == [{"charge": 0.25}, {"charge": 0.5}]
    known.write_text("charge\n1\n2\n3\n")
    with pytest.raises(ConfigError, match="3 rows for 2 scans"):
        list_sources(files, metadata=known)


def test_all_scans_of_a_file_are_taken(tmp_path):
    with h5py.File(tmp_path / "many.h5", "w") as file:
        for number in (3, 12):
            file[f"{number}.1/measurement/mpx1x4"] = np.zeros((4, 5, 6), np.uint16)
            file[f"{number}.1/title"] = "ascan eta 0 1 4 1"
    assert [source.label for source in list_sources([tmp_path / "many.h5"])] == [f"{tmp_path}/many.h5#{n}" for n in ("3.1", "12.1")]


def test_the_table_comes_back(tmp_path):
    row = table.new_row(Source("a.cxi", metadata={"V": 1.5}), "d1", "a", "2024-05-14T09:00:00") | {"volume_m3": 1e-20, "chi2": 0.1}
    bad = table.fail_row(table.new_row(Source("b, c.cxi", metadata={"V": None}), "d2"), 'no "peak", sorry')
    later = table.new_row(Source("d.cxi"), "d3", "d", "2024-05-14T10:00:00")
    rows = table.add_elapsed([row, bad, later])
    assert [r["elapsed_s"] for r in rows] == [0.0, None, 3600.0]
    table.write(tmp_path / "series.csv", rows)
    back = table.read(tmp_path / "series.csv")
    for old, new in zip(rows, back, strict=True):
        assert {k: v for k, v in old.items() if v not in (None, "")} == {k: v for k, v in new.items() if v is not None}
    assert list(back[0])[:5] == ["input", "name", "time", "elapsed_s", "V"]
    (tmp_path / "series.csv").write_text("something,else\n1,2\n")
    with pytest.raises(FormatError, match="another folder"):
        table.read(tmp_path / "series.csv")


def test_what_decides_a_row_is_in_its_digest():
    source, settings = Source("a.cxi"), series.resolve(QUICK)
    assert table.digest(settings, source) == table.digest(series.resolve({**QUICK, "output": {"formats": ["vti"]}}), source)
    assert table.digest(settings, source) == table.digest(settings, replace(source, metadata={"V": 1.0}))
    assert table.digest(settings, source) != table.digest(settings, replace(source, scan="5"))
    assert table.digest(settings, source) != table.digest(series.resolve({**QUICK, "strain": {"surface": 2}}), source)


# the loop


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for number, phases in enumerate((1.0, 1.2, 1.4)):
        _, volume = simulate_volume(3, replace(CRYSTAL, phase_range=(phases, phases)))
        cxi.write_data(folder / f"s{number}.cxi", volume)
    (folder / "s1b.cxi").write_text("no HDF5 at all")
    return [folder / name for name in ("s0.cxi", "s1.cxi", "s1b.cxi", "s2.cxi")]


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """A series that is stopped after its second row and called again."""
    folder, steps = tmp_path_factory.mktemp("out"), []
    listed, settings = list_sources(inputs, columns=["V=0,1,2,3"]), series.resolve({**QUICK, "series": {"against": "V"}})
    running = series.run(listed, folder, settings, steps.append)
    first = [next(running).row, next(running).row]
    running.close()
    half = table.read(folder / "series.csv")
    steps.clear()
    rows = list(series.run(listed, folder, settings, steps.append))
    return folder, first, half, rows, len(steps), listed, settings


def test_rows_stream_and_a_stopped_series_goes_on(finished):
    folder, first, half, reports, _, listed, settings = finished
    assert [row["name"] for row in half] == ["s0", "s1"]
    assert [report.reused for report in reports] == [True, True, False, False]
    assert [report.done for report in reports] == [1, 2, 3, 4]
    assert reports[1].row["chi2"] == pytest.approx(first[1]["chi2"])
    again = []
    assert all(report.reused or report.row["verdict"] == "failed" for report in series.run(listed, folder, settings, again.append))
    assert not again  # nothing was phased
    assert len(table.read(folder / "series.csv")) == 4


def test_one_bad_scan_is_said_and_skipped(finished):
    _, _, _, reports, _, _, _ = finished
    bad, after = reports[2].row, reports[3].row
    assert bad["verdict"] == "failed"
    assert "s1b.cxi" in bad["reasons"]
    assert bad["chi2"] is None
    assert "failed" in series.describe_row(bad)
    assert after["verdict"] != "failed"
    assert after["correlation_to_previous"] > 0.95  # with the scan before the bad one


def test_one_twin_and_one_origin_throughout(finished):
    folder = finished[0]
    crystals = [results.read(folder / f"s{number}.cxi") for number in range(3)]
    flat = [without_ramp(found.rho, mean_turn(found.rho)) for found in crystals]
    assert {found.rho.shape for found in crystals} == {SHAPE}
    assert correlation(flat[0], flat[1]) > 0.9
    assert correlation(flat[1], flat[2]) > 0.9
    assert correlation(flat[0], inverted(flat[0]).conj()) < 0.9  # so the other twin would show
    assert "series_twin" in crystals[1].choices


def test_warm_and_cold_starts_are_in_the_table(finished):
    row = finished[3][3].row
    assert row["start"] in {"warm", "cold"}
    assert row["warm_cold_correlation"] > 0.95
    assert row["llk_free"] == pytest.approx(min(row["warm_llk_free"], row["cold_llk_free"]))


def test_what_is_left_at_the_end(finished):
    folder, _, _, reports, *_ = finished
    assert {file.name for file in folder.iterdir()} == {
        "s0.cxi", "s1.cxi", "s2.cxi", "series.csv", "series.parquet", "series.png", "series.html",
    }  # fmt: skip
    text = (folder / "series.html").read_text()
    assert "http" not in text.replace("http://www.w3.org", "")
    assert "s1b.cxi" in text
    parquet = pytest.importorskip("pyarrow.parquet").read_table(folder / "series.parquet")
    with (folder / "series.csv").open(newline="") as stream:
        header = next(csv.reader(stream))
    assert parquet.column_names == header
    assert parquet["V"].to_pylist() == [0, 1, 2, 3]
    assert parquet["chi2"].to_pylist() == [report.row["chi2"] for report in reports]
    wanted = {"input", "time", "volume_m3", "lattice_parameter_m", "strain_mean", "strain_std", "chi2", "correlation_to_previous"}
    assert wanted | {"verdict"} <= set(header)


def test_without_pyarrow_the_table_is_csv_alone(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    list(series.run(list_sources(inputs[:1]), tmp_path, series.resolve(QUICK)))
    assert not (tmp_path / "series.parquet").exists()
    assert "braggshot[series]" in series.closing_message(tmp_path)


def test_a_series_without_geometry_says_why_there_is_no_movie(tmp_path):
    cxi.write_data(tmp_path / "a.cxi", simulate_volume(5, CRYSTAL)[1])
    list(series.run(list_sources([tmp_path / "a.cxi"]), tmp_path / "out", series.resolve(QUICK)))
    assert not (tmp_path / "out" / "series.gif").exists()
    assert "no series.gif: no good or doubtful scan has a strain map" in series.closing_message(tmp_path / "out")
    assert "No good or doubtful scan has a strain map" in (tmp_path / "out" / "series.html").read_text()


def test_a_series_without_one_good_scan_is_an_error(inputs, tmp_path):
    with pytest.raises(DataError, match="none of the 1 scans"):
        list(series.run(list_sources([inputs[2]]), tmp_path / "out", series.resolve(QUICK)))


def test_the_command(finished, inputs, capsys):
    folder = finished[0]
    flags = [f"--set=phasing.{name}={value}" for name, value in QUICK["phasing"].items() if name != "iterative"]
    flags += [f"--set=phasing.iterative.recipe={QUICK['phasing']['iterative']['recipe']}", "--set=series.against=V"]
    command = ["series", *map(str, inputs), "-o", str(folder), "--column", "V=0,1,2,3", *flags]
    assert cli.main([*command, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == ["s0", "s1", "", "s2"]
    assert cli.main(command) == 0
    assert "(kept)" in capsys.readouterr().out
    assert cli.main([*command, "--column", "I=1"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.main([*command, "--set=series.cold=0"]) == 1
    assert "cold starts" in capsys.readouterr().err


# plots


def test_plots_run_along_what_is_asked_for_or_known():
    rows = [{"elapsed_s": 7200.0 * n, "V": n / 10, "note": "x"} for n in range(3)]
    assert report.abscissa(rows)[1] == "time [h]"
    np.testing.assert_allclose(report.abscissa(rows)[0], [0, 2, 4])
    np.testing.assert_allclose(report.abscissa(rows, "V")[0], [0, 0.1, 0.2])
    assert report.abscissa([{**row, "elapsed_s": 0.0} for row in rows])[1] == "scan"
    with pytest.raises(ConfigError, match="columns with numbers: V, elapsed_s"):
        report.abscissa(rows, "note")
