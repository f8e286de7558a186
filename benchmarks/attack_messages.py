"""Damage messages of streams, answers of servers that are asked, and files of a watched folder, for ``attack.py messages``.

Each function of `ATTACKED` makes something that is read again and again: a step reads some messages, of which `Damage` damages a
share, and returns what came of them. It is met badly where a step raises an error or ends the process.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

SHARES = (0.05, 0.3, 1.0)
"""Shares of the messages that are damaged, one drawn for each step: few, so that scans get somewhere, or all."""
STEP = 50
"""Number of messages of a detector that are read in a step."""
Step = Callable[[], list[Any]]
ODD = [
    None, True, -1, 0, 1, 3, 2**31, 2**63, 2**64 - 1, 1.5, -0.0, 1e308, float("nan"), float("inf"), "", "r1", "12", "../..", "\0",
    "\u202e", "%s", "x" * 3000, [], [1], [[]], [0, 0], [-1, 5], [2**40, 2**40], {}, {"a": {}}, {"start": 0}, "<f8", "uint16",
]  # fmt: skip
"""Values that are put in the place of others."""


def mutate(chunk: bytes, random: np.random.Generator) -> bytes:
    """Damage bytes in one of six ways."""
    content, way = bytearray(chunk), random.integers(6)
    if way == 0:
        return bytes(content[: random.integers(1, len(content))]) if len(content) > 1 else b""
    if way == 1 or not content:
        return bytes(content) + random.bytes(int(random.integers(1, 50)))
    if way == 2:
        first = random.integers(len(content))
        content[first : first + 64] = bytes(len(content[first : first + 64]))
    elif way == 3:
        first = random.integers(max(1, len(content) - 4))
        content[first : first + 4] = random.bytes(4)
    else:
        for _ in range(random.integers(1, 8)):
            content[random.integers(min(24, len(content)) if way == 4 else len(content))] = random.integers(256)
    return bytes(content)


def replace_value(tree: Any, random: np.random.Generator) -> Any:
    """Replace one value inside nested lists and maps by an odd one, or take it out, or double it."""
    from cbor2 import CBORTag

    if isinstance(tree, CBORTag) and random.random() < 0.9:
        return CBORTag(tree.tag, replace_value(tree.value, random))
    if not isinstance(tree, dict | list | tuple) or not tree or random.random() < 0.05:
        return ODD[random.integers(len(ODD))]
    place: Any = random.integers(len(tree))
    changed: Any = dict(tree) if isinstance(tree, dict) else list(tree)
    place = list(tree)[place] if isinstance(tree, dict) else int(place)
    way = random.integers(10)
    if way == 0:
        del changed[place]
    elif way == 1:
        if isinstance(tree, dict):
            changed[ODD[random.integers(14, 21)]] = tree[place]
        else:
            changed.append(tree[place])
    else:
        changed[place] = replace_value(tree[place], random)
    return changed


def change_document(content: bytes, random: np.random.Generator) -> bytes:
    """Replace a value of a JSON text, which words may stand before, or of a CBOR map; damage the bytes of anything else."""
    import cbor2

    first = content.find(b"{")
    try:
        if 0 <= first < 100 and content[-1:] == b"}":
            return content[:first] + json.dumps(replace_value(json.loads(content[first:]), random)).encode()
        if content[:1] and content[0] >> 5 == 5:
            return cbor2.dumps(replace_value(cbor2.loads(content), random))
    except (ValueError, cbor2.CBOREncodeError):
        pass
    return mutate(content, random)


class Damage:
    """Damages a share of what passes, and counts what it damaged."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random, self.share, self.count = random, 1.0, 0

    def draw_share(self) -> None:
        self.share = SHARES[self.random.integers(len(SHARES))]

    def is_due(self) -> bool:
        return bool(self.random.random() < self.share)

    def __call__(self, content: bytes) -> bytes:
        if not self.is_due():
            return content
        damaged = change_document(content, self.random) if self.random.random() < 0.5 else mutate(content, self.random)
        self.count += damaged != content
        return damaged


