"""The trainable of this experiment; one unit of resource is one epoch."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch

from daskhpo.core.types import Config
from daskhpo.trainable import State, Trainable
from experiments.adsorption.data import load
from experiments.adsorption.evaluate import mean_absolute_error
from experiments.adsorption.model import build


class AdsorptionNet(Trainable):
    """Training of a crystal graph network on the data of ``config["profile"]``.

    Metrics: ``val_mae`` (eV, of this epoch), ``train_loss`` (L1 on the standardised energy, mean
    over the epoch) and ``lr``. A loss that is not finite is reported as infinite.

    On a CPU, training from a checkpoint continues bit for bit. The learning rate is always the
    configuration's, not the checkpoint's, so population-based training can change it. The state of
    another trial includes its shuffling and its best epoch.
    """

    def setup(self, config: Config) -> None:
        device = self.trial.device
        if device == "cpu":
            torch.set_num_threads(1)  # each core has a worker
        init, shuffle = np.random.SeedSequence(self.trial.seed).generate_state(2)
        self.lr, self.batch_size = float(config["lr"]), int(config["batch_size"])
        self.data = load(config, device)
        self.net = build(config, torch.Generator().manual_seed(int(init))).to(device)
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=self.lr)
        self.shuffle = torch.Generator().manual_seed(int(shuffle))
        self.epoch = 0
        self.best: dict[str, Any] = {
            "val_mae": math.inf,
            "epoch": 0,
            "model": copy.deepcopy(self.net.state_dict()),
        }

    def step(self) -> dict[str, Any]:
        train_loss = self._train()
        val_mae = math.inf
        if math.isfinite(train_loss):
            val_mae = mean_absolute_error(self.net, self.data, "validation")
        if not math.isfinite(val_mae):
            train_loss = val_mae = math.inf
        self.epoch += 1
        if val_mae < self.best["val_mae"]:
            model = copy.deepcopy(self.net.state_dict())
            self.best = {"val_mae": val_mae, "epoch": self.epoch, "model": model}
        return {"val_mae": val_mae, "train_loss": train_loss, "lr": self.lr}

    def save_checkpoint(self) -> State:
        # A copy, because training may continue while the state is written.
        return copy.deepcopy(
            {
                "model": self.net.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "shuffle": self.shuffle.get_state(),
                "epoch": self.epoch,
                "best": self.best,
            }
        )

    def load_checkpoint(self, state: State) -> None:
        state = copy.deepcopy(state)  # the optimiser would train on the caller's tensors
        self.net.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr
        self.shuffle.set_state(state["shuffle"])
        self.epoch, self.best = state["epoch"], state["best"]

    def _train(self) -> float:
        """Train for one epoch; return the mean loss (not finite if any step's was not)."""
        self.net.train()
        structures = self.data.parts["train"]
        order = torch.randperm(len(structures), generator=self.shuffle)
        total = torch.zeros((), device=structures.device)
        n_seen = 0
        structures = structures[order.to(structures.device)]
        for first in range(0, len(structures), self.batch_size):
            some = structures[first : first + self.batch_size]
            if len(some) < 2:
                continue  # a last batch of one graph would distort the batch statistics
            batch = self.data.batch(some)
            loss = (self.net(batch) - batch.target).abs().mean()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            total += loss.detach() * len(some)  # stays on the device, so no step waits for it
            n_seen += len(some)
        return float(total) / n_seen
