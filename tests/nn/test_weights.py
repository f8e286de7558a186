"""Shipped networks are those that were released."""

from importlib import resources

import pytest

from braggshot.errors import ConfigError
from braggshot.nn import weights


def test_every_shipped_network_is_as_it_was_released():
    files = [file.name for file in (resources.files("braggshot") / weights.FOLDER).iterdir()]
    assert sorted(files) == sorted(f"{name}.safetensors" for name in weights.HASHES)
    for name in weights.HASHES:
        assert weights.locate(name).exists()


def test_a_changed_file_of_a_shipped_network_is_refused_in_a_line(monkeypatch, tmp_path):
    folder = tmp_path / weights.FOLDER
    folder.mkdir()
    content = bytearray(weights.locate("flagship").read_bytes())
    content[-1000] ^= 1
    (folder / "flagship.safetensors").write_bytes(content)
    monkeypatch.setattr(weights.resources, "files", lambda _: tmp_path)
    with pytest.raises(ConfigError, match=r"is not the network 'flagship' that was released .*; install braggshot again\.$"):
        weights.load_network()
