from __future__ import annotations

import signal
import webbrowser
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from braggshot.cli import view
from braggshot.errors import ConfigError


@pytest.mark.parametrize(("screen", "opens", "opened"), [(":0", True, 1), (":0", False, 0), ("", True, 0)])
def test_the_address_is_printed_and_opened_where_there_is_a_screen(monkeypatch, capsys, screen, opens, opened):
    asked = []
    monkeypatch.setattr(view.sys, "platform", "linux")
    monkeypatch.setattr(webbrowser, "open", asked.append)
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    view.announce("http://127.0.0.1:1/?token=x", opens)
    assert capsys.readouterr().out == "http://127.0.0.1:1/?token=x\n"
    assert len(asked) == opened
    for address in asked:  # every user of the machine sees the arguments of a browser
        assert "token" not in address
        file = Path(url2pathname(urlsplit(address).path))
        assert file.stat().st_mode & 0o077 == 0
        assert "http://127.0.0.1:1/?token=x" in file.read_text()


def test_a_token_comes_from_a_file_or_there_is_none(tmp_path):
    file = tmp_path / "token"
    assert view.choose_token(file, False) == file.read_text().strip()
    assert view.choose_token(None, True) is None
    assert len(view.choose_token(None, False)) >= 32
    with pytest.raises(ConfigError, match="exclude each other"):
        view.choose_token(file, True)


def test_sigterm_ends_as_ctrl_c():
    before = signal.getsignal(signal.SIGTERM)
    try:
        view.end_as_by_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
