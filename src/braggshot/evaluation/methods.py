"""Name the methods of phasing that are compared, each with its `PhasingConfig`; none of them uses the true crystal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from braggshot.errors import ConfigError
from braggshot.iterative.iterate import IterativeConfig
from braggshot.nn.expert_iteration import SHORT
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import find_strategy

# Refinement by 50 iterations of error reduction, as published for the network AutoPhaseNN.
ER50 = replace(SHORT, recipe="50*ER")
# Settings with which iterative phasing refines a network's prediction: 10 iterations (_SHORTEST), or 300 (_LONG).
_SHORTEST = replace(SHORT, recipe="7*RAAR+FLAT+3*ER", shrink_wrap=replace(SHORT.shrink_wrap, period=3))
_LONG = replace(SHORT, recipe="22*(10*RAAR+FLAT)+80*ER")
# Settings of common phasing from random starts: only modulus and support constraints, and as many iterations as the default recipe.
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
"""Settings of each method of phasing, by name.

The method "oneshot" takes the objects that a network predicts as they are; "refine" continues them by iterative phasing. Methods
called "iterative" or "classic" phase from random starts, and "auto" is the default of braggshot. Of the results of a method, the
one with the lowest misfit on the held-out voxels counts. The published network AutoPhaseNN makes one prediction, from the pattern
in its measured orientation. If this prediction is refined, the first support holds the voxels above a tenth of the largest
amplitude.
"""


@dataclass(frozen=True)
class Choice:
    """Options of a comparison, the same for all its methods.

    Parameters
    ----------
    network : name or file of the network, for all methods but those with the published network AutoPhaseNN
    published : file of AutoPhaseNN, trained with braggshot; None leaves out the methods that use AutoPhaseNN
    hypotheses : number of predicted objects that a method with a network keeps for each pattern
    device : "auto", "cpu" or "cuda"
    seed : seed of the choice of held-out voxels and of the random starts
    """

    network: str = PhasingConfig().network
    published: str | None = None
    hypotheses: int = PhasingConfig().hypotheses
    device: Any = "auto"
    seed: int = 0


def is_published(method: str) -> bool:
    """Tell whether a method uses the published network AutoPhaseNN."""
    return method.startswith("autophasenn")


def network_of(method: str, choice: Choice) -> str | None:
    """Return the name or file of the network that a method uses; None for iterative phasing.

    Raises
    ------
    ConfigError : if the method needs the published network AutoPhaseNN and its file is not given.
    """
    if not find_strategy(METHODS[method]["method"]).needs_network:
        return None
    if not is_published(method):
        return choice.network
    if choice.published is None:
        raise ConfigError(f"{method} needs a network of that kind; train one and give its file with --published.")
    return choice.published


def phasing_of(method: str, choice: Choice, coherent: bool) -> PhasingConfig:
    """Return the phasing settings of a method; if the beam is not `coherent`, phasing may fit a point spread.

    Raises
    ------
    ConfigError : if there is no such method, or the file of its network is not given.
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


def default_methods(choice: Choice) -> tuple[str, ...]:
    """List the methods that can run; those that use AutoPhaseNN are left out if no file of that network is given."""
    return tuple(method for method in METHODS if choice.published is not None or not is_published(method))
