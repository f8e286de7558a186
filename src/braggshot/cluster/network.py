"""Give the weights of a network to every worker, once; each worker builds the network from the weights."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from typing import Any

import torch
from distributed import WorkerPlugin

from braggshot.nn import weights
from braggshot.phasing.strategies import Trained

_ASSEMBLY_LOCK = threading.Lock()  # lock that keeps several threads of one worker from building the network at the same time


class Network(WorkerPlugin):
    """Weights of a network, which are not lost when workers die.

    The weights are a plugin of dask: the scheduler keeps plugins, and sends them also to workers that start later. Data that dask
    scatters over the workers would instead be lost with the last worker that holds them.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], name: str) -> None:
        self.arrays = {key: tensor.numpy() for key, tensor in tensors.items()}
        self.metadata, self.name = metadata, name
        self.assembled_network: Trained | None = None
        digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
        for key in sorted(self.arrays):
            digest.update(self.arrays[key].tobytes())
        self.digest = digest.hexdigest()[:12]

    def assemble(self) -> Trained:
        """Return the network and its description; the first call builds the network from the weights."""
        with _ASSEMBLY_LOCK:
            if self.assembled_network is None:
                tensors = {key: torch.from_numpy(array.copy()) for key, array in self.arrays.items()}
                self.assembled_network = weights.assemble_network(tensors, self.metadata, self.name)
            return self.assembled_network
