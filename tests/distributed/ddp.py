"""A network that trains in one process or in any number of ranks, with the same global batch."""

from __future__ import annotations

from typing import Any

from daskhpo.distributed import current_trial, launch

GLOBAL_BATCH = 8


def train(config: Any, trial: Any) -> None:
    """Train in one process, or as a rank."""
    import torch
    import torch.distributed as dist

    rank, n = 0, 1
    torch.manual_seed(trial.seed)
    net: Any = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    model = net.double()
    if current_trial() is not None:
        dist.init_process_group("gloo")
        rank, n = dist.get_rank(), dist.get_world_size()
        assert (rank, n) == (trial.rank, trial.world_size)
        model = torch.nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=0.9)
    if trial.checkpoint is not None:
        net.load_state_dict(trial.checkpoint["model"])
        optimizer.load_state_dict(trial.checkpoint["optimizer"])
    try:
        for epoch in range(trial.resource, trial.max_t):
            numbers = torch.Generator().manual_seed(epoch)
            total = torch.zeros((), dtype=torch.double)
            for _ in range(config["batches"]):
                x = torch.randn(GLOBAL_BATCH, 4, generator=numbers, dtype=torch.double)
                mine = x[rank::n]  # this rank's part of the global batch
                loss = ((model(mine) - mine.sum(1, keepdim=True)) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach()
            if n > 1:
                dist.all_reduce(total)
            trial.report(
                {"loss": total / n / config["batches"], "ranks": n},
                state=lambda: {"model": net.state_dict(), "optimizer": optimizer.state_dict()},
            )
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def in_ranks(config: Any, trial: Any) -> None:
    launch(train, trial, config["ranks"])
