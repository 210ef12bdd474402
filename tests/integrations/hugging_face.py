"""A toy model by Hugging Face's Trainer, and by a loop with accelerate; nothing is downloaded."""

from __future__ import annotations

import tempfile
from typing import Any

import torch


class Toy(torch.nn.Module):
    """It returns its loss first, as the Trainer expects."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Tanh(), torch.nn.Linear(8, 1)
        )

    def forward(self, x: Any, labels: Any = None) -> Any:
        found = self.net(x)[:, 0]
        return {"loss": ((found - labels) ** 2).mean(), "logits": found}


def data() -> list[dict[str, Any]]:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    return [{"x": row, "labels": row.sum()} for row in x]


def trainer_train(config: Any, trial: Any) -> None:
    from transformers import Trainer, TrainingArguments

    from daskhpo.integrations.transformers import ReportCallback

    torch.manual_seed(3)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder,
            num_train_epochs=trial.max_t,
            eval_strategy="epoch",
            save_strategy="no",
            learning_rate=config["lr"],
            per_device_train_batch_size=16,
            use_cpu=True,
            disable_tqdm=True,
            report_to=[],
            seed=3,
        )
        trainer = Trainer(Toy(), args, train_dataset=data(), eval_dataset=data())
        report = ReportCallback(trial, trainer, {"loss": "eval_loss"})
        trainer.train(resume_from_checkpoint=report.resume_from_checkpoint)
        trainer.evaluate()  # of no unit


def accelerate_train(config: Any, trial: Any) -> None:
    from accelerate import Accelerator

    from daskhpo.integrations.accelerate import load_state, save_state

    torch.manual_seed(3)
    accelerator = Accelerator(cpu=True)
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=0.9)
    loader = torch.utils.data.DataLoader(data(), batch_size=16, shuffle=True)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.7)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    load_state(accelerator, trial.checkpoint)
    for _ in range(trial.resource, trial.max_t):
        total = torch.zeros(())
        for batch in loader:
            loss = model(**batch)["loss"]
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            total += loss.detach()
        schedule.step()
        loss = accelerator.reduce(total, "mean")
        trial.report({"loss": loss}, state=lambda: save_state(accelerator))


def trainer_in_ranks(config: Any, trial: Any) -> None:
    from daskhpo.distributed import launch

    launch(trainer_train, trial, 2)


def accelerate_in_ranks(config: Any, trial: Any) -> None:
    from daskhpo.distributed import launch

    launch(accelerate_train, trial, 2)
