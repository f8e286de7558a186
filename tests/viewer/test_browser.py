"""The page in a real browser: Chromium without a screen, WebGL on the processor. One page, whose feed each test changes."""

import io
import json
import re
import signal
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, browser
from live_runs import live, write_scan
from sample_crystal import Changing, result, row

from braggshot.io import results
from braggshot.snapshot import PreviewRecord
from braggshot.viewer.app import serving
from braggshot.viewer.bench import Bench

selenium = pytest.importorskip("selenium")
from PIL import Image  # noqa: E402
from selenium.webdriver import ActionChains, Keys  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and its chromedriver")
PATIENCE = 40  # seconds; a busy machine draws slowly
SCANS = {"scan_1": "good", "scan_2": "doubtful"}
ROWS = tuple(row(name, n, verdict) for n, (name, verdict) in enumerate(SCANS.items()))


class Page:
    """What a person sees and does."""

    def __init__(self, driver, feed, files):
        self.driver, self.feed, self.files = driver, feed, files

    def until(self, condition):
        """The first true value of `condition`; what went wrong in between is tried again."""
        waiting = WebDriverWait(self.driver, PATIENCE, 0.05, ignored_exceptions=(Exception,))
        return waiting.until(lambda _: condition())

    def text(self, name):
        return self.driver.find_element(By.ID, name).text

    def says(self, name, expected):
        self.until(lambda: re.search(expected, self.text(name)))

    def crystal(self):
        """Pixels of the drawing in space, RGB."""
        canvas = self.driver.find_element(By.CSS_SELECTOR, "#crystal canvas")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        data = canvas.screenshot_as_png
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    def figure(self, name):
        """What is drawn in a graph, by its own word: number of traces, and a title of its colours or axis."""
        return self.driver.execute_script(f"return document.querySelector('#{name} .js-plotly-plot').data.length")

    def choose(self, name, value):
        self.driver.find_element(By.CSS_SELECTOR, f"#{name} input[value='{value}']").click()

    def move(self, name, key, times=1):
        self.driver.find_element(By.ID, name).send_keys(*[key] * times)

    def resize(self, width, height):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.until(lambda: self.driver.execute_script("return document.documentElement.clientWidth") == width)

    def show(self, **changes):
        """The feed as it is at first, but for `changes`."""
        finished = {"finished": self.files, "series": ROWS}
        whole = {"scan": "scan_2", "state": "done", "received": 0, "expected": None, "rocking": np.zeros(0), "result": None}
        self.feed.show(**{**whole, "previews": (), "trouble": (), "dropped": None, **finished, **changes})


def coloured(pixels, hue):
    """Number of pixels of a colour: "red", "blue", or "any"."""
    red, _, blue = np.moveaxis(pixels, -1, 0)
    return int({"red": red - blue > 40, "blue": blue - red > 40, "any": np.ptp(pixels, axis=-1) > 40}[hue].sum())


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    for n, (name, verdict) in enumerate(SCANS.items()):
        found = result(name, 2e-4 * (n + 1), verdict)
        results.write(folder / f"{name}.cxi", found)
    files = tuple(folder / f"{name}.cxi" for name in SCANS)
    feed = Changing(scan="scan_2", state="done", finished=files, series=ROWS)
    with browser() as driver, serving(feed) as url:
        driver.get(url)
        shown = Page(driver, feed, files)
        shown.resize(1000, 900)
        shown.until(lambda: coloured(shown.crystal(), "any") > 2000)
        yield shown


@pytest.fixture(autouse=True)
def at_rest(page):
    """Every test begins with two finished scans, the second one shown."""
    page.show()
    page.says("name", "^scan_2$")
    page.says("scan-name", "scan_2 .2 of 2., doubtful")


def test_it_shows_a_crystal_its_verdict_and_its_units(page):
    pixels = page.crystal()
    assert coloured(pixels, "red") > 1000
    assert coloured(pixels, "blue") > 1000
    page.says("verdict", "doubtful(.|\n)*this is why it is doubtful")
    page.says("badge", "!")  # a shape, for those who see no colours
    page.says("legend", r"strain along q")
    page.says("caption", r"nm in z × y × x")
    page.says("facts", "free log-likelihood")
    page.until(lambda: page.figure("slice-z") == 1 and page.figure("series") == 1)
    planes = page.driver.find_elements(By.CSS_SELECTOR, "#diffraction img")
    assert [plane.get_property("naturalWidth") for plane in planes] == [30, 30, 32] * 2


