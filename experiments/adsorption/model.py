"""A crystal graph network on dense neighbour lists.

It needs no scatter and no concatenation of edge features.

References
----------
Xie & Grossman 2018, *Crystal Graph Convolutional Neural Networks*, Eq. 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from experiments.adsorption.data import Batch
from experiments.adsorption.features import KINDS, N_ATOM_FEATURES, N_EDGE_FEATURES, expand


class Convolution(nn.Module):
    """A layer in which atoms sum gated messages of their neighbours.

    It is the layer of PyG's ``CGConv``. One batch normalisation follows the sum over neighbours,
    and the residual comes last, as in ``CGConv(batch_norm=True)``. Xie & Grossman's code also
    normalises before the gate and applies a softplus after the residual. Here no linear layer is
    directly before a normalisation, where its bias would have no effect, so both halves have a
    bias.

    Parameters
    ----------
    width : number of features of an atom, a.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # Rows: gate, then core. Columns: the atom itself, its neighbour, the edge.
        self.linear = nn.Linear(2 * width + N_EDGE_FEATURES, 2 * width)
        self.norm = nn.BatchNorm1d(width)
        self.width = width

    def forward(self, x: Tensor, edges: Tensor, neighbour: Tensor) -> Tensor:
        a = self.width
        weight = self.linear.weight
        own, other, edge = weight[:, :a], weight[:, a : 2 * a], weight[:, 2 * a :]
        # One product per atom, not per edge: [E, 2a + 41] is never allocated.
        sent = linear(x, other).index_select(0, neighbour.flatten())  # (N * M, 2a)
        z = linear(edges, edge)  # (N, M, 2a)
        z += sent.view(z.shape)
        z += linear(x, own, self.linear.bias)[:, None]
        gate, core = z.chunk(2, dim=-1)
        message = (torch.sigmoid(gate) * softplus(core)).sum(1)  # (N, a)
        out: Tensor = x + self.norm(message)
        return out


class Head(nn.Module):
    """Softplus layers from mean-pooled atoms (G, a) to one number per graph (G,)."""

    def __init__(self, width: int, size: int, n_layers: int) -> None:
        super().__init__()
        widths = [width, *[size] * n_layers]
        self.hidden = nn.ModuleList(map(nn.Linear, widths, widths[1:]))
        self.out = nn.Linear(size, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        for layer in self.hidden:
            pooled = softplus(layer(pooled))
        out: Tensor = self.out(pooled).squeeze(-1)
        return out


class CrystalGraphNet(nn.Module):
    """A network that predicts the standardised energy of each graph in a batch."""

    kinds: Tensor

    def __init__(self, embedding: int, conv_layers: int, fc_size: int, fc_layers: int) -> None:
        super().__init__()
        self.register_buffer("kinds", KINDS, persistent=False)
        self.embed = nn.Linear(N_ATOM_FEATURES, embedding)
        self.convolutions = nn.ModuleList(Convolution(embedding) for _ in range(conv_layers))
        self.head = Head(embedding, fc_size, fc_layers)

    def forward(self, batch: Batch) -> Tensor:
        x = self.embed(self.kinds[batch.kind])  # (N, a)
        edges = expand(batch.distance)  # (N, M, 41)
        for convolution in self.convolutions:
            x = convolution(x, edges, batch.neighbour)
        total = x.new_zeros(len(batch.n_atoms), x.shape[1]).index_add(0, batch.graph, x)
        out: Tensor = self.head(total / batch.n_atoms[:, None])  # (G,)
        return out


def build(config: Mapping[str, Any], generator: torch.Generator | None = None) -> CrystalGraphNet:
    """Build a configuration's network; ``generator`` alone sets its initial weights.

    None: torch's global generator.
    """
    net = CrystalGraphNet(
        config["embedding"], config["conv_layers"], config["fc_size"], config["fc_layers"]
    )
    if generator is not None:
        # torch's rule for linear layers, with our generator instead of the global one.
        for module in net.modules():
            if isinstance(module, nn.Linear):
                bound = module.in_features**-0.5
                nn.init.uniform_(module.weight, -bound, bound, generator)
                nn.init.uniform_(module.bias, -bound, bound, generator)
    return net


def n_parameters(embedding: int, conv_layers: int, fc_size: int, fc_layers: int) -> int:
    """Return the number of parameters of a network of these sizes."""
    a, h = embedding, fc_size
    convolution = (2 * a + N_EDGE_FEATURES + 1) * 2 * a + 2 * a
    head = (a + 1) * h + (fc_layers - 1) * (h + 1) * h + h + 1
    return (N_ATOM_FEATURES + 1) * a + conv_layers * convolution + head
