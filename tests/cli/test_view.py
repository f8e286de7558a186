from __future__ import annotations

import signal
import webbrowser

import pytest

from braggshot.cli import view


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


def test_sigterm_ends_as_ctrl_c():
    before = signal.getsignal(signal.SIGTERM)
    try:
        view.end_as_by_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
