"""The network with a multistep learning rate, set by torch's scheduler."""

from __future__ import annotations

from typing import Any

from daskhpo.core.types import Config
from daskhpo.results.multistep import MultiStep
from daskhpo.trainable import State
from experiments.adsorption.trainable import AdsorptionNet


class ScheduledNet(AdsorptionNet):
    """A trial with multistep learning rates.

    It uses ``config["rates"]`` in turn and changes them after the epochs ``config["milestones"]``.
    """

    def setup(self, config: Config) -> None:
        rates, milestones = config["rates"], config["milestones"]
        super().setup({**config, "lr": rates[0]})
        steps = MultiStep("lr", rates, milestones, self.trial.max_t)
        self.scheduler = steps.torch_scheduler(self.optimiser)

    def step(self) -> dict[str, Any]:
        self.lr = self.optimiser.param_groups[0]["lr"]
        metrics = super().step()
        self.scheduler.step()
        return metrics

    def save_checkpoint(self) -> State:
        state = super().save_checkpoint()
        state["scheduler"] = self.scheduler.last_epoch
        return state

    def load_checkpoint(self, state: State) -> None:
        super().load_checkpoint(state)
        self.scheduler.last_epoch = state["scheduler"]
        factor = self.scheduler.lr_lambdas[0](state["scheduler"])  # type: ignore[attr-defined]
        for group in self.optimiser.param_groups:
            group["lr"] = group["initial_lr"] * factor
