"""Show results in the browser."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer()

# Port of the page that a command shows in the browser; 0 takes a free port.
Port = Annotated[int, typer.Option(help="Of the page; 0 takes a free one.")]
Host = Annotated[str, typer.Option(help="Address of the page; others than this machine's own need a token.")]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Only print the address.")]
Token = Annotated[str | None, typer.Option(help="Word that the page asks for; made up where the address needs one.")]


@commands.command(epilog="braggshot view out/crystal.cxi | braggshot view series/ --port 8000")
def view(
    results: Annotated[list[Path], typer.Argument(help="Result files, or the folder of a series.", metavar="RESULT...")],
    port: Port = 0,
    host: Host = "127.0.0.1",
    no_browser: NoBrowser = False,
    token: Token = None,
) -> None:
    """Show results in the browser: the surface, the crystal cut open, slices, diffraction, and a slider through a series."""
    import threading

    from braggshot.viewer import result_files
    from braggshot.viewer.access import token_for
    from braggshot.viewer.app import serve

    end_as_by_ctrl_c()
    files, rows = result_files.files_of(results)
    feed = result_files.ResultFiles(files, rows)
    threading.Thread(target=feed.tabulate, daemon=True).start()
    serve(feed, host=host, port=port, token=token_for(host, token), on_ready=lambda url: announce(url, not no_browser))


def end_as_by_ctrl_c() -> None:
    """Let SIGTERM end a command in the same way as Ctrl-C.

    Service managers and batch systems send SIGTERM, and a process in the background may ignore the signal of Ctrl-C.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def announce(url: str, opens: bool) -> None:
    """Print the address of the page, with the access token if it has one; if `opens`, also open the page in a browser.

    No browser is opened on a machine without a screen.
    """
    import webbrowser

    print(url, flush=True)
    # Without a screen a browser for terminals could take this one over.
    has_screen = sys.platform in {"darwin", "win32"} or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if opens and has_screen:
        webbrowser.open(url)