def test_nothing_is_asked_of_anybody_else(page):
    asked = set()
    for line in page.driver.get_log("performance"):
        message = json.loads(line["message"])["message"]
        if message["method"] == "Network.requestWillBeSent" and message["params"].get("documentURL", "").startswith("http"):
            asked.add(message["params"]["request"]["url"])
    here = page.driver.current_url.partition("?")[0]
    own = [url for url in asked if url.startswith(here)]
    assert len(own) > 10
    assert [url for url in asked if not url.startswith((here, "data:", "blob:"))] == []
    severe = [line["message"] for line in page.driver.get_log("browser") if line["level"] == "SEVERE"]
    assert severe == []


def test_dragging_turns_the_crystal_and_a_new_picture_keeps_it_turned(page):
    before = page.crystal()
    canvas = page.driver.find_element(By.CSS_SELECTOR, "#crystal canvas")
    hold = ActionChains(page.driver).click_and_hold(canvas).pause(0.3)  # so that it is drawn meanwhile, as by a human hand
    hold.move_by_offset(120, 60).release().perform()
    page.until(lambda: np.abs(page.crystal() - before).max(axis=-1).astype(bool).mean() > 0.02)
    eye = "return JSON.stringify(document.querySelector('#crystal .js-plotly-plot').layout.scene.camera.eye)"
    turned = page.driver.execute_script(eye)
    page.until(lambda: page.driver.execute_script("return dash_component_api.getLayout('camera').props.data") is not None)
    picked = "return dash_component_api.getLayout('picked').props.data || []"
    assert page.driver.execute_script(picked) == []  # it was turned, not clicked
    colours = "return document.querySelector('#crystal .js-plotly-plot').data[0].cmax"
    before_colours = page.driver.execute_script(colours)
    page.choose("colouring", "displacement")
    page.says("legend", "pm .displacement")
    page.until(lambda: page.driver.execute_script(colours) != before_colours)
    assert page.driver.execute_script(eye) == turned
    page.choose("look", "x")  # the way to turn it without a mouse
    page.until(lambda: page.driver.execute_script(eye) != turned)
    page.choose("look", "oblique")
    page.choose("colouring", "strain")
    page.says("legend", "strain")
    hand = ActionChains(page.driver).move_to_element(canvas).pause(0.3).click_and_hold().pause(0.3).release()
    hand.perform()
    page.until(lambda: len(page.driver.execute_script(picked)) == 1)
    page.driver.find_element(By.ID, "unpick").click()
    page.until(lambda: page.driver.execute_script(picked) == [])


def test_another_colouring_gives_other_colours(page):
    page.until(lambda: coloured(page.crystal(), "red") > 1000)
    before = page.crystal()
    page.choose("colouring", "amplitude")
    page.says("legend", "√photons .amplitude")
    page.until(lambda: np.abs(page.crystal() - before).max(axis=-1).astype(bool).mean() > 0.05)
    page.choose("colouring", "strain")
    page.says("legend", "strain")


def test_the_slider_goes_back_in_the_series_by_keyboard(page):
    page.move("scan", Keys.ARROW_LEFT)
    page.says("scan-name", "scan_1 .1 of 2., good")
    page.says("verdict", "good(.|\n)*this is why it is good")
    page.says("name", "^scan_2$")  # what happens now stays said
    page.move("scan", Keys.ARROW_RIGHT)
    page.says("scan-name", "scan_2 .2 of 2., doubtful")


def test_it_is_cut_open_and_the_level_moves(page):
    corners = "return document.querySelector('#crystal .js-plotly-plot')._fullData[0].x.length"
    whole = page.driver.execute_script(corners)
    page.choose("cut", "z")
    page.until(lambda: page.driver.execute_script(corners) < 0.95 * whole)
    page.move("kept", Keys.HOME)
    page.says("caption", "Nothing is left")
    page.driver.find_element(By.CSS_SELECTOR, "#cut input[value='']").click()
    page.until(lambda: page.driver.execute_script(corners) == whole)