def _detector(name: str, url: str) -> Callable[[Path, Damage, Any], Step]:
    """Messages of a detector that pushes them."""

    def make(folder: Path, damage: Damage, ledger: Any) -> Step:
        from braggshot.live.sources import stins
        from braggshot.live.sources.dectris import source as dectris

        good, random = record_messages(url), damage.random
        if name == "stins":
            read: Any = stins.Reader()
        else:
            reader = dectris.Reader()
            read = lambda parts, ledger: dectris.to_messages(parts, ledger, reader)  # noqa: E731

        def step() -> list[Any]:
            messages = []
            for _ in range(STEP):
                parts = list(good[random.integers(len(good))])
                place = int(random.integers(len(parts)))
                parts[place] = damage(parts[place])
                messages += read(parts, ledger)
            return messages

        return step

    return make


def record_messages(url: str) -> list[list[bytes]]:
    """Play a small scan over a stream, and return its messages."""
    import zmq
    from played import playing, toy_scan

    from braggshot.live.simulator.player import open_sink

    sink, context, messages = open_sink(url), zmq.Context(), []
    is_published = url.startswith("bluesky")
    socket = context.socket(zmq.SUB if is_published else zmq.PULL)
    if is_published:
        socket.set(zmq.SUBSCRIBE, b"")
    socket.connect(sink.url.partition(":")[2].partition("?")[0])
    player = threading.Thread(target=playing(toy_scan(4), sink, repeat=2))
    player.start()
    while socket.poll(1000):
        messages.append(socket.recv_multipart())
    player.join()
    context.destroy(linger=0)
    return messages


def bluesky(folder: Path, damage: Damage, ledger: Any) -> Step:
    """Documents that `emit` publishes, and pages of events."""
    from braggshot.live.sources.bluesky import Options, Reader

    good = [text for (text,) in record_messages(f"bluesky:tcp://127.0.0.1:*?files={folder}")]
    good += [text.replace(b" event ", b" event_page ", 1).replace(b'"seq_num": 3', b'"seq_num": [3, 4]') for text in good]
    reader = Reader(Options(files=str(folder)))

    def step() -> list[Any]:
        return [message for text in good for message in reader([damage(text)], ledger)] + reader(None, ledger)

    return step


def tiled(folder: Path, damage: Damage, ledger: Any) -> Step:
    """Answers of a catalogue with a run that grows."""
    from catalogue import Catalogue, Run
    from played import toy_scan

    from braggshot.live.sources.limits import UnusableError
    from braggshot.live.sources.tiled import Options, Reader

    catalogue, counts, number = Catalogue(), toy_scan(4).frames[:], 0
    good, reader = catalogue.ask, Reader(Options())

    def ask(*question: Any, **more: Any) -> bytes | None:
        answer = good(*question, **more)
        return damage(answer) if answer else answer

    catalogue.ask = ask  # type: ignore[method-assign]

    def step() -> list[Any]:
        nonlocal number
        number += 1
        catalogue.asked.clear()
        if not catalogue.runs or catalogue.runs[-1].stop:
            run = Run(f"r{number}", counts, [1.0, 2.0, 3.0, 4.0], number=number % 1000)
            catalogue.runs = [*catalogue.runs[-3:], run.tell(2)]
        else:
            catalogue.runs[-1].end()
        messages: list[Any] = []
        with suppress(UnusableError):
            for message in reader.look(catalogue, ledger):
                messages += [] if message is None else [message]
            return messages
        reader.run = None
        return messages

    return step


def blissdata(folder: Path, damage: Damage, ledger: Any) -> Step:
    """Answers of a Redis server to the questions about a scan, as bytes; documents in them are also damaged as documents."""
    from bliss_server import Recorded, add_whole_scan, encode, write_files

    from braggshot.live.sources.blissdata.source import Options, Reader
    from braggshot.live.sources.limits import UnusableError
    from braggshot.live.sources.redis_asking import read_answer

    write_files(folder)
    options, random = Options(files=str(folder)), damage.random

    def step() -> list[Any]:
        server, reader, messages = Recorded(folder), Reader(options), []
        for _ in reader.look(server, ledger):
            pass
        add_whole_scan(server)
        good = server.ask

        def ask(*words: Any, **bounds: Any) -> Any:
            answer = good(*words, **bounds)
            if random.random() < 0.5:
                return read_answer(io.BytesIO(damage(encode(answer))), 10**7)
            damaged = _damage_within(answer, damage)
            return damaged

        server.ask = ask  # type: ignore[method-assign]
        for _ in range(3):
            with suppress(UnusableError, ConnectionError):
                for message in reader.look(server, ledger):
                    messages += [] if message is None else [message]
        return messages + ledger.end("esrf:scan:new", "over")

    return step


