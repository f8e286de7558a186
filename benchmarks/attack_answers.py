"""Damaged documents of Bluesky, and damaged answers of the servers that are asked for what is new, for ``attack.py messages``.

Each function makes something that is looked at again and again: a step reads some damaged messages, and returns what came of them.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHARE = 0.3  # of the messages that are damaged, so that scans get somewhere
Damage = Callable[[bytes, Any], bytes]
Step = Callable[[], tuple[int, list[Any]]]


def bluesky(folder: Path, random: Any, damage: Damage, ledger: Any) -> Step:
    """Documents that `emit` publishes, and pages of events."""
    import zmq
    from played import playing, toy_scan

    from braggshot.live.simulator.player import open_sink
    from braggshot.live.sources.bluesky import Options, Reader

    sink, context, good = open_sink(f"bluesky:tcp://127.0.0.1:*?files={folder}"), zmq.Context(), []
    heard = context.socket(zmq.SUB)
    heard.set(zmq.SUBSCRIBE, b"")
    heard.connect(sink.url.partition(":")[2].partition("?")[0])
    player = threading.Thread(target=playing(toy_scan(4), sink, repeat=2))
    player.start()
    while heard.poll(1000):
        good.append(heard.recv())
    player.join()
    context.destroy(linger=0)
    good += [text.replace(b" event ", b" event_page ", 1).replace(b'"seq_num": 3', b'"seq_num": [3, 4]') for text in good]
    reader, place = Reader(Options(files=str(folder))), iter(())

    def step() -> tuple[int, list[Any]]:
        nonlocal place
        part = next(place, None)
        if part is None:
            place = iter(good)
            part = next(place)
        return 1, reader([damage(part, random) if random.random() < SHARE else part], ledger)

    return step


def tiled(folder: Path, random: Any, damage: Damage, ledger: Any) -> Step:
    """Answers of a catalogue with a run that grows."""
    from catalogue import Catalogue, Run
    from played import toy_scan

    from braggshot.live.sources.limits import UnusableError
    from braggshot.live.sources.tiled import Options, Reader

    catalogue, counts, asked = Catalogue(), toy_scan(4).frames[:], [0]
    good, reader = catalogue.ask, Reader(Options())

    def ask(*question: Any, **more: Any) -> bytes | None:
        asked[0] += 1
        answer = good(*question, **more)
        return damage(answer, random) if answer and random.random() < SHARE / 4 else answer

    catalogue.ask = ask  # type: ignore[method-assign]

    def step() -> tuple[int, list[Any]]:
        before, messages = asked[0], []
        if not catalogue.runs or catalogue.runs[-1].stop:
            run = Run(f"r{before}", counts, [1.0, 2.0, 3.0, 4.0], number=before % 1000)
            catalogue.runs = [*catalogue.runs[-3:], run.tell(2)]
        else:
            catalogue.runs[-1].end()
        try:
            messages += [message for message in reader.look(catalogue, ledger) if message is not None]
        except UnusableError:
            reader.run = None
        return asked[0] - before, messages

    return step


def blissdata(folder: Path, random: Any, damage: Damage, ledger: Any) -> Step:
    """Answers of a Redis server to the questions about a scan, as bytes."""
    from bliss_server import Recorded, add_whole_scan, encode, write_files

    from braggshot.live.sources.blissdata.source import Options, Reader
    from braggshot.live.sources.limits import UnusableError
    from braggshot.live.sources.redis_asking import read_answer

    write_files(folder)
    options = Options(files=str(folder))

    def step() -> tuple[int, list[Any]]:
        server, reader, asked, messages = Recorded(folder), Reader(options), [0], []
        for _ in reader.look(server, ledger):
            pass
        add_whole_scan(server)
        good = server.ask

        def ask(*words: Any, **bounds: Any) -> Any:
            asked[0] += 1
            content = encode(good(*words, **bounds))
            return read_answer(io.BytesIO(damage(content, random) if random.random() < SHARE / 4 else content), 10**7)

        server.ask = ask  # type: ignore[method-assign]
        for _ in range(3):
            try:
                messages += [message for message in reader.look(server, ledger) if message is not None]
            except (UnusableError, ConnectionError):
                continue
        return asked[0], messages + ledger.end("esrf:scan:new", "over")

    return step


ATTACKED = {"bluesky": bluesky, "tiled": tiled, "blissdata": blissdata}


def forget_names(ledger: Any) -> None:
    """Let names of scans be used again: after many thousands, a free one is searched for a long time."""
    if len(ledger.used_names) > 100:
        ledger.used_names.clear()
        ledger.ended.clear()
