import base64
import dataclasses
import io
import re
import time

import matplotlib.image
import numpy as np
import pytest
import torch

from braggshot.errors import OutputError
from braggshot.physics.fourier import fourier
from braggshot.report import Drawing, figures, surface, text, write_png, write_report
from braggshot.volumes import Agreement, DiffractionVolume, Ensemble, Quality, Reconstruction

# columns are the voxel edges, components (z, y, x): a skewed detector frame with unequal voxels
BASIS = np.array([[9e-9, 1.5e-9, 0.0], [0.0, 8e-9, 1e-9], [1e-9, 0.0, 7e-9]])
FACETS = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1)])
REASON = "2 of 3 other starts give the same crystal & voxels kept from the phasing are <predicted>."


def facetted_crystal(shape=(64, 64, 64), basis=BASIS, verdict="good"):
    """Half spaces {normal . r < distance}, a smooth phase and a linear strain, measured with Poisson counts and a detector gap."""
    random = np.random.default_rng(0)
    n = np.stack(np.meshgrid(*(np.arange(size) - size // 2 for size in shape), indexing="ij"), axis=-1)
    place = n @ BASIS.T / (0.2 * min(shape) * 8e-9)
    normals = FACETS / np.linalg.norm(FACETS, axis=1, keepdims=True)
    depth = np.min(np.array([0.9, 0.7, 1.0, 1.15, 1.2, 1.15, 1.2]) - np.abs(place @ normals.T), axis=-1)
    depth = np.minimum(depth, place[..., 1] + 0.55)  # cut at the bottom: no centre of symmetry
    amplitude = np.clip(0.5 + depth * 8, 0, 1)
    phase = 0.6 * place[..., 0] ** 2 + np.sin(2 * place[..., 2]) + 0.3 * place[..., 1]
    rho = torch.from_numpy((amplitude * np.exp(1j * phase)).astype(np.complex64))
    rho *= np.sqrt(1e5) / fourier(rho).abs().max()
    counts = random.poisson(fourier(rho).abs().square().numpy()).astype(np.float32)
    valid = np.ones(shape, bool)
    valid[:, shape[1] // 2 + 5, :] = False
    reciprocal = None if basis is None else 2 * np.pi * np.linalg.inv(basis).T / np.array(shape)
    volume = DiffractionVolume(
        np.where(valid, counts, 0),
        valid,
        name="crystal_S0007",
        reciprocal_basis=reciprocal,
        q_bragg=None if basis is None else np.array([4e9, 1.8e10, 1.2e10]),
        oversampling=(2.5, 3.0, 2.7),
        steps=("12 hot pixels masked",),
        provenance={"files": ["a.tif"]},
    )
    table = {"start": np.arange(4.0), "chi2": np.array([0.1, 0.2, 0.01, 0.3]), "correlation": np.array([0.99, 0.97, 1.0, 0.3])}
    return Reconstruction(
        rho=rho.numpy(),
        support=amplitude > 0,
        volume=volume,
        quality=Quality(0.0081, 0.052, 0.71, 0.93, (0.99, 0.97, 1.0, 0.3), 21e-9, agreeing=Agreement(2, 3, 0, 0.95)),
        basis=basis,
        ensemble=Ensemble(table, np.array([0.9, 0.1]), np.linspace(1, 0.1, 9), np.linspace(0, 3e8, 9)),
        verdict=verdict,
        reasons=(REASON,),
        history={"iteration": np.arange(5.0), "error": np.geomspace(1, 0.01, 5), "support_fraction": np.linspace(0.2, 0.1, 5)},
        configuration={"seed": 3, "refine": {"recipe": "RAAR**200"}},
        choices={"twin": "as start 2 came out"},
        seconds={"prepare": 0.5, "phasing": 3.0, "total": 3.6},
    )


@pytest.fixture(scope="module")
def crystal():
    return facetted_crystal()


@pytest.fixture(scope="module")
def html(crystal, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, Drawing(crystal))
    return path.read_text(encoding="utf-8")


def read_png(data):
    image = matplotlib.image.imread(io.BytesIO(data), format="png")
    return image.reshape(-1, image.shape[-1])


def test_the_page_says_verdict_reasons_and_numbers(html):
    assert "<title>crystal_S0007 – good – braggshot</title>" in html
    assert text.HEADLINES["good"] in html
    assert text.ADVICE["good"] in html
    assert "same crystal &amp; voxels kept from the phasing are &lt;predicted&gt;." in html
    for words in (
        "√χ² = 9\xa0%",
        "5.2\xa0%",
        "0.93",
        "2 of 3 others",
        "2.5 × 3 × 2.7",
        "21 nm",
        "9.06 × 8.14 × 7.07 nm",
        "3.6 s",
        "64 × 64 × 64",
    ):
        assert words in html, words
    for words in ("refine.recipe", "RAAR**200", "12 hot pixels masked", "as start 2 came out", "phasing 3.0 s", "a.tif"):
        assert words in html, words


def test_the_page_fetches_nothing_and_runs_only_what_draws_the_crystal(html):
    assert "http" not in html
    assert re.findall(r"<script[^>]*>", html)[2:] in ([], ["<script>"])  # plotly.js, the figure, and what draws it
    assert not re.search(r"(src|href)=\"(?!data:image/png;base64,|#)", html)
    assert not re.search(r"url\((?!#)", html)
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html


def test_every_image_of_the_page_decodes_and_shows_something(html):
    images = re.findall(r'<img [^>]*src="data:image/png;base64,([^"]*)"', html)
    assert len(images) == 4 + 2 * 3 + 3 * 3  # views, slices, diffraction
    for image in images:
        assert read_png(base64.b64decode(image, validate=True)).std(axis=0).max() > 0.02
    assert html.count("<svg") == 4 + 3  # axes of the views, three curves


def test_curves_take_the_colours_of_the_page(html):
    assert "currentColor" in html
    assert "var(--accent)" in html
    assert "#010203" not in html
    assert 'class="chosen"><td>2</td>' in html


def test_the_slide_is_a_picture(crystal, tmp_path):
    write_png(tmp_path / "slide.png", Drawing(crystal))
    image = matplotlib.image.imread(tmp_path / "slide.png")
    assert image.shape[:2] in {(1125, 2000), (1125, 1999)}
    views, slices, diffraction = image[180:900, :800], image[180:700, 860:1380], image[180:1000, 1440:1980]
    for part in (views, slices, diffraction):
        assert part[..., :3].std() > 0.05
    assert image[40:70, 1900:1970, 1].mean() < 0.7  # the coloured verdict


def test_large_volumes_stay_quick(tmp_path):
    large = facetted_crystal((128, 128, 128))
    for write, name in ((write_png, "a.png"), (write_report, "a.html")):
        began = time.process_time()
        write(tmp_path / name, Drawing(large))
        assert time.process_time() - began < 8


def without(what):
    """A small reconstruction that lacks something."""
    bare = facetted_crystal((24, 26, 20), basis=None, verdict="failed" if "surface" in what else "doubtful")
    zeros = np.zeros(bare.rho.shape, np.complex64)
    changes = {
        "geometry": {},
        "numbers": {
            "quality": Quality(np.nan, np.nan, np.nan, np.nan),
            "ensemble": None,
            "history": {},
            "seconds": {},
            "reasons": (),
        },
        "measurement": {"volume": DiffractionVolume(zeros.real, zeros.real > 0, "pynx"), "configuration": {}, "choices": {}},
        "detector grid": {"frame": "crystal"},
        "surface": {"rho": zeros, "support": zeros.real > 0},
        "surface, though it has a support": {"rho": zeros},
    }
    return dataclasses.replace(bare, **changes[what])


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("geometry", "lengths are in voxels"),
        ("numbers", "not known"),
        ("measurement", "no measured counts on this grid"),
        ("detector grid", "no measured counts on this grid"),
        ("surface", "There is no surface to show"),
        ("surface, though it has a support", "There is no surface to show"),
    ],
)
def test_poor_results_are_reported_too(tmp_path, what, said):
    reconstruction = without(what)
    write_png(tmp_path / "a.png", Drawing(reconstruction))
    write_report(tmp_path / "a.html", Drawing(reconstruction))
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert said in page
    assert text.HEADLINES[reconstruction.verdict] in page
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_a_folder_that_refuses(crystal, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another folder"):
        write_report(tmp_path / "file" / "a.html", Drawing(crystal))


def block(shape, start, stop, value=1.0):
    rho = np.zeros(shape, np.complex64)
    rho[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = value
    return rho


def seen(rho, basis, azimuth, elevation=0.0):
    """Which pixels a crystal covers, and at what colour (red = phase > 0), seen from a direction in degrees."""
    shape = surface.isosurface(rho, np.abs(rho) > 0, basis)
    image = surface.render(
        shape,
        surface.view_axes(np.radians(azimuth), np.radians(elevation)),
        120,
        lambda field: np.column_stack([np.angle(field) > 0, np.zeros(len(field)), np.ones(len(field))]),
    )
    return shape, image


def test_the_viewer_stands_where_the_azimuth_says():
    """A post on a base: from +z the post at +x is on the right, +y is up; from -z it is on the left."""
    rho = block((30, 30, 30), (10, 8, 8), (20, 12, 22)) + block((30, 30, 30), (10, 12, 18), (20, 22, 22))
    for azimuth, side in ((0, 1), (180, -1)):
        _, image = seen(rho, np.eye(3), azimuth)
        upper = np.argwhere(image[:50, :, 3] > 128)
        assert len(upper) > 0
        assert np.sign(upper[:, 1].mean() - 60) == side
        assert (image[:, :, 3] > 128)[80:].sum() > (image[:, :, 3] > 128)[:40].sum()


@pytest.mark.parametrize(("azimuth", "red"), [(0, 1.0), (180, 0.0)])
def test_the_near_side_hides_the_far_side(azimuth, red):
    rho = block((20, 20, 20), (5, 5, 5), (10, 15, 15), np.exp(-1j)) + block((20, 20, 20), (10, 5, 5), (15, 15, 15), np.exp(1j))
    _, image = seen(rho, np.eye(3), azimuth)
    inside = image[40:80, 40:80].astype(float)
    assert (inside[..., 3] == 255).all()  # no holes
    assert ((inside[..., 0] > 0).mean() > 0.5) == bool(red)


def test_the_skewed_frame_is_drawn_in_true_proportions():
    """A cube of voxels with edges 1 : 2 : 3 and a shear has the extent and the outward normals of its parallelepiped."""
    basis = np.array([[1.0, 0.0, 0.5], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    shape, image = seen(block((24, 24, 24), (6, 6, 6), (18, 18, 18)), basis, 0)
    extent = np.ptp(shape.corners.reshape(-1, 3), axis=0)
    np.testing.assert_allclose(extent, [12 + 6, 24, 36], rtol=0.1)  # smoothing rounds sharp corners
    covered = np.argwhere(image[..., 3] > 128)
    assert np.ptp(covered[:, 1]) / np.ptp(covered[:, 0]) == pytest.approx(36 / 24, rel=0.05)
    assert ((shape.normals * shape.corners).sum(axis=-1) > 0).mean() > 0.95


def test_a_wrap_of_the_phase_is_no_seam():
    """Phase runs linearly through pi; its colour must step from +pi to -pi without passing zero."""
    n = np.arange(32) - 16
    rho = block((32, 32, 32), (8, 8, 8), (24, 24, 24)) * np.exp(1j * (np.pi + 0.25 * (n + 0.5)))[None, None, :]
    shape = surface.isosurface(rho.astype(np.complex64), np.abs(rho) > 0, np.eye(3))
    phases = np.angle(shape.field)
    assert phases.max() > 2.9
    assert phases.min() < -2.9
    assert np.abs(phases).min() > 1.0


def test_slices_are_cartesian_and_named_rightly(crystal):
    """A small block off centre along +x, +y or +z appears to the right or above, at its true distance, also in a skewed frame."""
    for axis, name in enumerate("zyx"):
        target = np.zeros(3)
        target[axis] = 60e-9
        index = np.rint(np.linalg.solve(BASIS, target)).astype(int) + 32
        centre = block((64, 64, 64), (29, 29, 29), (36, 36, 36))
        both = centre + block((64, 64, 64), index - 2, index + 3)
        drawn = figures.crystal(dataclasses.replace(crystal, rho=both, support=np.abs(both) > 0))
        drawn = dataclasses.replace(drawn, centre=np.zeros(3), half=100.0)
        field, _ = figures._plane(drawn, np.zeros(3), axis, (axis + 1) % 3)
        covered = np.abs(field).sum(axis=0) > 0.5
        right = np.flatnonzero(covered).max() - 120
        assert right * 100 / 120 > 60, name
        field, _ = figures._plane(drawn, np.zeros(3), (axis + 1) % 3, axis)
        assert np.flatnonzero(np.abs(field).sum(axis=1) > 0.5).min() < 120 - 60 * 1.2, name


def test_measured_and_fitted_agree_and_masked_voxels_are_grey(crystal):
    magnitude = figures.fitted_magnitude(crystal)
    difference = (magnitude - np.sqrt(crystal.volume.intensity))[crystal.volume.valid]
    assert np.abs(difference).mean() < 0.6  # photon noise
    compared = figures.diffraction(crystal)
    assert (compared.measured[0].rgba[37] == (128, 128, 128, 255)).all()
    assert not (compared.fitted[0].rgba[37] == (128, 128, 128, 255)).all()
    assert compared.measured[0].unit == "nm⁻¹"
    np.testing.assert_array_equal(compared.fitted[0].rgba[32, 32], compared.counts(np.array(magnitude[32, 32, 32] ** 2)))


def test_partial_coherence_enters_the_fit(crystal):
    blurred = figures.fitted_magnitude(dataclasses.replace(crystal, psf={"sigma": (1.0, 1.0, 1.0), "eta": 0.0}))
    sharp = figures.fitted_magnitude(crystal)
    assert blurred.max() < 0.95 * sharp.max()


@pytest.mark.parametrize(
    ("spread", "limit", "name"), [(0.3, np.pi / 8, "coolwarm"), (1.2, np.pi / 2, "coolwarm"), (3.1, np.pi, "twilight_shifted")]
)
def test_phase_colours_are_symmetric_and_cyclic_where_they_wrap(crystal, spread, limit, name):
    inside = np.linspace(-spread, spread, crystal.support.sum())
    rho = np.zeros_like(crystal.rho)
    rho[crystal.support] = np.exp(1j * (inside + 0.7))  # the global phase must not matter
    colours = figures.crystal(dataclasses.replace(crystal, rho=rho)).phases
    assert (colours.low, colours.high, colours.name) == (-limit, limit, name)


def test_labels_and_scale_bars():
    labels = [figures.label(value, "rad") for value in (np.pi / 8, -3 * np.pi / 4, np.pi)]
    assert labels == ["π/8", "−3π/4", "π"]
    assert [figures.scale_bar(width) for width in (100, 330, 0.05)] == [20, 100, 0.02]


def test_the_global_phase_does_not_change_the_pictures(crystal):
    turned = dataclasses.replace(crystal, rho=(crystal.rho * np.exp(2j)).astype(np.complex64))
    one, other = (figures.slices(figures.crystal(c))[1][0].rgba.astype(int) for c in (crystal, turned))
    assert np.abs(one - other).max() <= 2


def test_what_was_noticed_stands_below_the_reasons(crystal, tmp_path):
    volume = dataclasses.replace(crystal.volume, provenance={"noticed": ("3 frames are <missing>",)})
    found = dataclasses.replace(crystal, volume=volume)
    assert text.remarks(found) == (*crystal.reasons, "Noticed: 3 frames are <missing>")
    write_report(tmp_path / "report.html", Drawing(found))
    assert "<li>Noticed: 3 frames are &lt;missing&gt;</li>" in (tmp_path / "report.html").read_text()
