"""The page over real connections: who may look, what is refused, and that nothing else comes out."""

import http.client
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlencode, urlsplit

import pytest
from dash import no_update
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from page_questions import ask, surface
from sample_crystal import Changing, result

from braggshot.errors import ConfigError, OutputError
from braggshot.io import results
from braggshot.report import strain_section
from braggshot.viewer import access, server
from braggshot.viewer.app import serve, serving
from braggshot.viewer.callbacks import changed_parts
from braggshot.viewer.pages import Pages
from braggshot.viewer.shared import SharedFeed

TOKEN = "a-token-of-a-test"
PATHS = [
    "/",
    "/_dash-layout",
    "/_dash-dependencies",
    "/moment",
    "/_dash-component-suites/plotly/package_data/plotly.min.js",
    "/anything",
]


@pytest.fixture(scope="module")
def feed():
    return Changing(scan="scan_1", state="done", result=result())


@pytest.fixture(scope="module")
def open_page(feed):
    with serving(feed) as url:
        yield url


@pytest.fixture(scope="module")
def closed_page(feed):
    with serving(feed, token=TOKEN) as url:
        yield url


def test_it_is_on_the_loopback_address_and_sends_the_crystal(open_page):
    assert open_page.startswith("http://127.0.0.1:")
    status, headers, body = ask(open_page)
    assert status == 200
    assert b"_dash-component-suites" in body
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    status, answer = surface(open_page)
    assert status == 200
    assert answer["crystal"]["figure"]["data"][0]["type"] == "mesh3d"
    assert "crystal frame" in answer["caption"]["children"].lower()


def test_a_page_learns_in_few_bytes_whether_anything_changed(open_page, feed):
    status, _, body = ask(open_page, "/moment")
    assert status == 200
    assert len(body) < 120
    assert json.loads(body) == {"moment": {"number": feed.latest()[0], "picture": 1, "scans": 1}, "pause": 500, "work": ""}


def test_a_page_has_shown_a_version_when_it_says_the_key_of_what_is_there(feed):
    noted = []

    class Noting(Pages):
        def note(self, page, shown):
            noted.append((page, shown))

    key = SharedFeed(feed).key(0)
    with serving(feed, pages=Noting()) as url:
        for said in ({}, {"at": 0, "key": "old"}, {"at": 0, "key": key}, {"at": "x", "key": key}, {"at": 10**9, "key": key}):
            assert ask(url, f"/moment?{urlencode({'page': 'p', 'number': 3, **said})}")[0] == 200
        assert ask(url, f"/moment?{urlencode({'number': 3, 'at': 0, 'key': key})}")[0] == 200  # from no page
    assert noted == [("p", None), ("p", None), ("p", 3), ("p", None), ("p", 3)]


def test_what_the_page_shows_already_is_not_sent_again():
    first, marks = changed_parts(["a", [1, 2]], None)
    again, _ = changed_parts(["a", [1, 3]], marks)
    assert first == ["a", [1, 2]]
    assert again == [no_update, [1, 3]]


def test_no_script_or_style_comes_from_elsewhere(open_page):
    text = ask(open_page)[2].decode()
    assert "//cdn" not in text
    assert 'src="http' not in text
    assert 'href="http' not in text


