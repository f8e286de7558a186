"""The network's weights on a worker: the client reads the file, each worker gets them once and assembles them at first use."""

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

_ASSEMBLING = threading.Lock()  # for workers with several threads


class Network(WorkerPlugin):
    """Weights that outlive any worker.

    A plugin and not scattered data: scattered data is gone with the last worker that holds it, whereas the scheduler keeps a plugin
    and sends it to workers that come later too.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], name: str) -> None:
        self.arrays = {key: tensor.numpy() for key, tensor in tensors.items()}
        self.metadata, self.name = metadata, name
        self.ready: Trained | None = None
        seen = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
        for key in sorted(self.arrays):
            seen.update(self.arrays[key].tobytes())
        self.digest = seen.hexdigest()[:12]

    def trained(self) -> Trained:
        """The network and its card."""
        with _ASSEMBLING:
            if self.ready is None:
                tensors = {key: torch.from_numpy(array.copy()) for key, array in self.arrays.items()}
                self.ready = weights.assemble_network(tensors, self.metadata, self.name)
            return self.ready