def test_the_page_follows_a_scan_while_it_is_measured(page):
    page.show(scan="scan_3", state="waiting")
    page.says("state", "waiting for a scan")
    counts = np.where(np.arange(40) < 12, 1e4 * np.exp(-((np.arange(40) - 20) ** 2) / 30), np.nan)
    page.show(scan="scan_3", state="measuring", received=12, expected=40, rocking=counts)
    page.says("state", "measuring")
    page.says("frames", "12 of 40 frames")
    page.says("scan-name", "scan_3 .3 of 3.*now")
    page.says("verdict", "no picture yet")
    came = {"scan": "scan_3", "state": "measuring", "received": 30, "expected": 40, "rocking": counts}
    judged = (PreviewRecord(1.5, 12, "refine", 0.04, 0.9, "doubtful"),)
    wrong = {"trouble": ("frame 7 was cut short",), "dropped": {"malformed": 3}}
    page.show(**came, **wrong, result=result("scan_3", 3e-4, "doubtful"), previews=judged)
    page.says("verdict", "doubtful(.|\n)*scan_3")
    page.says("trouble", "frame 7 was cut short")
    page.says("trouble", "3 × malformed")
    page.says("course-title", "verdict over time")
    page.until(lambda: coloured(page.crystal(), "red") > 1000)
    judged += (PreviewRecord(2.5, 40, "auto", 0.01, 0.8, "good"),)
    page.show(**came | {"state": "done", "received": 40}, result=result("scan_3", 3e-4, "good"), previews=judged)
    page.says("state", "done")
    page.says("verdict", "good(.|\n)*this is why it is good")


def test_an_address_restores_a_view_in_which_two_results_turn_together(page):
    """In a tab of its own: range and unit, the scan compared with, the marked points; a click and a turn go into the address."""
    driver, before = page.driver, page.driver.current_window_handle
    here = driver.current_url.partition("?")[0]
    view = {"unit": "%", "low": "-0.01", "high": "0.01", "other": "0", "at-z": "40", "picked": "[[0,-40,0],[0,40,0]]"}
    driver.switch_to.new_window("tab")
    try:
        driver.get(f"{here}?{urlencode(view)}")
        page.says("legend", "0.01 % .strain along q")
        page.says("profile-note", "The points are 80 nm apart")
        page.says("crystal-b-name", "scan_1")
        page.says("compared", "verdict doubtful good")
        eye = "return JSON.stringify(document.querySelector('#{} .js-plotly-plot').layout.scene.camera.eye)"

        def eyes():
            return [driver.execute_script(eye.format(name)) for name in ("crystal", "crystal-b")]

        page.until(lambda: page.figure("crystal-b") > 1 and len(set(eyes())) == 1)
        first = eyes()
        canvas = driver.find_element(By.CSS_SELECTOR, "#crystal canvas")
        driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        ActionChains(driver).drag_and_drop_by_offset(canvas, 60, 30).perform()
        page.until(lambda: eyes() != first and len(set(eyes())) == 1)
        driver.find_element(By.ID, "unpick").click()
        page.until(lambda: "picked" not in driver.current_url)
        plane = driver.find_element(By.CSS_SELECTOR, "#slice-z .nsewdrag")
        driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", plane)
        ActionChains(driver).move_to_element(plane).click().perform()
        page.says("profile-note", "Click a second point")
        said = parse_qs(urlsplit(driver.current_url).query)
        assert {name: said[name][0] for name in view if name != "picked"} == {n: v for n, v in view.items() if n != "picked"}
        assert {"camera", "picked"} <= set(said)
        link = driver.find_element(By.CSS_SELECTOR, "a.download[data-kind=profile]").get_attribute("href")
        assert link.startswith(f"{here}download/profile?unit=%25")
    finally:
        driver.execute_script("localStorage.clear()")
        driver.close()
        driver.switch_to.window(before)