def _damage_within(answer: Any, damage: Damage) -> Any:
    """Damage one text within an answer, so that it stays an answer of Redis."""
    if isinstance(answer, bytes):
        return damage(answer)
    if not isinstance(answer, list) or not answer:
        return answer
    place = int(damage.random.integers(len(answer)))
    return [_damage_within(part, damage) if number == place else part for number, part in enumerate(answer)]


def pva(folder: Path, damage: Damage, ledger: Any) -> Step:
    """Images of a channel: NTNDArrays with odd fields or a damaged payload, and structures that are none."""
    from p4p import Value
    from p4p.nt import NTNDArray
    from played import toy_scan

    from braggshot.io.codecs import Codec, lz4_encode
    from braggshot.live.sources.decoding import ImageDecoder
    from braggshot.live.sources.pva import SCALAR_TYPES, Numbering, Options, PvaSource

    counts, source, kind = toy_scan(4).frames[:], PvaSource("A", Options()), NTNDArray.buildType()
    numbering, decoder, random, others = Numbering(ledger), ImageDecoder(), damage.random, _structures(damage.random)
    codecs = {name: Codec(name, counts.shape[1:], counts.dtype) for name in ("bslz4", "blosc")}
    packed = {"": [image.tobytes() for image in counts], "lz4": [lz4_encode(image) for image in counts]}
    packed |= {name: [bytes(codec.encode(image)) for image in counts] for name, codec in codecs.items()}
    names, turn = ["ubyte", "ushort", "uint", "ulong", "byte", "short", "int", "long", "float", "double"], 0

    def image(index: int) -> Any:
        """A good image, or one of which a field is odd."""
        codec = list(packed)[random.integers(len(packed))]
        payload = damage(packed[codec][index]) if random.random() < 0.4 else packed[codec][index]
        flat = np.frombuffer(payload, np.uint8) if codec else np.frombuffer(payload[: len(payload) // 2 * 2], np.uint16)
        code = SCALAR_TYPES.index("uint16") + 1 if codec else None
        attributes = {"ScanId": f"s{turn // 8}", "FrameIndex": index, "FramesPlanned": 4, "RockingAngle": 10.0 + index}
        fields = {
            "value": (f"{'ubyte' if codec else 'ushort'}Value", flat), "codec": {"name": codec, "parameters": code},
            "uniqueId": turn % 2**30, "dimension": [{"size": 31}, {"size": 20}],
            "attribute": [{"name": name, "value": value} for name, value in attributes.items()],
            "timeStamp": {"secondsPastEpoch": 10**9, "nanoseconds": 0},
        }  # fmt: skip
        if damage.is_due():
            damage.count += 1
            odd = _odd_fields(fields, random, names)
            try:
                return Value(kind, odd)
            except Exception:  # what cannot be told in this structure cannot come
                damage.count -= 1
        return Value(kind, fields)

    def step() -> list[Any]:
        nonlocal turn
        messages = []
        for index in range(4):
            turn += 1
            value = image(index)
            if random.random() < 0.05 * damage.share:
                value = others[random.integers(len(others))]
                damage.count += 1
            messages += source._to_messages(value, numbering, decoder)
        return messages

    return step


def _odd_fields(fields: dict[str, Any], random: np.random.Generator, names: list[str]) -> dict[str, Any]:
    """Fields of an NTNDArray with something odd in one of them."""
    whole = [-(2**31), -1, 0, 1, 3, 620, 2**20, 2**31 - 1]
    number = whole[random.integers(len(whole))]
    any_value = [None, number, 1.5, float("nan"), "", "text", "12", np.arange(3), ["a", "b"], True, 2**63 - 1]
    anything = any_value[random.integers(len(any_value))]
    name = list(fields)[random.integers(len(fields))]
    if name == "value":
        chosen = names[random.integers(len(names))]
        size = int(random.integers(0, 700))
        return {**fields, name: (f"{chosen}Value", np.zeros(size)) if random.random() < 0.8 else ("booleanValue", [True] * size)}
    if name == "codec":
        codec = ["", "lz4", "bslz4", "blosc", "jpeg", "zstd", "\0", "x" * 5000][random.integers(8)]
        return {**fields, name: {"name": codec, "parameters": anything}}
    if name == "dimension":
        return {**fields, name: [{"size": whole[random.integers(len(whole))]} for _ in range(random.integers(0, 5))]}
    if name == "attribute":
        keys = ["ScanId", "FrameIndex", "FramesPlanned", "RockingAngle", "ScanEnergy", "", "\0"]
        key = keys[random.integers(len(keys))]
        return {**fields, name: [*fields[name], {"name": key, "value": anything}]}
    if name == "timeStamp":
        return {**fields, name: {"secondsPastEpoch": 2**63 - 1 if number > 3 else number, "nanoseconds": number}}
    return {**fields, name: number}


def _structures(random: np.random.Generator) -> list[Any]:
    """Structures that other channels send: fields are missing, or of another type."""
    from p4p import Type, Value
    from p4p.nt import NTEnum, NTScalar, NTTable

    found = [NTScalar("d").wrap(1.0), NTScalar("ai").wrap([1, 2]), NTScalar("s").wrap("a"), NTTable([("a", "i")]).wrap([{"a": 1}])]
    found.append(NTEnum().wrap({"index": 0, "choices": ["a"]}))
    types = ["i", "d", "s", "?", "ai", "as", "ad", "v", ("S", None, [("name", "s"), ("parameters", "v"), ("size", "i")]),
             ("aS", None, [("name", "i"), ("value", "s"), ("size", "s")]), ("S", None, [("secondsPastEpoch", "s")])]  # fmt: skip
    for _ in range(400):
        fields = ["uniqueId", "value", "codec", "dimension", "attribute", "timeStamp"]
        chosen = [(name, types[random.integers(len(types))]) for name in fields if random.random() < 0.9]
        value = Value(Type(chosen))
        for name, kind in chosen:
            if kind in ("i", "d"):
                value[name] = int(random.integers(-3, 700))
            elif kind in ("ai", "ad"):
                value[name] = random.integers(-3, 700, random.integers(0, 5))
        found.append(value)
    return found


def folder_files(folder: Path, damage: Damage, ledger: Any) -> Step:
    """Images and their plans in a watched folder."""
    import tifffile
    from played import toy_scan

    from braggshot.live.sources.folder.source import FolderSource, Options

    counts, random, good = toy_scan(4).frames[:], damage.random, {}
    for suffix in (".tif", ".npy"):
        content = io.BytesIO()
        tifffile.imwrite(content, counts[0], metadata=None) if suffix == ".tif" else np.save(content, counts[0])
        good[suffix] = content.getvalue()
    note = json.dumps({"frames": 4, "first": 0, "scan": "a", "rocking_angle_deg": [1.0, 2.0, 3.0, 4.0]}).encode()
    source = FolderSource(folder, Options(settle=0.0))
    source._ledger = ledger
    turn = 0

    def step() -> list[Any]:
        nonlocal turn
        turn, suffix, place = turn + 1, list(good)[random.integers(len(good))], folder / "s"
        place.mkdir(exist_ok=True)
        paths = [place / f"a{turn}_{index:05d}{suffix}" for index in range(4)]
        (place / f"a{turn}_.json").write_bytes(damage(note))
        (place / f"a{turn}.json").write_bytes(damage(note))
        for path in paths:
            path.write_bytes(damage(good[suffix]))
        messages = list(source.take_files(paths))
        source._pending.clear()
        for path in place.iterdir():
            path.unlink()
        return messages

    return step


def hdf5(folder: Path, damage: Damage, ledger: Any) -> Step:
    """Growing HDF5 files, and sets of a DECTRIS detector, in a watched folder."""
    from played import playing, toy_scan

    from braggshot.live.simulator.player import open_sink
    from braggshot.live.sources.folder.source import FolderSource, Options

    kinds, random, turn = [], damage.random, 0
    for number, query in enumerate(("hdf5=1", "eiger=2", "hdf5=true&compress=bslz4")):
        playing(toy_scan(4), open_sink(f"folder:{folder / str(number)}?{query}"))()
        kinds.append({path.name: path.read_bytes() for path in sorted((folder / str(number)).rglob("*")) if path.is_file()})
    source = FolderSource(folder, Options(settle=0.0))
    source._ledger = ledger
    place = folder / "s"
    place.mkdir()

    def step() -> list[Any]:
        nonlocal turn
        turn, files = turn + 1, kinds[random.integers(len(kinds))]
        for name, content in files.items():
            (place / name).write_bytes(damage(content))
        messages = [*source.take_files(sorted(place.glob("*.h5"))), *source.take_files([])]
        for pending in source._pending:
            if pending.growing is not None:
                pending.growing.close()
        source._pending.clear()
        source._linked.clear()
        messages += ledger.end(ledger.open.key) if ledger.open else []
        ledger.ended.clear()  # files of the same names come again
        for path in place.iterdir():
            path.unlink()
        return messages

    return step


ATTACKED: dict[str, Callable[[Path, Damage, Any], Step]] = {
    "zmq": _detector("zmq", "zmq:tcp://127.0.0.1:*"),
    "zmq 2": _detector("zmq 2", "zmq:tcp://127.0.0.1:*?version=2"),
    "stins": _detector("stins", "stins:tcp://127.0.0.1:*"),
    "bluesky": bluesky, "tiled": tiled, "blissdata": blissdata, "pva": pva, "folder": folder_files, "hdf5": hdf5,
}  # fmt: skip


def attack_messages(first: int, number: int, only: list[str]) -> int:
    """Read messages until so many of each stream were damaged; an error or a signal ends the process where one is met badly."""
    for name in only or ATTACKED:
        random, met, began, read = np.random.default_rng(first), Counter[str](), time.perf_counter(), 0
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
            damage = Damage(random)
            for messages in _steps(name, Path(folder), damage):
                met.update(messages)
                read += 1
                if damage.count >= number:
                    break
        spent = time.perf_counter() - began
        said = ", ".join(f"{count} {what}" for what, count in met.most_common())
        print(f"{name}: {damage.count} damaged, seed {first}, {spent:.0f} s, {read} steps: {said}", flush=True)
    return 0


def _steps(name: str, folder: Path, damage: Damage) -> Iterator[list[str]]:
    """Yield in words what came of each step; check that scans begin and end once."""
    from braggshot.live.messages import Begin, Dropped, End
    from braggshot.live.sources.ledger import Ledger, ScanDefaults

    ledger, is_open = Ledger(ScanDefaults()), False
    step = ATTACKED[name](folder, damage, ledger)
    while True:
        state = damage.random.bit_generator.state
        damage.draw_share()
        with _told(name, state):
            words = []
            for message in step():
                words.append(f"dropped: {message.reason}" if isinstance(message, Dropped) else type(message).__name__)
                if isinstance(message, Begin | End):
                    assert isinstance(message, Begin) != is_open, f"{name}: a scan began or ended twice"
                    is_open = not is_open
        forget_names(ledger)
        yield words


@contextmanager
def _told(name: str, state: Any) -> Iterator[None]:
    """Tell the state of the random numbers at which a step failed."""
    try:
        yield
    except Exception:
        print(f"{name}: failed at {state['state']}", flush=True)
        raise


def forget_names(ledger: Any) -> None:
    """Let names of scans be used again: after many thousands, a free one is searched for a long time."""
    if len(ledger.used_names) > 100:
        ledger.used_names.clear()
        ledger.ended.clear()
