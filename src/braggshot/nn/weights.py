"""Read and write trained networks as safetensors files with a model card, and find the networks that braggshot ships."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from braggshot import config
from braggshot.errors import ConfigError
from braggshot.gate import explain_damage, refuse_irregular
from braggshot.io.atomic import replacing
from braggshot.nn.autophasenn import AutoPhaseNN, AutoPhaseNN2024
from braggshot.nn.network import NetworkConfig, PhaseNetwork
from braggshot.nn.two_scale import TwoScaleConfig, TwoScaleNetwork

# Class that implements each kind of network, by the name of the kind.
KINDS: dict[str, type[nn.Module]] = {
    "flagship": PhaseNetwork,
    "two-scale": TwoScaleNetwork,
    "autophasenn": AutoPhaseNN,
    "autophasenn-2024": AutoPhaseNN2024,
}
# Class of the settings of each kind of network, by the name of the kind; the published networks AutoPhaseNN have no settings.
CONFIGS: dict[str, Any] = {"flagship": NetworkConfig, "two-scale": TwoScaleConfig}
SHIPPED = "flagship"  # name of the shipped network that is used by default
FOLDER = "weights"  # folder of the package that holds the shipped networks
HASHES = {"flagship": "94ee8ce7f9b90d355fa1a3074e5fd0435fbd96b42f1e07aec12c4917dbf41fba"}
"""Name of a shipped network -> SHA-256 of its file."""


@dataclass(frozen=True)
class Card:
    """Card of a trained network; ``braggshot info`` shows it, and every result that the network computed contains it.

    Parameters
    ----------
    name : short name
    kind : kind of network, from `KINDS`
    network : configuration of the network, empty for the published ones
    training : all settings of the training, defaults included
    seen : number of patterns that the network was trained on
    metrics : results of the network on validation patterns
    note : licence, device, and other remarks
    familiar : ranges of the numbers that describe the training patterns, see `braggshot.nn.novelty`
    """

    name: str
    kind: str = "flagship"
    network: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    seen: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    familiar: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def build_network(kind: str, settings: NetworkConfig | TwoScaleConfig | None = None) -> nn.Module:
    """Build an untrained network of a kind from `KINDS`."""
    return KINDS[kind](settings) if kind in CONFIGS else KINDS[kind]()


def kind_of(network: nn.Module) -> tuple[str, dict[str, Any]]:
    """Return the kind of a network, and the network's configuration for its model card."""
    kind = next(name for name, known in KINDS.items() if type(network) is known)
    return kind, config.dump(network.config) if isinstance(network, PhaseNetwork | TwoScaleNetwork) else {}


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata as one safetensors file; an interrupted write leaves no partial file."""
    blob = save({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, {k: json.dumps(v) for k, v in metadata.items()})
    with replacing(path, durable=True) as temporary:
        temporary.write_bytes(blob)


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and metadata of a file.

    Raises
    ------
    ConfigError : if the file is missing or is no safetensors file.
    """
    refuse_irregular(path, ConfigError)
    with explain_damage(path, "a network", ConfigError), safe_open(str(path), "pt") as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118  # not a mapping
        return tensors, {key: json.loads(value) for key, value in (stream.metadata() or {}).items()}


def save_network(path: Path, network: nn.Module, card: Card, half: bool = False) -> None:
    """Save the weights and the model card of a network; `half` stores weights in 16 bits, which hardly changes predictions."""
    # Names of the tensors to store in 16 bits; running variances are not among them, because these may overflow 16 bits.
    learned = {name for name, _ in network.named_parameters()} if half else set()
    state = {name: t.half() if name in learned else t for name, t in network.state_dict().items()}
    write(path, state, {"card": asdict(card)})


def load_network(name: str | Path = SHIPPED) -> tuple[nn.Module, Card]:
    """Load a shipped network by name, or a network from a file, in evaluation mode.

    Raises
    ------
    ConfigError : if no such network is known, the file holds something else, or the weights fit another version of the network.
    """
    return assemble_network(*read(locate(name)), name)


def assemble_network(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], name: str | Path) -> tuple[nn.Module, Card]:
    """Build a network from the tensors and the metadata of the file `name`, in evaluation mode.

    Raises
    ------
    ConfigError : if the file has no model card, its kind of network is unknown, or its weights fit another version of the network.
    """
    if "card" not in metadata:
        raise ConfigError(f"{name} is no braggshot network: it has no card; train one with braggshot train.")
    with explain_damage(name, "a network", ConfigError):
        return _assemble(tensors, metadata["card"], name)


def _assemble(tensors: Mapping[str, Tensor], described: Any, name: str | Path) -> tuple[nn.Module, Card]:
    card = Card(**described)
    if card.kind not in KINDS:
        raise ConfigError(f"{name} is a network of kind {card.kind!r}, which this version does not know: {', '.join(KINDS)}.")
    with torch.device("meta"):  # saves drawing random weights, which are replaced at once
        network = build_network(
            card.kind, config.resolve(CONFIGS[card.kind], _without_retired(card.network)) if card.kind in CONFIGS else None
        )
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise ConfigError(f"{name} was trained for another version of the {card.kind} network; train it again.") from error
    network = network.float().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's annotations lack it
    return network.eval(), card


RETIRED = {"support_threshold", "support_extent"}
"""Names of old settings that no longer have an effect; they are skipped when the model card of an older network is read."""


def _without_retired(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_retired(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name not in RETIRED
    }


def locate(name: str | Path) -> Path:
    """Return the file of a network: an existing path, or the file of a shipped network, which has to be as it was released.

    Raises
    ------
    ConfigError : if no such network is known, or the file of a shipped one was changed.
    """
    path = Path(name)
    if path.suffix == ".safetensors" or path.exists():
        return path
    shipped = resources.files("braggshot") / FOLDER / f"{name}.safetensors"
    with resources.as_file(shipped) as file:
        if file.exists():
            _refuse_changed(file, str(name))
            return file
    known = sorted(p.name.removesuffix(".safetensors") for p in (resources.files("braggshot") / FOLDER).iterdir())
    raise ConfigError(f"no network {str(name)!r}; shipped: {', '.join(known) or 'none'}, or give a .safetensors file.")


def _refuse_changed(file: Path, name: str) -> None:
    """Refuse the file of a shipped network that is not the one that was released; damaged weights give plausible crystals."""
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != HASHES.get(name):
        raise ConfigError(
            f"{file}: is not the network {name!r} that was released (SHA-256 {found[:16]}…); install braggshot again."
        )


def is_network(path: str | Path) -> bool:
    """Tell whether a path or name stands for a network: a .safetensors file, or a network that braggshot ships."""
    return Path(path).suffix == ".safetensors" or (resources.files("braggshot") / FOLDER / f"{path}.safetensors").is_file()
