"""What the page and the slide share is drawn once, and only when it is asked for."""

from sample_crystal import result

from braggshot.report import Drawing, drawing, page, slide


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