def test_a_foreign_name_for_this_address_is_turned_away(open_page):
    assert ask(open_page, Host="evil.example:80")[0] == 421
    assert ask(open_page, "/_dash-layout", Host="127.0.0.1.evil.example")[0] == 421
    assert ask(open_page, Host="localhost:1")[0] == 200
    assert ask(open_page, Host="[::1]:1")[0] == 200
    assert ask(open_page, Host="[::1]")[0] == 200
    for host in ("localhost:80@evil", "evil@localhost", "localhost/.evil", "", "[::1"):
        assert ask(open_page, Host=host)[0] == 421


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_served_without_the_token(closed_page, path):
    for headers in (
        {},
        {"Cookie": f"braggshot-{urlsplit(closed_page).port}={TOKEN}"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": TOKEN},
    ):
        status, _, body = ask(closed_page, path, **headers)
        assert status == 401
        assert len(body) < 200
    assert ask(closed_page, path, "POST", "{}")[0] == 401
    assert ask(closed_page, path, Authorization=f"Bearer {TOKEN}")[0] in {200, 404}


def test_the_address_with_the_token_gives_a_cookie_and_is_left(closed_page, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    path = closed_page[closed_page.index("/?") :]
    status, headers, _ = ask(closed_page, path)
    assert (status, headers["Location"]) == (303, "/")
    assert "HttpOnly" in headers["Set-Cookie"]
    cookie = headers["Set-Cookie"].partition(";")[0]
    status, _, body = ask(closed_page, "/", Cookie=cookie)
    assert status == 200
    assert TOKEN.encode() not in body
    assert TOKEN not in headers["Set-Cookie"]
    assert ask(closed_page, "/?token=wrong")[0] == 401
    assert ask(closed_page, "/?token=wrong", Cookie=cookie)[0] == 200
    assert TOKEN not in caplog.text + "".join(capfd.readouterr())


def test_a_link_to_a_view_keeps_the_view_and_loses_the_token(closed_page):
    status, headers, _ = ask(closed_page, f"/?unit=%25&token={TOKEN}&picked=%5B%5D&x=%0d%0aSet-Cookie:a")
    assert (status, headers["Location"]) == (303, "/?unit=%25&picked=%5B%5D&x=%0D%0ASet-Cookie%3Aa")
    assert TOKEN not in headers["Location"]


def test_tokens_are_compared_in_constant_time(closed_page, monkeypatch):
    compared = []
    real = access.hmac.compare_digest
    monkeypatch.setattr(access.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    ask(closed_page, "/?token=a")
    ask(closed_page, "/", Authorization="Bearer b")
    assert {given for given, _ in compared} >= {b"a", b"b"}


def test_others_reach_it_with_a_token_only(feed):
    with pytest.raises(ConfigError, match="token"), serving(feed, host="0.0.0.0"):
        pass
    with serving(feed, host="0.0.0.0", token=TOKEN) as url:
        local = url.replace("0.0.0.0", "127.0.0.1")
        assert ask(local, Host="hutch.example")[0] == 401
        assert ask(local, Host="hutch.example", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_a_token_is_made_kept_and_read_from_a_file_that_is_private(tmp_path, monkeypatch):
    monkeypatch.delenv("BRAGGSHOT_TOKEN", raising=False)
    file = tmp_path / "token"
    made = access.find_token(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert access.find_token(file) == made
    assert len(made) >= 32
    assert access.find_token() != access.find_token()
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=f"chmod 600 {file}"):
        access.find_token(file)
    with pytest.raises(ConfigError, match="cannot be made"):
        access.find_token(tmp_path / "none" / "token")


def test_a_token_of_the_environment_is_used_and_must_be_hard_to_guess(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAGGSHOT_TOKEN", "from-the-environment")
    assert access.find_token() == "from-the-environment"
    assert access.find_token(tmp_path / "token") != "from-the-environment"  # a file that is named comes first
    for word in ("short", "two words of it", "a;b=cdefghij", "ünicode-token"):
        monkeypatch.setenv("BRAGGSHOT_TOKEN", word)
        with pytest.raises(ConfigError, match="BRAGGSHOT_TOKEN: a token has at least 8"):
            access.find_token()


@pytest.mark.parametrize("path", ["", "/", "a/b", "/a/b", "/user/me@home/proxy/8050/"])
def test_a_base_path_has_slashes_at_its_ends(path):
    clean = access.clean_base(path)
    assert clean == (f"/{path.strip('/')}/" if path.strip("/") else "/")
    for wrong in ("/a/../b", '/a"b', "/a b/", "/a?b"):
        with pytest.raises(ConfigError, match="--base-path"):
            access.clean_base(wrong)


class Forwarding(BaseHTTPRequestHandler):
    """A reverse proxy: what comes under a prefix is asked of the page, with the prefix or without; nothing else is there."""

    def forward(self):
        if not self.path.startswith(self.server.prefix):
            self.send_error(404)
            return
        path = self.path if self.server.keeps else "/" + self.path.removeprefix(self.server.prefix)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        there = http.client.HTTPConnection(self.server.page, timeout=20)
        there.request(self.command, path, body, {**self.headers, "Host": "hub.example"})
        answer = there.getresponse()
        content = answer.read()
        there.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name not in {"Connection", "Content-Length", "Transfer-Encoding", "Date", "Server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = forward

    def log_message(self, *_):
        pass


@contextmanager
def proxied(feed, prefix, keeps):
    """The page behind a proxy on this machine; the address of the proxy."""
    with serving(feed, token=TOKEN, base=prefix) as url:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Forwarding)
        server.prefix, server.keeps, server.page = prefix, keeps, urlsplit(url).netloc
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()


@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "removed"])
def test_it_works_behind_a_proxy_that_keeps_or_removes_its_path(feed, keeps):
    base = "/user/me/proxy/8050/"
    with proxied(feed, base, keeps) as proxy:
        assert ask(proxy, base)[0] == 401
        status, headers, _ = ask(proxy, f"{base}?token={TOKEN}")
        assert (status, headers["Location"]) == (303, base)
        assert f"Path={base}" in headers["Set-Cookie"]
        cookie = {"Cookie": headers["Set-Cookie"].partition(";")[0]}
        status, _, body = ask(proxy, base, **cookie)
        assert status == 200
        scripts = re.findall(r'src="([^"]+)"', body.decode())
        assert scripts
        assert all(script.startswith(base) for script in scripts)
        assert ask(proxy, scripts[0], **cookie)[0] == 200
        assert json.loads(ask(proxy, f"{base}moment", **cookie)[2])["moment"]["number"] == feed.latest()[0]
        assert surface(proxy, base=base, **cookie)[1]["crystal"]["figure"]["data"][0]["type"] == "mesh3d"


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2fetc/passwd",
        "/assets/../../../../etc/passwd",
        "/assets/..%2f..%2fpyproject.toml",
        "/_dash-component-suites/dash/../../../../../../etc/passwd",
        "/_dash-component-suites/dash/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/_dash-component-suites/braggshot/viewer/app.py",
        "//etc/passwd",
        "/scan_1.cxi",
    ],
)
def test_no_path_leaves_the_page(open_page, path):
    status, _, body = ask(open_page, path)
    assert b"root:" not in body
    assert b"hatchling" not in body
    assert status >= 400 or b"_dash-component-suites" in body  # an unknown path gives the page itself


def test_what_is_too_large_is_refused(open_page):
    status, _, _ = ask(open_page, "/_dash-update-component", "POST", b"x" * (server.LONGEST_REQUEST + 1))
    assert status == 413
    assert ask(open_page, Cookie="x" * 40_000)[0] in {400, 431}
    assert ask(open_page)[0] == 200


def trees():
    """Any JSON."""
    leaves = st.none() | st.integers() | st.text(max_size=5)
    inner = st.recursive(leaves, lambda t: st.lists(t) | st.dictionaries(st.text(max_size=8), t), max_leaves=6)
    return inner.map(lambda tree: json.dumps(tree).encode())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200) | trees())
