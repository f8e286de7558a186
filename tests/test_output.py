"""What is written where, and never over what was measured."""

import os
import socket
from dataclasses import replace

import h5py
import numpy as np
import pytest
from sample_crystal import result

import braggshot
from braggshot import output
from braggshot.errors import OutputError
from braggshot.io import results
from braggshot.io.atomic import refuse_target, replacing
from braggshot.output import Result, check_writable, targets_of


def measured(path, **options):
    """A reconstruction of the scan in a file."""
    found = result()
    provenance = {"path": str(path), "options": {name: str(value) for name, value in options.items()}}
    return replace(found, volume=replace(found.volume, name="scan", provenance=provenance))


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "scan.cxi"
    path.write_bytes(b"measured")
    return path


def through_a_link(path):
    link = path.with_name("link.cxi")
    link.symlink_to(path)
    return link


def through_a_hard_link(path):
    link = path.with_name("hard.cxi")
    os.link(path, link)
    return link


def through_a_folder(path):
    there = path.parent / "there"
    there.symlink_to(path.parent)
    return there


@pytest.mark.parametrize(
    "way", [lambda path: path, lambda path: path.parent, through_a_link, through_a_hard_link, through_a_folder]
)
def test_a_result_never_replaces_what_was_measured(raw, way):
    with pytest.raises(OutputError, match=r"would replace .*scan\.cxi, which is read here; choose another place"):
        output.write(measured(raw), way(raw), ("cxi",))
    assert raw.read_bytes() == b"measured"


@pytest.mark.parametrize("option", ["dark", "flat", "mask"])
def test_dark_flat_and_mask_are_inputs_too(tmp_path, option):
    """By their own path, or by a name beside the scan, where readers look too."""
    scan = tmp_path / "exp.spec"
    scan.write_text("")
    beside = tmp_path / "scan.npz"
    beside.write_bytes(b"measured")
    for named in (beside, beside.name):
        with pytest.raises(OutputError, match="would replace"):
            output.write(measured(scan, **{option: named}), tmp_path, ("npz",))
    assert beside.read_bytes() == b"measured"


def test_a_refused_file_keeps_the_others_from_being_written(raw):
    """All targets are looked at before the first is written."""
    with pytest.raises(OutputError, match="would replace"):
        output.write(measured(raw), raw.parent, ("png", "cxi"))
    assert sorted(raw.parent.iterdir()) == [raw]


def test_a_link_elsewhere_is_written_through(tmp_path):
    there = tmp_path / "there.cxi"
    link = tmp_path / "result.cxi"
    link.symlink_to(there)  # which is not there yet
    output.write(result(), link)
    assert link.is_symlink()
    assert np.array_equal(results.read(there).rho, result().rho)
    output.write(result(strain=1e-3), link)
    assert link.is_symlink()
    assert np.nanmax(results.read(there).strain.strain) > 9e-4


@pytest.fixture(params=["device", "FIFO", "socket"])
def special(request, tmp_path):
    path = tmp_path / "special.cxi"
    with socket.socket(socket.AF_UNIX) as server:
        if request.param == "FIFO":
            os.mkfifo(path)
        elif request.param == "socket":
            server.bind(str(path))
        else:
            path.symlink_to("/dev/null")
        yield request.param, path


def test_nothing_is_written_to_devices_fifos_and_sockets(special):
    name, path = special
    kind = path.lstat().st_mode
    for attempt in (refuse_target, check_writable, lambda place: output.write(result(), place)):
        with pytest.raises(OutputError, match=f"is a {name}, not a place"):
            attempt(path)
    with pytest.raises(OutputError, match=f"is a {name}"), replacing(path):
        pass
    assert path.lstat().st_mode == kind


def test_files_of_a_folder_and_of_a_name(tmp_path):
    assert targets_of(tmp_path / "a.cxi", "s", ("cxi", "png")) == {"cxi": tmp_path / "a.cxi"}
    placed = targets_of(tmp_path, "s", ("cxi", "cohere"))
    assert placed == {"cxi": tmp_path / "s.cxi", "cohere": tmp_path / "s_cohere"}


def test_a_result_is_what_was_read(tmp_path):
    """`load_result` gives what `reconstruct` returns: the same names, and the same numbers."""
    kept = Result(result())
    kept.save(tmp_path / "a.cxi")
    back = braggshot.load_result(tmp_path / "a.cxi")
    assert type(back) is type(kept)
    assert np.array_equal(back.rho, kept.rho)
    assert np.array_equal(back.support, kept.support)
    assert (back.verdict, back.reasons, back.quality.agreeing) == (kept.verdict, kept.reasons, kept.quality.agreeing)
    np.testing.assert_allclose(back.strain.strain, kept.strain.strain)
    for name in ("basis", "volume", "seconds", "configuration"):
        assert getattr(back, name) is not None
    written = kept.save(tmp_path / "out", ("cxi", "npz"))
    assert written == [tmp_path / "out" / "scan_1.cxi", tmp_path / "out" / "scan_1.npz"]
    with h5py.File(written[0]) as file:
        assert file["entry_1/image_1/process_1/results/agreeing/same"][()] == 1


def test_the_summary_counts_as_the_verdict_does():
    said = output.summary(result(), "a", "b")
    assert said["agreeing"] == {"same": 1, "others": 1, "stuck": 0}


def test_a_format_that_cannot_be_written_costs_no_other(tmp_path):
    bare = replace(result(), strain=None)
    with pytest.raises(OutputError, match=r"needs a geometry.*Written all the same: .*\.cxi"):
        output.write(bare, tmp_path, ("pdf", "cxi"))
    assert results.read(tmp_path / f"{bare.volume.name}.cxi").rho.shape == bare.rho.shape
    assert not list(tmp_path.glob("*.pdf"))
