"""A live session beside a notebook: start, look, stop."""

import time
import urllib.request

import pytest
from browser import CHROMIUM, DRIVER, browser
from live_runs import QUICK, write_scan
from page_questions import ask

import braggshot
from braggshot.errors import BraggshotError, ConfigError

pytest.importorskip("dash")
from braggshot import notebook

PATIENCE = 120


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return write_scan(tmp_path_factory.mktemp("scan") / "crystal.cxi")


@pytest.fixture(scope="module")
def finished(scan, tmp_path_factory):
    live = notebook.watch(f"replay:{scan}?rate=0", tmp_path_factory.mktemp("out"), QUICK)
    yield live, live.wait(PATIENCE)
    live.stop()


def test_a_scan_becomes_a_result_that_can_be_loaded(finished):
    live, status = finished
    assert not live.is_running
    assert (status.scan, status.state, status.received, status.trouble) == ("crystal", "done", 32, ())
    (path,) = live.results
    assert braggshot.load_result(path).verdict == status.verdict
    assert f"crystal: done, 32 of 32 frames; {status.verdict}" in repr(status)
    assert repr(live).endswith("ended")


def test_the_page_may_stand_in_a_notebook_of_this_machine_only(finished):
    live, _ = finished
    assert f'<iframe src="{live.url}"' in live._repr_html_()
    policy = ask(live.url)[1]["Content-Security-Policy"]
    assert "frame-ancestors http://localhost:* http://127.0.0.1:*" in policy
    assert "https://example" not in policy


@pytest.mark.slow
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and its chromedriver")
def test_the_page_is_seen_inside_another(finished, tmp_path):
    import functools
    import http.server
    import threading

    live, _ = finished
    (tmp_path / "cell.html").write_text(live._repr_html_())
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, browser() as driver:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        driver.get(f"http://localhost:{server.server_port}/cell.html")
        driver.switch_to.frame(0)
        end = time.monotonic() + PATIENCE
        while "crystal" not in driver.page_source or not driver.find_elements("id", "name"):
            assert time.monotonic() < end
            time.sleep(0.2)
        server.shutdown()


def test_stopping_ends_session_and_page_and_keeps_the_frames(scan, tmp_path):
    live = notebook.watch(f"replay:{scan}?rate=2", tmp_path, QUICK)
    end = time.monotonic() + PATIENCE
    while live.status.received < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert live.is_running
    assert "measuring" in repr(live.status)
    live.stop()
    assert not live.is_running
    assert live.results == ()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(live.url, timeout=5)
    assert list((tmp_path / ".live").iterdir())


def test_what_cannot_be_watched_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(ConfigError):
        notebook.watch("carrier-pigeon:x", tmp_path / "out")
    with pytest.raises(ConfigError, match="did you mean"):
        notebook.watch("folder:.", tmp_path / "out", {"phasing": {"sed": 1}})
    with pytest.raises(BraggshotError):
        notebook.watch(f"replay:{tmp_path / 'nothing.cxi'}", tmp_path / "out")
    assert not (tmp_path / "out").exists()
