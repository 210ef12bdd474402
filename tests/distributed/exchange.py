"""A trial in ranks without torch: they add numbers up by a socket on ``MASTER_PORT``."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import time
from typing import Any

from daskhpo.distributed import current_trial, launch

GLOBAL_BATCH = 8
NUMBER = struct.Struct("<d")


class Sum:
    """A collective: every rank gives a number, and gets the sum; rank 0 adds up."""

    def __init__(self, rank: int, n: int) -> None:
        self.peers: list[socket.socket] = []
        address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        if rank == 0:
            with socket.socket() as server:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind(address)
                server.listen()
                self.peers = [server.accept()[0] for _ in range(n - 1)]
        else:
            while not self.peers:  # until rank 0 listens
                with contextlib.suppress(ConnectionRefusedError):
                    self.peers = [socket.create_connection(address)]
                time.sleep(0.005)
        self.rank = rank

    def __call__(self, number: float) -> float:
        if self.rank == 0:
            number += sum(self.receive(peer) for peer in self.peers)
        for peer in self.peers:
            peer.sendall(NUMBER.pack(number))
        return number if self.rank == 0 else self.receive(self.peers[0])

    def receive(self, peer: socket.socket) -> float:
        read = peer.recv(NUMBER.size, socket.MSG_WAITALL)
        if len(read) < NUMBER.size:
            raise ConnectionResetError("Connection closed by peer")
        return float(NUMBER.unpack(read)[0])


def train(config: Any, trial: Any) -> None:
    """Train in one process, or as a rank."""
    rank, n, add = 0, 1, float
    if current_trial() is not None:
        rank, n = trial.rank, trial.world_size
        add = Sum(rank, n)  # type: ignore[assignment]
    weight = 0.0 if trial.checkpoint is None else trial.checkpoint["weight"]
    for epoch in range(trial.resource, trial.max_t):
        numbers, loss = random.Random(epoch), 0.0
        for _ in range(config["batches"]):
            mine = [numbers.gauss(1.0, 1.0) for _ in range(GLOBAL_BATCH)][rank::n]
            errors = [weight * x - 2.0 * x for x in mine]
            loss += add(sum(error**2 for error in errors)) / GLOBAL_BATCH
            slope = add(sum(e * x for e, x in zip(errors, mine, strict=True))) / GLOBAL_BATCH
            weight -= config["lr"] * slope
        trial.report(
            {"loss": loss / config["batches"]}, state=lambda weight=weight: {"weight": weight}
        )


def in_ranks(config: Any, trial: Any) -> None:
    launch(train, trial, config["ranks"])
