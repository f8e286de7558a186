"""Everything that training does, as small as it goes; as a script, a run that may be killed or shared by processes.

python tests/nn/tiny_run.py FOLDER [STEP AT WHICH TO BE KILLED | whole]
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from braggshot.crystals.sample import CrystalSettings
from braggshot.iterative.iterate import IterativeConfig
from braggshot.nn.datasets import DataConfig
from braggshot.nn.expert_iteration import ExpertConfig
from braggshot.nn.network import NetworkConfig
from braggshot.nn.solved_patterns import SolvedConfig
from braggshot.nn.training import TrainConfig
from braggshot.train import TrainSettings, train_network

ORDINARY = CrystalSettings(shape=(16, 16, 16), oversampling=(2, 2.5), counts=(1e4, 1e5))

TINY = TrainSettings(
    data=DataConfig(crystals=(ORDINARY, replace(ORDINARY, phase_range=(3, 6)))),
    train=TrainConfig(
        steps=6,
        batch=4,
        chunk=2,
        warmup=2,
        precision="32-true",
        expert_from=2,
        validate_every=3,
        checkpoint_every=2,
        validation=4,
        validation_chunk=2,
        network=NetworkConfig(channels=(16, 16), steps=2),
        expert=ExpertConfig(IterativeConfig(recipe="4*RAAR+2*ER")),
    ),
)

WHOLE = replace(
    TINY,
    data=replace(TINY.data, crystals=(ORDINARY, replace(ORDINARY, shape=(48, 48, 48), counts=(1e5, 1e6))), crop=16),
    train=replace(TINY.train, steps=3, validation=2, fine=NetworkConfig((8, 8), 2), between=TINY.train.expert),
    solved=SolvedConfig(4, shard=2, agreement=0.0, refine=IterativeConfig(recipe="4*RAAR+2*ER")),
    whole=1,
)
"""The flagship's whole way: both scales, from nothing."""

RENDEZVOUS = ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
TWO_PROCESSES = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", *RENDEZVOUS]
"""The beginning of a command that runs this file under torchrun."""

if __name__ == "__main__":
    for report in train_network(WHOLE if sys.argv[2:] == ["whole"] else TINY, Path(sys.argv[1]), device="cpu"):
        if sys.argv[2:] == [str(report.step)]:
            os.kill(os.getpid(), signal.SIGKILL)