def test_what_no_page_sends_does_no_harm(open_page, body):
    status, _, answer = ask(open_page, "/_dash-update-component", "POST", body, Content_Type="application/json")
    assert 400 <= status < 500
    assert b"Traceback" not in answer


@pytest.mark.parametrize(
    "values",
    [
        {"shown": {"at": 10**9, "key": ""}},
        {"shown": {"at": -5}},
        {"colouring": "../../etc"},
        {"level": 1e300, "kept": -7, "cut": "q"},
        {"camera": {"look": "no such look"}},
        {"other": "10000", "low": "x", "picked": [[1, 2], "x"], "map": "none"},
    ],
)
def test_choices_out_of_range_are_held_within_it(open_page, values):
    status, answer = surface(open_page, **values)
    assert status == 200
    assert answer["crystal"]["figure"]["layout"]


def test_the_first_picture_of_a_page_comes_in_two_answers_and_the_next_ones_in_one(open_page):
    """A browser without a graphics card takes seconds for its first drawing in space: slices and verdict come before."""
    _, first = surface(open_page, drawn=None)
    assert "crystal" not in first
    assert first["slice-z"]["figure"]["data"]
    assert first["verdict"]["children"]
    partly = first["drawn"]["data"]
    assert partly["key"] is None, "so the page does not say that it shows all"
    _, second = surface(open_page, drawn=partly)
    assert second["crystal"]["figure"]["data"]
    assert second["slice-z"]["figure"] == first["slice-z"]["figure"]
    assert second["drawn"]["data"]["key"] == ""


