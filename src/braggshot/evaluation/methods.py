"""Ways of phasing by name, each a `PhasingConfig`; nothing here knows a truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from braggshot.errors import ConfigError
from braggshot.iterative.iterate import IterativeConfig
from braggshot.nn.expert_iteration import SHORT
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import find_strategy

ER50 = replace(SHORT, recipe="50*ER")  # what the published work puts behind its network
_SHORTEST = replace(SHORT, recipe="7*RAAR+FLAT+3*ER", shrink_wrap=replace(SHORT.shrink_wrap, period=3))
_LONG = replace(SHORT, recipe="22*(10*RAAR+FLAT)+80*ER")
# The same iterations without anything but modulus and support, as multi-start phasing is usually done.
CLASSIC = IterativeConfig(recipe="2*(50*HIO+80*RAAR+30*ER)+DETWIN+4*(50*HIO+80*RAAR+30*ER)+100*ER")

METHODS: dict[str, dict[str, Any]] = {
    "oneshot": {"method": "oneshot"},
    "oneshot+ER50": {"method": "refine", "refine": ER50},
    "refine+10": {"method": "refine", "refine": _SHORTEST},
    "refine": {"method": "refine"},
    "refine+300": {"method": "refine", "refine": _LONG},
    "auto": {"method": "auto"},
    "iterative-1": {"method": "iterative", "starts": 1},
    "iterative-5": {"method": "iterative", "starts": 5},
    "iterative-20": {"method": "iterative", "starts": 20},
    "classic-1": {"method": "iterative", "starts": 1, "iterative": CLASSIC},
    "classic-5": {"method": "iterative", "starts": 5, "iterative": CLASSIC},
    "classic-20": {"method": "iterative", "starts": 20, "iterative": CLASSIC},
    "autophasenn": {"method": "oneshot", "hypotheses": 1, "orientations": 1},
    "autophasenn+ER50": {"method": "refine", "hypotheses": 1, "orientations": 1, "support_threshold": 0.1, "refine": ER50},
}
"""The network's methods refine its hypotheses and let held-out voxels choose, as the iterative ones do with their starts.

The published network has one answer, to the pattern as it is, whose support ends at a tenth of its largest amplitude.
"""


@dataclass(frozen=True)
class Choice:
    """What the methods have in common.

    Parameters
    ----------
    network : name or file, for all methods but the published network's
    published : file of a published network trained here; None leaves its methods out
    hypotheses : of the network
    device : "auto", "cpu" or "cuda"
    seed : of held-out voxels and starts
    """

    network: str = PhasingConfig().network
    published: str | None = None
    hypotheses: int = PhasingConfig().hypotheses
    device: Any = "auto"
    seed: int = 0


def is_published(method: str) -> bool:
    """Whether a method is the published network's."""
    return method.startswith("autophasenn")


def network_of(method: str, choice: Choice) -> str | None:
    """Name or file of the network that a method uses, None for iterative phasing.

    Raises
    ------
    ConfigError : if it needs a published network and none was given.
    """
    if not find_strategy(METHODS[method]["method"]).needs_network:
        return None
    if not is_published(method):
        return choice.network
    if choice.published is None:
        raise ConfigError(f"{method} needs a network of that kind; train one and give its file with --published.")
    return choice.published


def phasing_of(method: str, choice: Choice, coherent: bool) -> PhasingConfig:
    """The settings of a method.

    Raises
    ------
    ConfigError : if there is no such method, or it needs a network that was not given.
    """
    if method not in METHODS:
        raise ConfigError(f"no method {method!r}; known: {', '.join(METHODS)}.")
    common = {
        "network": network_of(method, choice) or choice.network,
        "hypotheses": choice.hypotheses,
        "device": choice.device,
        "seed": choice.seed,
        "partial_coherence": "off" if coherent else "auto",
    }
    return PhasingConfig(**(common | METHODS[method]))


def defaults(choice: Choice) -> tuple[str, ...]:
    """Every method for which the networks are there."""
    return tuple(method for method in METHODS if choice.published is not None or not is_published(method))
