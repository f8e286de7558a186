"""Show results in the browser."""

from __future__ import annotations

import atexit
import html
import os
import signal
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from braggshot.cli.options import examples
from braggshot.cli.terminal import say

commands = typer.Typer()

# Port of the page that a command shows in the browser; 0 takes a free port.
Port = Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.")]
Host = Annotated[str, typer.Option(help="Address of the page.")]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Only print the address.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        help="File that holds the word that the page asks for; made if it is not there. "
        "Without it: the environment variable BRAGGSHOT_TOKEN, or a new word."
    ),
]
NoToken = Annotated[bool, typer.Option("--no-token", help="Ask for no word; only on this machine's own address.")]
BasePath = Annotated[
    str, typer.Option(help="Path of the page behind a proxy, such as /user/me/proxy/8050/; the proxy may keep or remove it.")
]


@commands.command(epilog=examples("braggshot view out/crystal.cxi", "braggshot view series/ --port 8000", "braggshot view scans/"))
def view(
    results: Annotated[
        list[Path], typer.Argument(help="Result files, the folder of a series, or a folder of scans.", metavar="RESULT...")
    ],
    port: Port = 0,
    host: Host = "127.0.0.1",
    no_browser: NoBrowser = False,
    token_file: TokenFile = None,
    no_token: NoToken = False,
    base_path: BasePath = "/",
) -> None:
    """Show results in the browser, and phase the scans of a folder from there."""
    import threading

    from braggshot.viewer import result_files
    from braggshot.viewer.access import clean_base
    from braggshot.viewer.app import serve
    from braggshot.viewer.bench import bench_of

    end_as_by_ctrl_c()
    token, base = choose_token(token_file, no_token), clean_base(base_path)
    where: Any = {"host": host, "port": port, "token": token, "base": base}
    bench = bench_of(results)
    if bench is not None:
        threading.Thread(target=bench.watch, daemon=True).start()
        with closing(bench):
            serve(bench, **where, bench=bench, on_ready=lambda url: announce(url, not no_browser))
        return
    files, rows = result_files.files_of(results)
    feed = result_files.ResultFiles(files, rows)
    threading.Thread(target=feed.tabulate, daemon=True).start()
    serve(feed, **where, on_ready=lambda url: announce(url, not no_browser))


def choose_token(file: Path | None, none: bool) -> str | None:
    """Return the access token of a page; None if the user wants none.

    Raises
    ------
    ConfigError : if the user wants a token and none, or the token cannot be used.
    """
    from braggshot.errors import ConfigError
    from braggshot.viewer.access import find_token

    if none and file is not None:
        raise ConfigError("--token-file and --no-token exclude each other; give one of them.")
    return None if none else find_token(file)


def end_as_by_ctrl_c() -> None:
    """Let SIGTERM end a command in the same way as Ctrl-C.

    Service managers and batch systems send SIGTERM, and a process in the background may ignore the signal of Ctrl-C.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def announce(url: str, opens: bool) -> None:
    """Print the address of the page, with the access token if it has one; if `opens`, also open the page in a browser.

    No browser is opened on a machine without a screen. The browser is given a file that only this user can read and that leads to
    the address, because every user of the machine can read the arguments of a program.
    """
    import webbrowser

    say(url)
    # Without a screen a browser for terminals could take this one over.
    has_screen = sys.platform in {"darwin", "win32"} or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if opens and has_screen:
        webbrowser.open(_write_redirect(url).as_uri())


def _write_redirect(url: str) -> Path:
    """Write a page that leads to `url`, into a file that only this user can read; it is removed when the program ends."""
    descriptor, name = tempfile.mkstemp(suffix=".html", prefix="braggshot-")
    place = Path(name)
    atexit.register(place.unlink, missing_ok=True)
    link = html.escape(url)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(f'<meta http-equiv="refresh" content="0; url={link}"><a href="{link}">braggshot</a>\n')
    return place