def test_a_second_result_is_drawn_beside_the_first_with_its_colours_and_numbers(tmp_path):
    for name, strain in (("a", 2e-4), ("b", 4e-4)):
        results.write(tmp_path / f"{name}.cxi", result(name, strain))
    with serving(Changing(scan="b", state="done", finished=(tmp_path / "a.cxi", tmp_path / "b.cxi"))) as url:
        alone, both = surface(url)[1], surface(url, other="1", low="-0.03", high="0.03", unit="%")[1]
    assert alone["space"]["className"] == "space"
    assert [one["label"] for one in alone["other"]["options"]] == ["nothing", "a", "b"]
    assert both["crystal-b-name"]["children"] == "b"
    ends = [both[name]["figure"]["data"][0]["cmax"] for name in ("crystal", "crystal-b")]
    assert ends == [pytest.approx(3e-4)] * 2
    assert [both[name]["figure"]["data"][0]["zmax"] for name in ("slice-z", "slice-b-z")] == [pytest.approx(0.03)] * 2
    table = json.dumps(both["compared"], ensure_ascii=False)
    assert all(fact.value in table for strain in (2e-4, 4e-4) for fact in strain_section.facts(result("x", strain).strain))


@pytest.mark.parametrize(
    "values", [{"shown": {"at": "x"}}, {"shown": []}, {"level": "wide"}, {"colouring": {}}, {"look": {"a": []}}]
)
def test_choices_that_are_none_are_logged_in_a_line(open_page, values, caplog):
    status, _ = surface(open_page, **values)
    assert status in {200, 204}
    assert "Traceback" not in caplog.text
    assert surface(open_page)[0] == 200


def test_a_taken_port_is_told_in_words(feed, open_page):
    with pytest.raises(OutputError, match="choose another --port"), serving(feed, port=urlsplit(open_page).port):
        pass


def test_it_stops_and_its_port_is_free_again(feed):
    before = threading.active_count()
    stop, told = threading.Event(), []
    thread = threading.Thread(target=serve, args=(feed,), kwargs={"on_ready": told.append, "stop": stop})
    thread.start()
    while not told:
        thread.join(0.01)
    assert ask(told[0])[0] == 200
    stop.set()
    thread.join(20)
    assert threading.active_count() <= before
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", urlsplit(told[0]).port))


def test_an_answer_that_is_on_its_way_ends_before_its_sockets_do(monkeypatch):
    serves, asked, go_on, answered = threading.Event(), threading.Event(), threading.Event(), []
    closed = server.close_all
    monkeypatch.setattr(server, "close_all", lambda *given: (answered.append(go_on.is_set()), closed(*given)))

    class Waiting(Changing):
        def latest(self):
            if serves.is_set():  # not while the page is built, which asks too
                asked.set()
                go_on.wait(20)
            return super().latest()

    with serving(Waiting()) as url:
        serves.set()
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port)) as connection:
            connection.sendall(b"GET /moment HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert asked.wait(20)
            threading.Timer(0.5, go_on.set).start()  # when the page has begun to end
    assert answered == [True]


def heed():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def running(*arguments):
    """The command, from outside; Ctrl-C reaches it also where these tests run in the background, which ignores that."""
    command = [sys.executable, "-m", "braggshot", "view", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_command_prints_its_address_first_and_ends_when_told(tmp_path):
    """By SIGTERM; Ctrl-C ends it in tests/test_manual_runs.py."""
    found = result()
    results.write(tmp_path / "scan_1.cxi", found)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    with running(tmp_path / "scan_1.cxi", "--no-browser", "--token-file", tmp_path / "token") as process:
        url = process.stdout.readline().strip()
        assert url.endswith(f"/?token={TOKEN}")
        status, _ = surface(url.partition("?")[0])
        assert status == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
