"""Pictures of a strain map: right colours, right places, nothing to fetch, and no surprise where there is little to show."""

import base64
import io
import re
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

from braggshot.errors import OutputError
from braggshot.physics import lattice
from braggshot.report import (
    Drawing,
    figures,
    html_parts,
    paper,
    strain_figures,
    strain_section,
    text,
    write_png,
    write_report,
    write_strain_figure,
)
from braggshot.report.html import page
from braggshot.volumes import Agreement, DiffractionVolume, Facet, Quality, Reconstruction, StrainMap

SHAPE = (40, 44, 42)
EDGE = 5e-9
POLE = np.array([0.0, 1.0, 0.0])


@pytest.fixture(autouse=True)
def one_view(monkeypatch):
    """Drawing takes long, and one side is enough here."""
    monkeypatch.setattr(strain_figures, "VIEWS", (30,))
    monkeypatch.setattr(figures, "VIEWS", (30,))
    monkeypatch.setattr(paper, "_SIDES", (30,))
    monkeypatch.setattr(paper, "_PIXELS", 200)


def ball_map(**changes):
    """A ball, stretched where y > 0 and squeezed below, with one named facet on top."""
    r = EDGE * (np.indices(SHAPE) - np.array(SHAPE).reshape(3, 1, 1, 1) // 2)
    distance = np.linalg.norm(r, axis=0)
    support, bulk = distance < 75e-9, distance < 68e-9
    strain = np.where(support, np.where(r[1] > 0, 4e-4, -4e-4), np.nan)
    displacement = np.where(support, 4e-4 * np.abs(r[1]) - 1e-11, np.nan)
    none = np.zeros(SHAPE, bool)
    fields = {
        "amplitude": 3 * np.clip(0.5 + (75e-9 - distance) / EDGE, 0, 1),
        "phase": np.zeros(SHAPE),
        "displacement": displacement,
        "strain": strain,
        "d_spacing": np.where(support, 2.3e-10, np.nan),
        "support": support,
        "surface": support & ~bulk,
        "bulk": bulk,
        "dislocation": none,
        "basis": EDGE * np.eye(3),
        "q_bragg": 2.7e10 * POLE,
        "frame": "crystal",
        "rotation": np.eye(3),
        "iso_level": 1.5,
        "strain_sigma": np.where(support, 2e-5 * (1 + distance / 75e-9), np.nan),
        "displacement_sigma": np.where(support, 3e-13, np.nan),
        "resolution": {"prtf": 21e-9, "edge": 11e-9},
        "facets": (
            Facet(POLE, 3e-15, 0.1, 75e-9 * POLE, 4e-4, 1e-5, (1, -1, 1), 0.02),
            Facet(-POLE, 2e-15, 0.1, -75e-9 * POLE, -4e-4, 1e-5),
        ),
        "choices": {"frame": "crystal frame, q along y+"},
    }
    return StrainMap(**(fields | changes))


def reconstruction():
    found = ball_map()
    volume = DiffractionVolume(np.ones(SHAPE, np.float32), np.ones(SHAPE, bool), name="ball", q_bragg=2.7e10 * POLE)
    return Reconstruction(
        found.amplitude.astype(np.complex64), found.support, volume, Quality(0.01, 0.1, 0.6, 0.7), basis=EDGE * np.eye(3)
    )


def redness(pixels):
    return pixels[..., 0].astype(float) - pixels[..., 2]


def drawing(strain):
    return Drawing(replace(reconstruction(), strain=strain))


def test_slices_are_red_above_and_blue_below():
    shown = strain_figures.material(ball_map())
    assert shown.strains.high == -shown.strains.low == pytest.approx(5e-4)
    front = strain_figures.slices(shown, "strain")[0]
    assert front.across == "x →"
    inside = front.rgba[..., 3] > 250
    middle = len(inside) // 2
    assert redness(front.rgba[: middle - 8])[inside[: middle - 8]].min() > 50
    assert redness(front.rgba[middle + 8 :])[inside[middle + 8 :]].max() < -50
    assert not inside[0].any()
    radius = np.sqrt(inside.sum() / np.pi) * front.width / len(inside)
    assert radius == pytest.approx(75, rel=0.03)  # nm


def test_the_surface_too_and_its_facet_is_named_where_it_is():
    shown = strain_figures.material(ball_map())
    for picture in strain_figures.views(shown, "strain", 160):
        pixels, inside = picture.rgba, picture.rgba[..., 3] > 250
        assert redness(pixels[:50])[inside[:50]].mean() > 25
        assert redness(pixels[110:])[inside[110:]].mean() < -25
        names = {name for name, _, _ in picture.triad}
        assert names == {"z", "x", "q"}  # q stands for y
    (label,) = (
        strain_figures.views(shown, "strain", 60)[0].labels if np.sin(np.radians(25)) > strain_figures._FACING else (("", 0, 1),)
    )
    assert label[2] > 0.7


@pytest.mark.parametrize(("hkl", "name"), [((1, 1, 1), "(111)"), ((1, -1, 0), "(11\u03050)")])
def test_names_of_planes(hkl, name):
    assert strain_figures.plane_name(hkl) == name
    assert paper.in_mathtext(name) in {"$(111)$", r"$(1\bar{1}0)$"}


def test_histogram_holds_each_voxel_once():
    strain, densities = strain_figures.histogram(strain_figures.material(ball_map()))
    width = strain[1] - strain[0]
    for density in densities.values():
        assert density.sum() * width == pytest.approx(1)
        assert np.sum(density * strain) * width == pytest.approx(0, abs=3e-5)


def test_the_page_says_it_in_numbers(tmp_path):
    write_report(tmp_path / "a.html", drawing(ball_map()))
    html = (tmp_path / "a.html").read_text(encoding="utf-8")
    spacing = 2 * np.pi / 2.7e10 * 1e10
    numbers = (f"{spacing:.4f} Å", "21 nm", "3000", "0.3 pm", "1.1°", "+4.0×10⁻⁴")
    for said in (*numbers, "Crystal frame, q along y+", "resolution (prtf)", "(11\u03051)"):
        assert said.lower() in html.lower(), said
    assert "http" not in html
    images = re.findall(r'<img [^>]*src="data:image/png;base64,([^"]*)"', html)
    assert len(images) == 1 + 6 + 6 + (9 if "Measured counts" in html else 0)
    for image in images:
        assert matplotlib.image.imread(io.BytesIO(base64.b64decode(image)), format="png").std() > 0.01


def test_slide_and_figure(tmp_path):
    write_png(tmp_path / "a.png", drawing(ball_map()))
    assert matplotlib.image.imread(tmp_path / "a.png").shape == (1125, 1999, 4)
    write_strain_figure(tmp_path / "a.pdf", drawing(ball_map()))
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(OutputError, match="geometry"):
        write_strain_figure(tmp_path / "b.pdf", drawing(None))


def test_little_to_show_is_shown():
    """No facets, no spread, one voxel, a strain of zero."""
    empty = np.zeros(SHAPE, bool)
    one = empty.copy()
    one[20, 22, 21] = True
    nothing = np.full(SHAPE, np.nan)
    for changes in (
        {"facets": (), "strain_sigma": None, "displacement_sigma": None, "resolution": {}},
        {"strain": np.where(ball_map().support, 0.0, np.nan), "displacement": np.where(ball_map().support, 0.0, np.nan)},
        {"support": one, "surface": one, "bulk": empty, "amplitude": 3.0 * one, "strain": np.where(one, 0, np.nan), "facets": ()},
        {
            "support": empty,
            "surface": empty,
            "bulk": empty,
            "amplitude": np.zeros(SHAPE),
            "strain": nothing,
            "displacement": nothing,
        },
    ):
        found = replace(ball_map(), **changes)
        assert "Displacement and strain" in page(drawing(found))
        paper.strain_figure(strain_figures.material(found))


def test_a_lattice_parameter_is_told():
    a = lattice.cubic(4.07e-10)
    found = replace(ball_map(), reflection=(1, 1, 1), lattice_parameter=np.where(ball_map().support, a.edges[0], np.nan))
    assert "4.0700 Å" in page(drawing(found))


def test_facets_are_one_table_the_largest_first_and_the_nameless_ones_are_folded():
    small, large = (Facet(POLE, area, 0.1, POLE, 1e-4, 1e-5, (1, 1, 1), 0.02) for area in (1e-15, 9e-15))
    nameless = Facet(POLE, 5e-15, 0.1, POLE, 1e-4, 1e-5)
    named, other = strain_section.facet_rows((small, nameless, large))
    assert [row[1] for row in named] == ["9000", "1000"]
    assert [row[:2] for row in other] == [("?", "5000")]
    page = "".join(strain_section.section(strain_figures.material(ball_map(facets=(small, nameless, large))), ()))
    shown, _, folded = page.partition("<details><summary>1 without a name</summary>")
    assert "<td>9000</td>" in shown
    assert "<td>5000</td>" not in shown
    assert "<td>5000</td>" in folded


@pytest.mark.parametrize(
    ("change", "name", "word"),
    [
        ({"oversampling": (3.1, 2.5, 2.6)}, "oversampling", "enough"),
        ({"oversampling": (3.1, 2.4, 2.6)}, "oversampling", "just enough"),
        ({"oversampling": (3.1, 1.9, 2.6)}, "oversampling", "too low"),
        ({"chi2": 0.0081}, "χ²", "good"),
        ({"chi2": 0.02}, "χ²", "fair"),
        ({"chi2": 0.05}, "χ²", "look twice"),
        ({"llk_free": 21.0}, "free log-likelihood", "look twice"),
        ({"llk_free": float("nan")}, "free log-likelihood", ""),
        ({"agreeing": Agreement(3, 4, 0, 0.95)}, "starts that agree", "most"),
        ({"agreeing": Agreement(2, 4, 0, 0.95)}, "starts that agree", "half or fewer"),
        ({"agreeing": Agreement(0, 4, 9, 0.95)}, "starts that agree", "too few"),
        ({"agreeing": None}, "starts that agree", "nothing confirms it"),
    ],
)
def test_numbers_carry_a_word_of_what_is_good(change, name, word):
    made = reconstruction()
    if "oversampling" in change:
        made = replace(made, volume=replace(made.volume, **change))
    else:
        made = replace(made, quality=replace(made.quality, **change))
    fact = next(fact for fact in text.quality_facts(made) if fact.name == name)
    assert fact.word == word
    assert (f"{word}</span>" in html_parts.facts([fact])) == bool(word)
