"""How fast a new picture is in the page, and what looking costs: python benchmarks/viewer.py RESULT.cxi [pictures].

Needs Chromium and its driver. The browser has no screen and draws on the processor, so one with a graphics card is faster.
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
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from braggshot.pipeline import load_result
from braggshot.snapshot import Snapshot
from braggshot.viewer import drawings, model
from braggshot.viewer.app import serving
from braggshot.viewer.watch import prepared

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-sync",
)
GRAPH = "document.querySelector('#crystal .js-plotly-plot')"
WATCH = f"window.drawn = []; {GRAPH}.on('plotly_afterplot', () => window.drawn.push(Date.now()))"


class Changing:
    """A feed of one scan whose picture changes."""

    def __init__(self, **fields):
        self.now = 1, Snapshot(scan="benchmark", state="measuring", **fields)

    def latest(self):
        return self.now

    def show(self, **changes):
        self.now = self.now[0] + 1, dataclasses.replace(self.now[1], **changes)


def main(path: Path, pictures: int) -> None:
    """Print all of it."""
    found = load_result(path)
    ready = timed("a picture made ready", lambda: prepared(found))
    surface = timed("surface", lambda: model.mesh(ready.solid, model.View()))
    print(f"triangles {len(surface.triangles)}, points {len(surface.points)}")
    name = ready.solid.colouring("strain")
    report_size("surface", drawings.crystal(ready.solid, surface, name, drawings.seen("oblique")))
    planes = model.planes(ready.solid, model.View())
    report_size("slices", [drawings.slice_(plane, (0.0, 0.0), ready.solid.colours[name], "nm") for plane in planes])
    feed = Changing(result=found)
    with serving(feed) as url:
        measure_polling(url, feed.latest()[0])
        waits = measure_pictures(url, feed, found, pictures)
    print(f"new picture to page: median {np.median(waits):.2f} s, 95 % {np.percentile(waits, 95):.2f} s, n {len(waits)}")


def timed(what, make):
    """Seconds of processor time, printed; the value."""
    make()
    began = time.process_time()
    value = make()
    print(f"{what}: {1e3 * (time.process_time() - began):.1f} ms of the processor")
    return value


def report_size(what, figure):
    print(f"{what} on the wire: {len(json.dumps(figure)) / 1e3:.0f} kB")


def measure_polling(url, number, times=300):
    """What a page costs while nothing changes; the asking is part of it."""
    state = {"id": "moment", "property": "data", "value": {"number": number, "picture": 1, "scans": 1}}
    outputs = [{"id": "moment", "property": "data"}, {"id": "tick", "property": "interval"}]
    tick = {"id": "tick", "property": "n_intervals", "value": 1}
    names = "..moment.data...tick.interval.."
    body = json.dumps(
        {"output": names, "outputs": outputs, "inputs": [tick], "state": [state], "changedPropIds": ["tick.n_intervals"]}
    )
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    began = time.process_time()
    for _ in range(times):
        connection.request("POST", "/_dash-update-component", body, {"Content-Type": "application/json"})
        connection.getresponse().read()
    connection.close()
    print(f"one question: {1e3 * (time.process_time() - began) / times:.2f} ms of the processor")


def measure_pictures(url, feed, found, pictures):
    """Seconds from a new picture to its surface in the page."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, "--window-size=1000,900"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.get(url)
        waiting = WebDriverWait(driver, 90, 0.02, ignored_exceptions=(Exception,))
        waiting.until(lambda d: d.execute_script(f"return {GRAPH}.data.length > 0"))
        time.sleep(5)  # the rest of the page
        driver.execute_script(WATCH)
        waits = []
        for number in range(pictures):
            driver.execute_script("window.drawn = []")
            began = time.time()
            feed.show(result=dataclasses.replace(found), received=number)
            drawn = waiting.until(lambda d: d.execute_script("return window.drawn[0]"))
            waits.append(drawn / 1e3 - began)
            time.sleep(1 + 0.05 * (number % 7))  # not in step with the page's questions
        return waits
    finally:
        driver.quit()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 30)
