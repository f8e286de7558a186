"""Say how a page asks what is new; know which pages are open, and which version of the contents each of them has shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from braggshot.snapshot import Snapshot

# Times after which a page asks again for changes [ms]: when a picture is due, while a scan is measured, and when nothing runs.
_ASK_SOON, _ASK_WHILE_MEASURING, _ASK_IDLE = 50, 250, 500
FIRST_DRAWING = 5.0  # longest time for which the first page may draw before a replay begins [s]
OPEN = 10.0  # time after its last question for which a page counts as open [s]; drawing keeps a slow browser from asking
# Script that asks whether the contents changed, tells what the page shows in full, and says when there is no answer. It bypasses
# Dash, with which an unchanged answer costs 20 ms in the browser.
ASK = """(_, known) => {
    const page = Math.random().toString(36).slice(2);
    let work = "", failures = 0, sent = -1, at = 0;
    // Dash drops the answer to a request that the next one overtakes, so the next one waits for the answer.
    const isAnswered = () => dash_component_api.getLayout("answered").props.data >= sent || Date.now() - at > 5000;
    const ask = async () => {
        let now = {moment: known, pause: 1000, work};  // kept if there is no answer: the program may come back
        try {
            const seen = dash_component_api.getLayout("seen").props.data;
            const told = new URLSearchParams({page, number: known.number, ...seen});
            const answer = await fetch(`moment?${told}`, {cache: "no-store", signal: AbortSignal.timeout(10000)});
            document.body.classList.toggle("refused", answer.status === 401);
            now = await answer.json();
            failures = 0;
        } catch {
            failures += 1;
        }
        document.body.classList.toggle("unanswered", failures > 1);  // one failure may be chance
        if (JSON.stringify(now.moment) !== JSON.stringify(known) && isAnswered()) {
            [known, sent, at] = [now.moment, now.moment.number, Date.now()];
            dash_clientside.set_props("moment", {data: known});
        }
        if (now.work !== work) dash_clientside.set_props("work", {children: now.work});
        work = now.work;
        setTimeout(ask, now.pause);
    };
    ask();
}"""


def pause(snapshot: Snapshot) -> int:
    """Return the time until a page asks again [ms]: short while a complete scan waits for its picture, long when nothing runs."""
    if snapshot.state == "phasing" and not any(contents.frames == snapshot.received for contents in snapshot.previews):
        return _ASK_SOON
    return _ASK_WHILE_MEASURING if snapshot.state in {"measuring", "phasing"} else _ASK_IDLE


class Pages:
    """A record of the open pages, and of the newest version of the contents that each has shown; any thread may use it.

    A page asks again and again what is new, and tells what it shows. A page that has not asked for `OPEN` seconds is closed.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._asked: dict[str, float] = {}  # time of the last question of each open page, on the monotonic clock [s]
        self._shown: dict[str, int] = {}  # newest version that each open page has shown in full; -1 if it has shown none

    def note(self, page: str, shown: int | None) -> None:
        """Note that a page has asked, and the version of the contents that it shows in full; None while it draws."""
        with self._condition:
            self._asked[page] = time.monotonic()
            self._shown[page] = max(self._shown.get(page, -1), -1 if shown is None else shown)
            self._forget_closed()
            self._condition.notify_all()

    def wait_for_first(self, longest: float) -> Iterator[None]:
        """Wait until a page is open, at most `longest` [s], then until it shows what there is; a slow browser takes seconds.

        The iterator yields None every 0.2 s, and ends when the waiting ends.
        """

        def is_drawn() -> bool:
            return any(shown >= 0 for shown in self._shown.values())

        for is_met, seconds in ((lambda: self._asked, longest), (is_drawn, FIRST_DRAWING)):
            end = time.monotonic() + seconds
            while not self._wait(is_met, min(0.2, end - time.monotonic())):
                if time.monotonic() >= end:
                    return
                yield None

    def _wait(self, is_met: Callable[[], object], longest: float) -> bool:
        """Wait at most `longest` [s] until a condition is met, and tell whether it is."""
        with self._condition:
            return bool(self._condition.wait_for(is_met, longest))

    def wait_until_shown(self, number: int, longest: float) -> None:
        """Wait until every open page has shown version `number` of the contents or a newer one, at most `longest` [s]."""
        end = time.monotonic() + longest
        with self._condition:
            self._forget_closed()
            while any(shown < number for shown in self._shown.values()) and time.monotonic() < end:
                self._condition.wait(0.2)
                self._forget_closed()

    def _forget_closed(self) -> None:
        """Forget the pages that have been closed."""
        oldest = time.monotonic() - OPEN
        self._asked = {page: asked for page, asked in self._asked.items() if asked > oldest}
        self._shown = {page: self._shown[page] for page in self._asked}