def test_a_region_is_drawn_on_the_frames_of_a_scan_and_stands_in_the_command(page, tmp_path):
    driver, before = page.driver, page.driver.current_window_handle
    write_scan(tmp_path / "crystal.cxi")
    bench = Bench(tmp_path)
    driver.switch_to.new_window("tab")
    try:
        with serving(bench, token="a-token-of-a-test", bench=bench) as url:
            driver.get(url)
            page.says("command", "--method auto -o")
            page.until(lambda: driver.find_element(By.CSS_SELECTOR, "#sum .js-plotly-plot image"))
            plane = page.until(lambda: driver.find_element(By.CSS_SELECTOR, "#sum .nsewdrag"))
            page.until(lambda: plane.size["width"] > 200)
            driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", plane)
            move = ActionChains(driver).move_to_element_with_offset(plane, -80, -80).click_and_hold()
            move.move_by_offset(80, 80).move_by_offset(80, 80).release().perform()
            page.says("command", r"prepare.centre=1\d,1\d,1\d .*prepare.shape=32,1\d,1\d")
            page.choose("method", "refine")
            page.says("command", "--method refine")
    finally:
        driver.close()
        driver.switch_to.window(before)


def test_dark_is_dark_and_light_is_light(page):
    def brightness():
        return np.asarray(Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("L")).mean()

    page.choose("theme", "dark")
    page.until(lambda: brightness() < 70)
    page.choose("theme", "light")
    page.until(lambda: brightness() > 190)
    page.choose("theme", "auto")


def test_everything_is_reached_by_keyboard_and_has_a_name(page):
    page.driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = set()
    for _ in range(60):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        reached.add(page.driver.execute_script("const e = document.activeElement; return e.id || e.closest('[id]')?.id"))
    assert {"scan", "colouring", "level", "look", "cut", "kept", "at-z", "at-y", "at-x", "theme", "quantity"} <= reached
    nameless = """return [...document.querySelectorAll('input, figure[role=img]')].filter(e => !e.ariaHidden &&
        !(e.labels && e.labels.length) && !e.getAttribute('aria-label')).map(e => e.outerHTML.slice(0, 100))"""
    assert page.driver.execute_script(nameless) == []


def test_it_fits_a_phone(page):
    page.resize(390, 844)
    try:
        page.until(lambda: page.driver.execute_script("return document.documentElement.scrollWidth") <= 390)
        page.until(lambda: 250 < page.crystal().shape[1] <= 390 and coloured(page.crystal(), "any") > 1000)
    finally:
        page.resize(1000, 900)


def test_a_live_session_that_is_to_end_after_one_scan_ends_when_the_page_shows_its_crystal(page, tmp_path):
    driver, before = page.driver, page.driver.current_window_handle
    with live(f"replay:{write_scan(tmp_path / 'crystal.cxi')}?rate=40", "-o", tmp_path / "out", "--once") as process:
        driver.switch_to.new_window("tab")
        try:
            driver.get(process.stdout.readline().strip())
            assert process.wait(PATIENCE) == 0
            found = results.read(tmp_path / "out" / "crystal.cxi")
            shown = Page(driver, None, None)
            assert "done" in shown.text("state")
            assert found.verdict in shown.text("verdict")
            assert found.method in shown.text("verdict")
            assert all(reason in shown.text("verdict") for reason in found.reasons)
            assert coloured(shown.crystal(), "any") > 1000
            assert shown.figure("slice-z") == 1
        finally:
            driver.close()
            driver.switch_to.window(before)


