"""The crystal that turns on the report's page: opened from disk in a browser, and what stands there without it."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, browser
from sample_crystal import result

from braggshot.report import Drawing, html_crystal, write_report

selenium = pytest.importorskip("selenium")
pytest.importorskip("plotly")
from PIL import Image  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and its chromedriver")
PATIENCE = 60  # seconds; a busy machine draws slowly


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "scan_1.html"
    write_report(path, Drawing(result()))
    return path


def pixels(driver):
    """What the canvas of the crystal shows, RGB."""
    canvas = driver.find_element("css selector", "#crystal canvas")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    return np.asarray(Image.open(io.BytesIO(canvas.screenshot_as_png)).convert("RGB")).astype(int)


def red_and_blue(driver):
    shown = pixels(driver)
    return int((shown[..., 0] - shown[..., 2] > 40).sum()), int((shown[..., 2] - shown[..., 0] > 40).sum())


def until(driver, condition):
    return WebDriverWait(driver, PATIENCE, 0.1, ignored_exceptions=(Exception,)).until(lambda _: condition())


@needs_browser
@pytest.mark.slow
def test_the_crystal_is_drawn_cut_and_coloured_from_a_file(written):
    with browser("--window-size=1200,1000") as driver:
        driver.get("about:blank")
        driver.get_log("performance")  # what the browser asked before
        driver.get(written.as_uri())
        until(driver, lambda: min(red_and_blue(driver)) > 3000)  # stretched above, squeezed below
        red = red_and_blue(driver)[0]
        move = "const d = document.getElementById('crystal'); const step = d.layout.sliders[0].steps[%d];"
        driver.execute_script(move % 6 + "Plotly.restyle(d, ...step.args)")  # a quarter of its height is left, squeezed
        until(driver, lambda: red_and_blue(driver)[0] < red / 10 and red_and_blue(driver)[1] > 1000)
        driver.find_element("css selector", "#crystal .updatemenu-header").click()
        entries = until(driver, lambda: driver.find_elements("css selector", "#crystal .updatemenu-dropdown-button"))
        next(entry for entry in entries if entry.text == "amplitude").click()
        title = "return document.querySelector('#crystal .cbtitle').textContent"
        until(driver, lambda: "amplitude [√photons]" in driver.execute_script(title))
        assert "turn" in driver.find_element("id", "crystal-note").text
        assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
        asked = "".join(entry["message"] for entry in driver.get_log("performance"))
        assert set(re.findall(r'"url":"(\w+):', asked)) <= {"file", "data", "blob", "about", "chrome"}


@needs_browser
@pytest.mark.slow
def test_without_webgl_the_page_says_so_and_keeps_its_pictures(written):
    with browser("--window-size=1200,1000", "--disable-3d-apis") as driver:
        driver.get(written.as_uri())
        until(driver, lambda: "cannot draw" in driver.find_element("id", "crystal-note").text)
        assert not driver.find_element("id", "crystal").is_displayed()
        assert len(driver.find_elements("css selector", ".views img")) == 4
        assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_page_is_small(written):
    assert written.stat().st_size < 4e6


def test_without_plotly_the_report_is_written_and_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(html_crystal, "plotly_js", lambda: None)
    write_report(tmp_path / "plain.html", Drawing(result()))
    page = (tmp_path / "plain.html").read_text()
    assert "pip install &#x27;braggshot[view]&#x27;" in page
    assert "<script" not in page
    assert page.count('class="row views"') == 1


def test_an_empty_crystal_has_no_place_for_it(tmp_path):
    found = result(with_strain=False)
    empty = replace(found, rho=np.zeros_like(found.rho), support=np.zeros_like(found.support))
    write_report(tmp_path / "empty.html", Drawing(empty))
    assert 'id="crystal"' not in (tmp_path / "empty.html").read_text()
