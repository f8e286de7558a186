"""Show a scan while it is measured."""

from __future__ import annotations

import shlex
import threading
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braggshot.cli.metadata import with_metadata
from braggshot.cli.options import Config, Sets, examples, layered
from braggshot.cli.reconstruct import print_verdict
from braggshot.cli.terminal import say
from braggshot.cli.view import BasePath, Host, NoBrowser, NoToken, Port, TokenFile, announce, choose_token, end_as_by_ctrl_c

if TYPE_CHECKING:
    from braggshot.live.config import LiveSettings
    from braggshot.live.session import Session
    from braggshot.live.status import Event
    from braggshot.viewer.pages import Pages
    from braggshot.volumes import Scan

commands = typer.Typer()

FIRST_PAGE = 30.0  # longest time for which a replay waits until its page is open [s]
LAST_PAGE = 60.0  # longest time for which --once waits until every open page has shown the final result [s]


@commands.command(
    epilog=examples("braggshot live folder:/data/frames -o out/", "braggshot live 'replay:scan.cxi?rate=20' -o out/ --once")
)
@with_metadata()
def live(
    source: Annotated[
        str,
        typer.Argument(
            help="folder:PATH, pva:CHANNEL, zmq:, stins: or bluesky:tcp://HOST:PORT, tiled:http://HOST:PORT, "
            "blissdata:redis://HOST:PORT, or replay:FILE?rate=HZ."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results, and of events.jsonl.")],
    like: Annotated[Path | None, typer.Option(help="Scan to take dark, flat, mask and geometry from.")] = None,
    once: Annotated[bool, typer.Option("--once", help="End after one scan, once the open pages have shown its result.")] = False,
    series: Annotated[bool, typer.Option("--series", help="All scans are of one crystal.")] = False,
    port: Port = 0,
    host: Host = "127.0.0.1",
    no_browser: NoBrowser = False,
    token_file: TokenFile = None,
    no_token: NoToken = False,
    base_path: BasePath = "/",
    config: Config = None,
    sets: Sets = None,
    *,
    stated: dict[str, Any],
) -> None:
    """Show in the browser, until Ctrl-C, how the crystal forms while it is rocked; write each finished scan as a result file."""
    from braggshot.errors import DataError
    from braggshot.live.config import resolve
    from braggshot.live.given import read_images, refuse_unfit
    from braggshot.live.session import Session
    from braggshot.live.sources.registry import open_source
    from braggshot.live.sources.replay import ReplaySource
    from braggshot.viewer.access import clean_base
    from braggshot.viewer.app import serving
    from braggshot.viewer.pages import Pages

    end_as_by_ctrl_c()
    # Dark, flat and mask belong to the frames that come, not to the file of --like.
    dark, flat, mask = (stated.get("input", {}).pop(name, None) for name in ("dark", "flat", "mask"))
    settings = resolve(layered(config, sets, {**stated, **({"live": {"series": True}} if series else {})}))
    known, settings = _read_like(like, settings)
    images = read_images(dark, flat, mask)
    refuse_unfit(images, known)
    _refuse_watched(source, output)
    base, token = clean_base(base_path), choose_token(token_file, no_token)
    # Source of the frames; it is opened before the output folder is made, so that a wrong address leaves no empty folder.
    frames = open_source(source)
    refuse_unfit(images, getattr(frames, "scan", None))  # a replay knows its frames
    session, pages = Session(output, settings, like=known, images=images, on_event=partial(_tell, output)), Pages()
    served = serving(session.status, host=host, port=port, token=token, base=base, pages=pages)
    with served as url, suppress(KeyboardInterrupt):  # Ctrl-C is how a session without an end is ended
        announce(url, not no_browser)
        if isinstance(frames, ReplaySource) and not no_browser:
            say(f"The replay begins when the page is open, or after {FIRST_PAGE:.0f} s.")
            frames.hold = pages.wait_for_first(FIRST_PAGE)
        session.run(frames, once)
        _keep_page(session, pages, once)
    if session.losses:
        raise DataError(f"{session.losses} faults lost frames or results; {output / 'events.jsonl'} says which.")


def _keep_page(session: Session, pages: Pages, once: bool) -> None:
    """Keep the page until Ctrl-C, or, after a session of one scan, until every open page shows how it ended."""
    if once:
        pages.wait_until_shown(session.status.latest()[0], LAST_PAGE)
    else:
        say("No more frames will come. The page stays until Ctrl-C.")
        threading.Event().wait()


def _read_like(like: Path | None, settings: LiveSettings) -> tuple[Scan | None, LiveSettings]:
    """Read the example scan, with the settings ``input``; return it, and settings without ``input`` for the recorded frames.

    Raises
    ------
    ConfigError : if ``input`` is given without a file that it is about; a geometry then belongs to the recorded frames.
    """
    from braggshot.errors import ConfigError
    from braggshot.io.registry import read

    if like is not None:
        return read(like, None, **settings.input), replace(settings, input={})
    stray = sorted(set(settings.input) - {"geometry"})
    if stray:
        raise ConfigError(f"input.{stray[0]} is about the file that --like names; give --like, or leave it out.")
    return None, settings


def _tell(folder: Path, event: Event) -> None:
    """Print the result of a finished scan and the command that opens it again; print trouble on stderr."""
    if event["event"] == "result":
        say(event["scan"])
        print_verdict(event["verdict"], [event["reasons"]], [str(folder / name) for name in event["files"]])
        say(f"to see it again: {shlex.join(['braggshot', 'view', str(folder / event['file'])])}")
    elif event["event"] == "trouble":
        say(f"{event['scan']}: {event['reason']}", to_stderr=True)
    elif event["event"] == "lost" and event["number"] == 1:
        say(f"lost ({event['reason']}): {ascii(event['detail'])[1:-1]}", to_stderr=True)


def _refuse_watched(source: str, output: Path) -> None:
    """Refuse to write results into the folder that is watched for new frames.

    Results in that folder would be taken for scans, and could replace the files of a scan.

    Raises
    ------
    OutputError : if the output folder is the watched folder, or lies in it.
    """
    from braggshot.errors import OutputError
    from braggshot.live.sources.registry import split

    scheme, target, _ = split(source)
    watched = Path(target).resolve()
    if scheme == "folder" and (output.resolve() == watched or watched in output.resolve().parents):
        raise OutputError(f"{output}: {target} is watched, so results there would be taken for scans; give another folder with -o.")
