"""How the page answers among rude clients: python benchmarks/attack_page.py [clients].

Each attack is made on a page with a token, which only those who do not read have, and on a page without one. 12 true questions are
asked meanwhile. Prints the time of the slowest true question before, during and after the attack, and how many connections the page
has closed.
"""

from __future__ import annotations

import http.client
import select
import socket
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from braggshot.viewer.app import serving

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "samples"))
from sample_crystal import Changing, result

TOKEN = "a-token-of-a-benchmark"
BUNDLE = "/_dash-component-suites/plotly/package_data/plotly.min.js"
BEGUN = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "


def slowest(url: str, questions: int = 12) -> float:
    """Longest time of a true question, each on a connection of its own [s]."""
    place, longest = urlsplit(url), 0.0
    for _ in range(questions):
        begin = time.perf_counter()
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=45)
        try:
            connection.request("GET", "/moment", headers={"Authorization": f"Bearer {TOKEN}"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
        except OSError:
            return float("inf")
        finally:
            connection.close()
        longest = max(longest, time.perf_counter() - begin)
    return longest


@contextmanager
def sending_slowly(url: str, clients: int):
    """Connections that send a byte a second, and are opened again when they are closed."""
    place, ended = urlsplit(url), threading.Event()
    opened = [socket.create_connection((place.hostname, place.port)) for _ in range(clients)]

    def send() -> None:
        for one in opened:
            one.sendall(BEGUN)
        while not ended.wait(1):
            for one in opened:
                try:
                    one.sendall(b"x")
                except OSError:
                    continue

    thread = threading.Thread(target=send)
    thread.start()
    time.sleep(2)
    yield opened
    ended.set()
    thread.join()
    close(opened)


@contextmanager
def not_reading(url: str, clients: int):
    """Connections that ask 12 times for the largest script and read nothing."""
    place, opened = urlsplit(url), []
    for _ in range(clients):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect((place.hostname, place.port))
        one.sendall(f"GET {BUNDLE} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode() * 12)
        opened.append(one)
    time.sleep(2)
    yield opened
    close(opened)


def close(opened: list[socket.socket]) -> None:
    """Close connections."""
    for one in opened:
        one.close()


def closed(opened: list[socket.socket]) -> int:
    """Count the connections that the other side has closed."""
    poll = select.poll()
    for one in opened:
        poll.register(one, select.POLLRDHUP)
    return len(poll.poll(0))


def main(clients: int) -> None:
    """Print one line for each attack."""
    feed = Changing(scan="scan_1", state="done", result=result())
    print("attack, token: slowest true question before, during, after [s]; connections closed at once, after 25 s; memory [MB]")
    for token in (TOKEN, None):
        for name, attack, number in (("send slowly", sending_slowly, clients), ("do not read", not_reading, 16)):
            with serving(feed, token=token) as url:
                before = slowest(url)
                with attack(url, number) as opened:
                    during, first = slowest(url), closed(opened)
                    memory = psutil.Process().memory_info().rss / 1e6
                    time.sleep(25)
                    later = closed(opened)
                after = slowest(url)
            kind = "token" if token else "no token"
            times = f"{before:.3f} {during:.3f} {after:.3f}"
            print(f"{number} {name}, {kind}: {times}; {first}, {later} of {number}; {memory:.0f}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:] or [300]))
