"""Show a scan while it is measured."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from braggshot.cli.options import Config, Sets
from braggshot.cli.view import Host, NoBrowser, Port, Token, announce, end_as_by_ctrl_c

commands = typer.Typer()


@commands.command(epilog="braggshot live folder:/data/frames -o out/ | braggshot live 'replay:scan.cxi?rate=20' -o out/ --once")
def live(
    source: Annotated[str, typer.Argument(help="folder:PATH, pva:CHANNEL, zmq:tcp://HOST:PORT or replay:FILE?rate=HZ.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results, and of events.jsonl.")],
    like: Annotated[Path | None, typer.Option(help="Scan to take dark, flat, mask and geometry from.")] = None,
    once: Annotated[bool, typer.Option("--once", help="End after one scan.")] = False,
    series: Annotated[bool, typer.Option("--series", help="All scans are of one crystal.")] = False,
    port: Port = 0,
    host: Host = "127.0.0.1",
    no_browser: NoBrowser = False,
    token: Token = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Show in the browser how the crystal forms while it is rocked; write each finished scan as a result file."""
    from braggshot import config as configuration
    from braggshot.io.registry import read
    from braggshot.live.session import Session, resolve
    from braggshot.live.sources.registry import open_source
    from braggshot.viewer.access import token_for
    from braggshot.viewer.app import serving

    end_as_by_ctrl_c()
    layers = [configuration.read_toml(config)] if config else []
    flags = {"live": {"series": True}} if series else {}
    settings = resolve(configuration.merge(*layers, flags, configuration.parse_assignments(sets or [])))
    known = None if like is None else read(like, None, **settings.input)
    _refuse_watched(source, output)
    # Source of the frames; it is opened before the output folder is made, so that a wrong address leaves no empty folder.
    frames = open_source(source)
    session = Session(output, settings, like=known)
    with serving(session.status, host=host, port=port, token=token_for(host, token)) as url:
        announce(url, not no_browser)
        with suppress(KeyboardInterrupt):  # how a session without an end is ended
            session.run(frames, once)


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
