"""The page among strangers: slow and rude clients, bad questions, guesses of the token, and its end while it is asked."""

import http.client
import json
import logging
import os
import re
import socket
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from page_questions import ask, surface
from sample_crystal import Changing, result

from braggshot.viewer import app, server
from braggshot.viewer.app import serving

TOKEN = "a-token-of-a-test"
KNOWN = {"Authorization": f"Bearer {TOKEN}"}
BUNDLE = "/_dash-component-suites/plotly/package_data/plotly.min.js"
BEGUN = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "


@pytest.fixture(scope="module")
def feed():
    return Changing(scan="scan_1", state="done", result=result())


@pytest.fixture(scope="module", params=[TOKEN, None], ids=["token", "no token"])
def page(feed, request):
    with serving(feed, token=request.param) as url:
        yield url


@contextmanager
def connected(url, number, said, **options):
    """Connections that say something and then nothing; they read nothing."""
    place, opened = urlsplit(url), []
    try:
        for _ in range(number):
            one = socket.socket()
            for name, value in options.items():
                one.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
            one.connect((place.hostname, place.port))
            opened.append(one)
            one.sendall(said)
        yield opened
    finally:
        for one in opened:
            one.close()


def is_closed(one):
    one.settimeout(10)
    try:
        return one.recv(1) == b""
    except ConnectionError:
        return True


def is_reset(act):
    """Tell whether the other side has ended a connection before `act` was done 60 times."""
    try:
        for _ in range(60):
            act()
    except ConnectionError:
        return True
    return False


def seconds(url):
    begin = time.perf_counter()
    assert ask(url, "/moment", **KNOWN)[0] == 200
    return time.perf_counter() - begin


def test_300_clients_that_send_slowly_keep_nobody_from_an_answer(page):
    with connected(page, 300, BEGUN) as opened:
        assert max(seconds(page) for _ in range(12)) < 1
        assert is_closed(opened[0])  # those that came first have waited longest
        opened[-1].sendall(b"x")
        assert max(seconds(page) for _ in range(12)) < 1


def test_16_clients_that_do_not_read_keep_nobody_from_an_answer(page):
    asked = f"GET {BUNDLE} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode() * 12
    with connected(page, 16, asked, SO_RCVBUF=4096):
        time.sleep(0.5)
        assert max(seconds(page) for _ in range(12)) < 1


def test_a_byte_now_and_then_does_not_make_a_question_last(feed, monkeypatch):
    monkeypatch.setattr(server, "LONGEST_QUESTION", 1.0)
    with serving(feed) as url, connected(url, 1, BEGUN) as [slow], connected(url, 1, b"") as [silent]:
        assert is_reset(lambda: (slow.sendall(b"x"), time.sleep(0.1)))
        assert is_closed(silent)


def test_a_client_that_does_not_read_is_dropped(feed, monkeypatch):
    monkeypatch.setattr(server, "LONGEST_STALL", 1.0)
    asked = f"GET {BUNDLE} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    with serving(feed) as url, connected(url, 1, asked, SO_RCVBUF=4096) as [one]:
        time.sleep(2.5)
        assert is_reset(lambda: one.recv(2**20))


def test_a_connection_that_asks_again_and_again_stays(feed, monkeypatch):
    monkeypatch.setattr(server, "LONGEST_QUESTION", 0.5)
    with serving(feed) as url:
        place = urlsplit(url)
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=10)
        connection.connect()
        own = connection.sock.getsockname()
        for _ in range(10):
            connection.request("GET", "/moment")
            assert connection.getresponse().read()
            assert connection.sock.getsockname() == own
            time.sleep(0.2)
        connection.close()


def test_questions_that_do_not_wait_for_answers_are_asked_again_by_the_client(page):
    asked = f"GET /moment HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    with connected(page, 1, asked * 5) as [one]:
        one.settimeout(10)
        said = b"".join(iter(lambda: one.recv(2**16), b""))
    assert said.count(b"HTTP/1.1 200 OK") == 1


BAD = [
    ("/_dash-update-component", "POST", b"[" * 60_000),
    ("/_dash-update-component", "POST", b"{}"),
    ("/_dash-update-component", "POST", b"[1]"),
    ("/_dash-update-component", "POST", b'"a"'),
    ("/_dash-update-component", "POST", b"\xff"),
    ("/_dash-update-component", "POST", json.dumps({"output": "a.b", "inputs": [], "changedPropIds": []}).encode()),
    ("/_dash-update-component", "POST", json.dumps({"output": "page.className", "inputs": 5, "state": {}}).encode()),
    ("/_dash-component-suites/x/y.js", "GET", None),
    ("/_dash-component-suites/dash/no/such.js", "GET", None),
    ("/_dash-component-suites/%1b%5b2J%1b%5d0;OWNED%07/x.js", "GET", None),
    ("/download/%1b%5b2J?scan=x", "GET", None),
    ("/moment?at=x&key=%1b%5b2J&number=" + "9" * 4000, "GET", None),
    ("/?" + "&".join("a=b" for _ in range(900)), "GET", None),
]


