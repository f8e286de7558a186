"""How fast a new picture is in the page, and what looking costs: python benchmarks/viewer.py [pictures [RESULT.cxi]].

Without a file of a ball in 64^3 voxels, 32 across, while it is phased. Needs Chromium and its driver. The browser has no screen and
draws on the processor, so one with a graphics card is faster.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import shutil
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from braggshot.io import results
from braggshot.report import interactive
from braggshot.report import solid as model
from braggshot.snapshot import PreviewRecord, Snapshot
from braggshot.viewer import drawings
from braggshot.viewer.app import serving
from braggshot.viewer.shared import make_contents

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-sync",
)
GRAPH = "document.querySelector('#crystal .js-plotly-plot')"
DRAWS = f"return {GRAPH}.data.length > 0"
# Plotly draws in space at the next frame of the screen, in another process; reading a pixel waits for that.
WATCH = f"""{GRAPH}.on('plotly_afterplot', () => requestAnimationFrame(() => requestAnimationFrame(() => {{
    const gl = document.querySelector('#crystal canvas').getContext('webgl');
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
    window.isDrawn(Date.now());
}})))"""
ARM = "performance.clearResourceTimings(); window.drawn = new Promise(is => window.isDrawn = is)"
ASKED = """const all = performance.getEntriesByType('resource').filter(e => e.name.includes('_dash'));
return [all.length, all.reduce((sum, e) => sum + e.encodedBodySize, 0)]"""


class Changing:
    """A feed of one scan whose picture changes."""

    def __init__(self, **fields):
        self.now = 1, Snapshot(scan="benchmark", state="phasing", expected=64, rocking=np.hanning(64), **fields)

    def latest(self):
        return self.now

    def show(self, **changes):
        self.now = self.now[0] + 1, dataclasses.replace(self.now[1], **changes)


def ball():
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "samples"))
    from sample_crystal import result

    return result(shape=(64, 64, 64), edge=5e-9)


def main(pictures: int, path: str = "") -> None:
    """Print all of it."""
    found = results.read(Path(path)) if path else ball()
    ready = timed("a picture made ready", lambda: make_contents(found))
    surface = timed("surface", lambda: model.mesh(ready.solid, model.View(max_triangles=model.MAX_TRIANGLES_LIVE)))
    print(f"triangles {len(surface.triangles)}, points {len(surface.points)}")
    name = ready.solid.colouring("strain")
    report_size("surface", interactive.crystal(ready.solid, surface, name, interactive.camera_from("oblique")))
    planes = model.planes(ready.solid, model.View())
    report_size("slices", [drawings.slice_figure(plane, (0.0, 0.0), ready.solid.colours[name], "nm") for plane in planes])
    feed = Changing(result=found)
    with serving(feed) as url:
        measure_polling(url)
        costs = measure_pictures(url, feed, found, pictures)
    for what in costs[0]:
        values = [cost[what] for cost in costs]
        print(f"{what}: median {np.median(values):.3g}, 95 % {np.percentile(values, 95):.3g}, n {len(values)}")


def timed(what, make):
    """Seconds of processor time, printed; the value."""
    make()
    began = time.process_time()
    value = make()
    print(f"{what}: {1e3 * (time.process_time() - began):.1f} ms of the processor")
    return value


def report_size(what, figure):
    print(f"{what} on the wire: {len(json.dumps(figure)) / 1e3:.0f} kB")


def measure_polling(url, times=300):
    """What a page costs while nothing changes; the asking is part of it."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    began = time.process_time()
    for _ in range(times):
        connection.request("GET", "/moment")
        connection.getresponse().read()
    connection.close()
    print(f"one question: {1e3 * (time.process_time() - began) / times:.2f} ms of the processor")


def measure_pictures(url, feed, found, pictures):
    """What each of some new pictures took from the feed to the pixels of the page."""
    driver = browser()
    try:
        driver.get(url)
        driver.set_script_timeout(90)
        WebDriverWait(driver, 90, 0.02, ignored_exceptions=(Exception,)).until(lambda d: d.execute_script(DRAWS))
        time.sleep(5)  # the rest of the page
        driver.execute_script(WATCH)
        return [measure_picture(driver, feed, found, number) for number in range(pictures)]
    finally:
        driver.quit()


def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, "--window-size=1000,900"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def measure_picture(driver, feed, found, number):
    """One of them: seconds until it is drawn, seconds of the processor until the page is at rest, questions, bytes."""
    driver.execute_script(ARM)
    began, spent, asked = time.time(), time.process_time(), processor(driver)
    feed.show(result=dataclasses.replace(found), received=number, previews=(*feed.now[1].previews, judged(number)))
    drawn = driver.execute_async_script("window.drawn.then(arguments[0])")
    until = processor(driver)
    time.sleep(1 + 0.05 * (number % 7))  # not in step with the page's questions
    questions, size = driver.execute_script(ASKED)
    rest = time.process_time() - spent, processor(driver) - asked
    return {
        "to be drawn, wall [s]": drawn / 1e3 - began,
        "to be drawn, browser's processor [s]": until - asked,
        "to be at rest, browser's processor [s]": rest[1],
        "to be at rest, server's processor [s]": rest[0],
        "questions answered": questions,
        "answers [kB]": size / 1e3,
    }


def judged(number):
    # Of fewer frames than there are: the page asks as it does while the picture of a whole scan is being made.
    return PreviewRecord(0.1 * number, number - 1, "oneshot", 0.01, 1.0, "doubtful")


def processor(driver):
    """Seconds of the processor that all of the browser has taken."""
    family = psutil.Process(driver.service.process.pid).children(recursive=True)
    return sum(sum(one.cpu_times()[:2]) for one in family)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30, *sys.argv[2:])
