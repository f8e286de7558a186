"""Adapt a network to one pattern: a copy of the network learns from the pattern before it predicts the crystal.

The loss is that of training, with expert iteration: a few iterations of phasing refine the network's own prediction, and the
network learns from the refined object. The better the refined object explains the counts, the larger is its weight in the loss.
Neither labels nor the voxels that phasing holds out to judge its results are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from braggshot.iterative.spacing import resample
from braggshot.nn.augmentation import draw_balls
from braggshot.nn.losses import LossConfig
from braggshot.nn.network import Measurement, random_start
from braggshot.nn.resampling import sampling
from braggshot.nn.training import TrainConfig, objective
from braggshot.nn.two_scale import coarse_network


@dataclass(frozen=True)
class AdaptConfig:
    """Settings of the adaptation to one pattern.

    Parameters
    ----------
    steps : number of steps of the optimiser; 0 leaves the network as it is
    starts : number of random starts of the network per step; each start has its own choice of hidden voxels
    learning_rate : learning rate of AdamW, falling linearly to zero [1]
    hidden : share of the voxels that are hidden from network and loss in a step [1]
    loss : choice and weights of the terms of the loss
    """

    steps: int = 0
    starts: int = 4
    learning_rate: float = 1e-4
    hidden: float = 0.05
    loss: LossConfig = field(default_factory=LossConfig)


def adapt_network(
    network: nn.Module, counts: Tensor, valid: Tensor, oversampling: Sequence[float] | None, config: AdaptConfig, seed: int = 0
) -> nn.Module:
    """Return a copy of a network that has learned from one pattern; the network itself is not changed.

    Parameters
    ----------
    counts, valid : (z, y, x), centred at N // 2; voxels to be held out must be marked not valid
    oversampling : measured oversampling per axis; None keeps the sampling of the pattern
    seed : seed of the random starts and of the choice of the voxels that each step hides
    """
    device = next(network.parameters()).device
    learner = deepcopy(network).train()
    # Part of the network that learns: of a two-scale network only the low-resolution part, else the whole network.
    pupil = coarse_network(learner).requires_grad_(True)
    optimiser = torch.optim.AdamW(pupil.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    how = sampling(counts.shape, oversampling)
    shown, trusted = (t.to(device).expand(config.starts, -1, -1, -1) for t in resample(counts.float(), valid, how))
    settings = TrainConfig(loss=config.loss, seed=seed)
    for step in range(config.steps):
        generator = Generator(device).manual_seed(seed + step)
        data = Measurement.of(shown, trusted & ~draw_balls(generator, trusted.shape, config.hidden))
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * (1 - step / config.steps)
        with torch.enable_grad():
            loss, _ = objective(pupil, data, random_start(data, generator), settings, step)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's annotations lack it
        nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    return learner.eval()