def test_a_live_session_is_lived_through_to_its_good_crystal_and_to_the_end_of_the_program(page, tmp_path):
    """As `make live`: frames from the first one on, what is waited for, the final crystal; the program ends and comes back."""
    driver, before = page.driver, page.driver.current_window_handle
    (tmp_path / "token").write_text("a-token-that-stays\n")
    (tmp_path / "token").chmod(0o600)
    scan, out, words = write_scan(tmp_path / "crystal.cxi"), tmp_path / "out", ("--token-file", tmp_path / "token")
    (tmp_path / "frames").mkdir()
    watched = f"folder:{tmp_path / 'frames'}"
    driver.switch_to.new_window("tab")
    shown = Page(driver, None, None)
    try:
        with live(f"replay:{scan}?rate=4", "-o", out, *words) as process:
            url = process.stdout.readline().strip()
            driver.get(url)
            driver.execute_script(LISTEN)
            shown.says("state", "^done$")
            said = "\n".join(driver.execute_script("return [...window.said]"))
            assert re.search(r"measuring\|.*\|last frame, logarithmic;sum of \d+ frames", said), said
            assert re.search(r"(waiting for the peak: .*|making the first picture from \d+ frames) \(\d+ s so far", said)
            found = results.read(out / "crystal.cxi")
            shown.says("verdict", f"{found.verdict}(.|\n)*crystal, {found.method}")
            assert found.verdict == "good"
            assert coloured(shown.crystal(), "any") > 1000
            assert "Error" not in shown.text("trouble")  # no picture on the way went wrong either
            assert shown.text("work") == shown.text("images") == shown.text("lost") == ""
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
        shown.says("lost", "Connection lost. The program has ended")
        shown.says("verdict", "good")  # what came last stays
        with live(watched, "-o", tmp_path / "other", *words, "--port", urlsplit(url).port) as process:
            process.stdout.readline()
            shown.until(lambda: shown.text("lost") == "")
            shown.says("state", "waiting for a scan")
            shown.says("verdict", "no picture yet")
        with live(watched, "-o", tmp_path / "third", "--port", urlsplit(url).port) as process:
            process.stdout.readline()
            shown.says("lost", "asks for another token")
    finally:
        driver.close()
        driver.switch_to.window(before)


def test_an_error_is_told_beside_the_header_and_a_scan_that_cannot_be_phased_is_not_called_bad(page):
    reason = "out of memory: 3 GB are needed"
    page.show(scan="scan_3", state="unphased", reason=reason, trouble=("scan_2: an older one", f"scan_3: {reason}"))
    page.says("state", f"^could not be phased: {reason}$")
    page.says("trouble", f"^scan_3: {reason} show all 2$")
    trouble, first = (page.driver.find_element(By.ID, name).rect for name in ("trouble", "scans"))
    assert trouble["y"] + trouble["height"] < first["y"] < 250
    page.driver.find_element(By.CSS_SELECTOR, "#trouble summary").click()
    page.says("trouble", "an older one")


def test_all_of_a_new_picture_is_of_one_moment(page):
    """Between two looks at the page surface, slices, verdict and numbers change together or not at all."""
    page.show(scan="scan_3", state="measuring", received=9, expected=40, result=result("scan_3", 1e-4, "doubtful"))
    page.says("verdict", "doubtful(.|\n)*scan_3")
    page.until(lambda: page.figure("slice-z") == 1 and page.figure("crystal") > 1)
    page.driver.execute_script(WATCH)
    page.show(scan="scan_3", state="measuring", received=9, expected=40, result=result("scan_3", 3e-4, "good"))
    page.says("verdict", "good")
    page.until(lambda: page.driver.execute_script("return window.seen.length") > 1)
    seen = {tuple(moment) for moment in page.driver.execute_script("return window.seen")}
    assert len(seen) == 2
    assert all(len(set(column)) == 2 for column in zip(*seen, strict=True))


LISTEN = """
window.said = new Set();
const part = name => document.getElementById(name)?.innerText;
const images = () => [...document.querySelectorAll("#images figcaption")].map(one => one.innerText).join(";");
setInterval(() => window.said.add([part("state"), part("work"), images()].join("|")), 50);
"""
WATCH = """
window.seen = [];
const layout = name => dash_component_api.getLayout(name).props;
const look = () => {
    const start = packed => packed.bdata.slice(0, 4000);
    const surface = start(layout("crystal").figure.data[0].intensity), slice = start(layout("slice-z").figure.data[0].z);
    const now = [surface, slice, layout("verdict").className];
    if (JSON.stringify(now) !== JSON.stringify(window.seen.at(-1))) window.seen.push(now);
    requestAnimationFrame(look);
};
look();
"""