@pytest.mark.parametrize("question", BAD, ids=range(len(BAD)))
def test_a_bad_question_is_a_line_in_the_log_and_no_fault_of_the_page(page, question, caplog, capfd):
    caplog.set_level(logging.INFO)
    path, method, body = question
    status, _, answer = ask(page, path, method, body, Content_Type="application/json", **KNOWN)
    assert status in {200, 400, 404, 415}
    assert b"Traceback" not in answer
    printed = "".join(capfd.readouterr())
    assert all(record.exc_info is None for record in caplog.records)
    assert len(caplog.records) <= 1
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "".join(caplog.messages) + printed)
    assert "Traceback" not in printed


def test_a_fault_of_the_page_is_a_line_too(monkeypatch, feed, caplog):
    def fail(*_):
        raise RuntimeError("broken\x1b[2J")

    monkeypatch.setattr(app.access, "protect", lambda *_: fail)
    with serving(feed) as url:
        assert ask(url)[0] == 500
    assert [record.getMessage() for record in caplog.records] == ["a request failed: RuntimeError: broken\\x1b[2J"]
    assert caplog.records[0].exc_info is None


def test_guesses_are_slowed_and_keep_nobody_out_who_is_in(feed):
    with serving(feed, token=TOKEN) as url:
        cookie = ask(url, f"/?token={TOKEN}")[1]["Set-Cookie"].partition(";")[0]
        answers = [ask(url, f"/?token=guess{n}")[0] for n in range(30)]
        assert answers == [401] * 20 + [429] * 10
        assert ask(url, Authorization="Bearer guess")[0] == 429
        assert ask(url, **KNOWN)[0] == 429  # else guesses would be told apart
        assert ask(url, "/moment")[0] == 401
        assert ask(url, "/moment", Cookie=cookie)[0] == 200
        assert ask(url, f"/?token={TOKEN}", Cookie=cookie)[0] == 303


def test_a_browser_keeps_no_data_and_may_keep_scripts(page):
    for path in ("/", "/moment", "/_dash-layout", "/download/csv", "/no-such-page"):
        assert ask(page, path, **KNOWN)[1].get_all("Cache-Control") == ["no-store"]
    assert "no-store" not in ask(page, BUNDLE, **KNOWN)[1].get("Cache-Control", "")
    assert surface(page)[0] in {200, 401}


def test_the_printed_address_of_all_addresses_can_be_opened(feed):
    with serving(feed, host="0.0.0.0", token=TOKEN) as url:
        assert "0.0.0.0" not in url
        assert ask(url, "/moment", **KNOWN)[0] == 200


def test_the_page_of_a_name_with_several_addresses_is_served(feed):
    with serving(feed, host="localhost") as url:
        assert ask(url, "/moment")[0] == 200


def test_it_ends_without_a_fault_while_answers_are_on_their_way(feed, monkeypatch):
    """Whoever wakes the server writes into its pipe, which has to be open, and no other file by then."""
    written = []
    real = os.write

    def late(number, data):
        if data == b"x" and threading.current_thread() is threading.main_thread():
            time.sleep(0.3)  # as on a busy machine: another thread wakes the server in between
            written.append(os.fstat(number))
        return real(number, data)

    with connected_askers(feed) as (ask_on, faults):
        monkeypatch.setattr(os, "write", late)
        ask_on.wait(0.3)
    assert written
    assert faults == []


@contextmanager
def connected_askers(feed):
    """Four threads that ask the page again and again until it ends; what goes wrong in threads."""
    faults, ended = [], threading.Event()
    before = threading.excepthook
    threading.excepthook = lambda fault: faults.append(fault.exc_value)
    try:
        with serving(feed) as url:

            def ask_on():
                while not ended.is_set():
                    try:
                        ask(url, "/moment")
                    except (OSError, http.client.HTTPException):
                        return

            threads = [threading.Thread(target=ask_on) for _ in range(4)]
            for one in threads:
                one.start()
            yield ended, faults
        ended.set()
        for one in threads:
            one.join()
    finally:
        threading.excepthook = before
