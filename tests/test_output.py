"""What is written where, and never over what was measured."""

import base64
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import webbrowser
from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from PIL import Image
from sample_crystal import result

import braggshot
from braggshot import output
from braggshot.errors import ConfigError, DataError, OutputError
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


@pytest.mark.parametrize("kind", ["cxi", "vti", "png", "html", "pdf", "npz"])
def test_an_interrupt_leaves_no_half_of_a_file(tmp_path, monkeypatch, kind):
    """The kernel is interrupted just before a file is whole: the one that was there stays."""
    kept = Result(result())
    path = tmp_path / "out" / f"scan_1.{kind}"
    path.parent.mkdir()
    path.write_bytes(b"an older one of braggshot")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kept.save(path.parent, (kind,))
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == b"an older one of braggshot"


def test_a_notebook_shows_verdict_slide_and_numbers():
    page = Result(replace(result(), reasons=("a < b",)))._repr_html_()
    assert "✔ good" in page
    assert "a &lt; b" in page
    picture = base64.b64decode(re.search(r'src="data:image/png;base64,([^"]*)"', page)[1])
    image = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    assert image.shape[1] == pytest.approx(1100, abs=2)
    assert (np.ptp(image.astype(int), axis=-1) > 60).sum() > 20_000  # the coloured crystal
    for words in ("resolution", "21 nm", "strain in the bulk", "8 × 8 × 8 nm"):
        assert words in page
    assert len(page) < 600_000


@pytest.mark.parametrize(
    ("quantity", "unit", "highest", "label"),
    [
        ("strain", None, 5e-4, "strain along q"),
        ("strain", "%", 0.05, "strain along q [%]"),
        ("displacement", "nm", 0.05, "displacement along q [nm]"),
        ("phase", "°", 45, "phase [°]"),
        ("d_spacing", "nm", 0.23, "lattice spacing [nm]"),
    ],
)
def test_a_plot_has_nanometres_a_colour_bar_and_units(quantity, unit, highest, label):
    figure = Result(result()).plot(quantity, unit=unit)
    *panels, bar = figure.axes
    assert [axes.get_xlabel() for axes in panels] == ["x [nm]", "z [nm]", "z [nm]"]
    assert [axes.get_ylabel() for axes in panels] == ["y [nm]", "x [nm]", "y [nm]"]
    assert panels[0].get_xlim()[1] == pytest.approx(60, abs=6)  # the flat side of the ball is at 56 nm
    assert bar.get_ylabel() == label
    assert panels[0].images[0].norm.vmax == pytest.approx(highest, rel=0.01)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_plot_shows_the_values_where_they_are():
    """Stretched where y > 0 and squeezed below, in percent; a plane at a place of its own."""
    figure = Result(result()).plot("strain", unit="%", plane="xy", at=20)
    axes, _ = figure.axes
    values, (_, _, low, high) = axes.images[0].get_array().filled(np.nan), axes.images[0].get_extent()
    y = low + (np.arange(len(values)) + 0.5) * (high - low) / len(values)
    assert axes.images[0].origin == "lower"
    assert np.nanmean(values[y > 15]) == pytest.approx(0.04, rel=0.01)
    assert np.nanmean(values[y < -15]) == pytest.approx(-0.04, rel=0.01)
    assert axes.get_title() == "z = 20 nm"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"quantity": "sigma"}, "has no quantity 'sigma'; it has strain, displacement"),
        ({"unit": "pm"}, "unit 'pm' does not fit; known here: 1, %"),
        ({"plane": "ab"}, "plane 'ab' is not known; known: xy, xz, yz"),
        ({"at": 3.0}, "needs a plane"),
    ],
)
def test_what_cannot_be_plotted_is_refused_in_words(how, said):
    with pytest.raises(ConfigError, match=said):
        Result(result()).plot(**how)


def test_strain_in_percent_lies_on_the_grid_in_nanometres():
    strain = result().strain
    assert np.nanmax(strain.percent) == pytest.approx(0.04)
    assert strain.extent_nm[0].tolist() == pytest.approx([-14.5 * 8, 13.5 * 8])
    assert np.ptp(strain.extent_nm, axis=1).tolist() == pytest.approx([28 * 8, 32 * 8, 30 * 8])


def test_a_view_is_a_page_in_a_frame_with_a_picture_beside_it():
    pytest.importorskip("plotly")
    shown = Result(result()).view("displacement")
    assert shown._repr_html_().startswith("<iframe")
    assert "http" not in shown._repr_html_().partition("srcdoc")[0]
    assert shown._repr_png_().startswith(b"\x89PNG")
    assert len(repr(shown)) < 100
    assert shown.figure["layout"]["updatemenus"][0]["active"] == 1


def test_an_empty_crystal_cannot_be_plotted_or_viewed():
    empty = Result(replace(result(), rho=np.zeros_like(result().rho), support=np.zeros_like(result().support), strain=None))
    for attempt in (empty.plot, empty.view):
        with pytest.raises(DataError, match="no crystal to show"):
            attempt()


def test_show_is_below_the_cell_in_a_notebook_and_in_the_browser_outside(monkeypatch):
    shown = []
    monkeypatch.setattr(output, "in_notebook", lambda: True)
    display = SimpleNamespace(display=shown.append)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    kept = Result(result())
    assert kept.show() is None
    assert shown == [kept]
    monkeypatch.setattr(output, "in_notebook", lambda: False)
    monkeypatch.setattr(webbrowser, "open", shown.append)
    page = kept.show()
    assert shown[1] == page.as_uri()
    assert "scan_1" in page.read_text()
    shutil.rmtree(page.parent)


def test_a_result_without_pictures_loads_no_library_that_draws(tmp_path):
    results.write(tmp_path / "a.cxi", result())
    code = (
        "import sys; from pathlib import Path; from braggshot.io import results; from braggshot.output import write; "
        f"here = Path({str(tmp_path)!r}); write(results.read(here / 'a.cxi'), here / 'out', ('cxi', 'vti')); "
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".cxi", ".vti"]
