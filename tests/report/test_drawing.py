"""What the page and the slide share is drawn once, and only when it is asked for."""

import matplotlib.layout_engine
import numpy as np
import pytest
from sample_crystal import result

from braggshot.report import Drawing, drawing, html_parts, page, slide


def test_page_and_slide_draw_the_surface_once(monkeypatch):
    drawn = []

    def counting(shown, *rest, **named):
        drawn.append(shown)
        return draw(shown, *rest, **named)

    draw = drawing.strain_figures.views
    monkeypatch.setattr(drawing.strain_figures, "views", counting)
    monkeypatch.setattr(drawing.strain_figures, "VIEWS", (30,))
    shared = Drawing(result())
    page(shared)
    slide(shared)
    assert len(drawn) == 1
    page(Drawing(result()))
    assert len(drawn) == 2, "another result has pictures of its own"


def test_nothing_is_drawn_before_it_is_asked_for():
    assert set(vars(Drawing(result()))) == {"reconstruction"}
    assert Drawing(result(with_strain=False)).strain_views == ()


def test_all_panels_of_the_slide_share_one_pair_of_axes():
    """Each pair costs more than a panel, for ticks and grids that nobody sees."""
    (canvas,) = slide(Drawing(result())).axes
    assert len(canvas.images) > 10
    assert canvas.get_xlim() == canvas.get_ylim() == (0, 1)


def test_panels_of_the_slide_keep_their_proportions():
    whole = Drawing(result())
    figure = slide(whole)
    panels = {image.get_array().tobytes(): image.get_extent() for image in figure.axes[0].images}
    for picture in (*whole.strain_views, *whole.diffraction.measured):
        left, right, bottom, top = panels[picture.rgba.tobytes()]
        width, height = (right - left) * figure.get_figwidth(), (top - bottom) * figure.get_figheight()
        assert width / height == pytest.approx(picture.width / picture.height)


def test_a_curve_is_laid_out_once(monkeypatch):
    """Constrained layout measures every label twice."""
    monkeypatch.setattr(matplotlib.layout_engine, "do_constrained_layout", None)
    assert "<svg" in html_parts.plot(np.arange(9.0), {"error": np.geomspace(1, 0.03, 9)}, "iteration", "error", logarithmic=True)
