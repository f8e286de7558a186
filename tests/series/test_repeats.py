"""Repeats in a series: grouped as they were measured, added before phasing, and told in the table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from braggshot import cli, series
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.errors import ConfigError
from braggshot.io import results
from braggshot.report import series as report
from braggshot.series import group_repeats, table
from braggshot.series.sources import Source, list_sources, unique_names

CRYSTAL = CrystalSettings(shape=(24, 26, 28), counts=(1e5, 1e5), displacements=("gaussians",), shapes=("fcc",))
QUICK = {
    "phasing": {"method": "iterative", "starts": 2, "partial_coherence": "off", "device": "cpu"}
    | {"iterative": {"recipe": "2*(20*HIO+20*RAAR+10*ER)+20*ER"}},
    "series": {"movie": False},
}


def expected(phases):
    _, volume = simulate_volume(3, replace(CRYSTAL, phase_range=(phases, phases)))
    return np.asarray(volume.intensity, float)


@pytest.fixture(scope="module")
def repeats(tmp_path_factory):
    """Two states of one crystal, three scans each; the last scan of the first group is already the second state."""
    folder = tmp_path_factory.mktemp("repeats")
    states = [expected(1.0), expected(2.2)]
    for number, state in enumerate((0, 0, 1, 1, 1, 1)):
        counts = np.random.default_rng(number).poisson(states[state] / 3)
        np.savez(folder / f"s{number}.npz", data=counts.astype(np.int32))
    return sorted(folder.glob("*.npz"))


def sources(*values, column="V"):
    return [Source(f"s{number}.npz", metadata={column: value}) for number, value in enumerate(values)]


def test_scans_are_grouped_by_number_or_by_a_shared_value():
    listed = sources(0.1, 0.1, 0.2, 0.2, 0.2, 0.1)
    assert [[one.path for one in group.repeats] for group in group_repeats(listed, "3")] == [
        ["s0.npz", "s1.npz", "s2.npz"], ["s3.npz", "s4.npz", "s5.npz"],
    ]  # fmt: skip
    by_value = group_repeats(listed, "V")
    assert [len(group.repeats) for group in by_value] == [2, 3, 0]  # a value that comes back is another condition
    assert [group.metadata["V"] for group in by_value] == [0.1, 0.2, 0.1]
    assert group_repeats(listed, 3)[0].metadata["V"] == pytest.approx(0.4 / 3)
    assert group_repeats(sources("a", "a", "b", "b", column="note"), 4)[0].metadata == {"note": "a, b"}


@pytest.mark.parametrize(
    ("by", "said"), [("4", "6 scans are no whole"), ("1", "of two or more"), ("0", "no whole"), ("I", "columns: V")]
)
def test_what_makes_no_groups_is_refused_in_a_line(by, said):
    with pytest.raises(ConfigError, match=said):
        group_repeats(sources(0.1, 0.1, 0.2, 0.2, 0.2, 0.1), by)
    with pytest.raises(ConfigError, match="not every scan has a value"):
        group_repeats(sources(0.1, None), "V")


def test_the_scans_of_a_group_are_its_name_and_decide_its_row(tmp_path):
    listed = [Source(tmp_path / "exp.spec", str(number)) for number in (54, 55, 56, 57)]
    groups = group_repeats(listed, 2)
    assert unique_names(groups, {}) == ["exp-54-sum", "exp-56-sum"]
    assert groups[0].label == f"{tmp_path}/exp.spec#54, {tmp_path}/exp.spec#55"
    begun = [table.new_row(group, "same", name="exp-54-sum") for group in (groups[0], group_repeats(listed[::3], 2)[0])]
    (tmp_path / "exp-54-sum.cxi").touch()
    assert table.is_current(begun[0], begun[0], tmp_path)
    assert not table.is_current(begun[0], begun[1], tmp_path)


def test_the_command_adds_each_group_and_says_what_was_left_out(repeats, tmp_path, capsys):
    options = [f"--set=phasing.{name}={value}" for name, value in QUICK["phasing"].items() if name != "iterative"]
    options += [f"--set=phasing.iterative.recipe={QUICK['phasing']['iterative']['recipe']}", "--set=series.movie=false"]
    command = ["series", *map(str, repeats), "-o", str(tmp_path), "--sum", "3", "--column", "V=1,1,1,2,2,2", *options]
    assert cli.main(command) == 0
    assert "left out s2: its magnitudes differ" in capsys.readouterr().out
    first, second = table.read(tmp_path / "series.csv")
    assert (first["name"], second["name"]) == ("s0-sum", "s3-sum")
    assert (first["scans_summed"], second["scans_summed"]) == (2, 3)
    assert (first["V"], second["V"]) == (1, 2)
    assert first["input"] == ", ".join(map(str, repeats[:3]))
    assert second["repeats"].startswith("sum of 3 of 3 scans")
    counted = [float(results.read(tmp_path / f"{row['name']}.cxi").volume.intensity.sum()) for row in (first, second)]
    read = [float(np.load(path)["data"].sum()) for path in repeats]
    assert counted[0] == pytest.approx(sum(read[:2]), rel=0.01)
    assert counted[1] == pytest.approx(sum(read[3:]), rel=0.01)
    assert "left out s2" in report.page(tmp_path, [first, second], np.arange(2.0), "V", None, b"")
    assert cli.main(command) == 0
    assert capsys.readouterr().out.count("(kept)") == 2


def test_a_group_that_cannot_be_added_fails_alone(repeats, tmp_path):
    other = tmp_path / "other.npz"
    np.savez(other, data=np.ones((8, 9, 10), np.int32))
    groups = group_repeats(list_sources([repeats[0], other, *repeats[3:5]]), 2)
    rows = [done.row for done in series.run(groups, tmp_path / "out", series.resolve(QUICK))]
    assert rows[0]["verdict"] == "failed"
    assert "is no repeat of s0" in rows[0]["reasons"]
    assert rows[1]["scans_summed"] == 2
