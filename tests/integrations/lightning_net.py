"""A network of Lightning's whose training depends on all that a checkpoint must hold."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch


class Net(L.LightningModule):
    """Dropout, momentum, a learning-rate schedule and a shuffled loader."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Tanh(), torch.nn.Linear(8, 1)
        )

    def loss(self, batch: Any) -> Any:
        x, y = batch
        return ((self.net(x)[:, 0] - y) ** 2).mean()

    def training_step(self, batch: Any, _: int) -> Any:
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", self.loss(batch), sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams["lr"], momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.7)]


def loaders() -> tuple[Any, Any]:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    data = torch.utils.data.TensorDataset(x, x.sum(1))
    load = torch.utils.data.DataLoader
    return load(data, batch_size=16, shuffle=True), load(data, batch_size=64)


def quiet(**more: Any) -> dict[str, Any]:
    return {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        **more,
    }


def train(config: Any, trial: Any) -> None:
    from daskhpo.integrations.lightning import ReportCallback

    torch.manual_seed(3)
    report = ReportCallback(trial, ["val_loss", "train_loss"])
    trainer = L.Trainer(max_epochs=trial.max_t, callbacks=[report], **quiet())
    trainer.fit(Net(config["lr"]), *loaders(), ckpt_path=report.ckpt_path)


def train_rank(config: Any, trial: Any) -> None:
    """Train as one of two ranks."""
    from lightning.pytorch.plugins.environments import TorchElasticEnvironment

    from daskhpo.integrations.lightning import ReportCallback

    torch.manual_seed(3)
    report = ReportCallback(trial, "val_loss")
    trainer = L.Trainer(
        max_epochs=trial.max_t,
        callbacks=[report],
        devices=trial.world_size,
        strategy="ddp",
        plugins=[TorchElasticEnvironment()],
        **quiet(),
    )
    trainer.fit(Net(config["lr"]), *loaders(), ckpt_path=report.ckpt_path)


def train_in_ranks(config: Any, trial: Any) -> None:
    from daskhpo.distributed import launch

    launch(train_rank, trial, 2)
