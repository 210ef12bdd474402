"""The same network with torch-geometric's ``CGConv``, for tests and timings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import CGConv, global_mean_pool

from experiments.adsorption.data import Dataset
from experiments.adsorption.features import KINDS, N_ATOM_FEATURES, N_EDGE_FEATURES, expand
from experiments.adsorption.model import Convolution, CrystalGraphNet, Head


class PygNet(nn.Module):
    """A network that predicts each graph's standardised energy in a PyG batch."""

    kinds: Tensor

    def __init__(self, embedding: int, conv_layers: int, fc_size: int, fc_layers: int) -> None:
        super().__init__()
        self.register_buffer("kinds", KINDS, persistent=False)
        self.embed = nn.Linear(N_ATOM_FEATURES, embedding)
        self.convolutions = nn.ModuleList(
            CGConv(embedding, dim=N_EDGE_FEATURES, batch_norm=True) for _ in range(conv_layers)
        )
        self.head = Head(embedding, fc_size, fc_layers)

    def forward(self, data: Data) -> Tensor:
        x = self.embed(self.kinds[data.kind])  # (N, a)
        edges = expand(data.distance)  # (E, 41)
        for convolution in self.convolutions:
            x = convolution(x, data.edge_index, edges)
        out: Tensor = self.head(global_mean_pool(x, data.batch, data.num_graphs))  # (G,)
        return out


def graphs(data: Dataset, part: str) -> list[Data]:
    """Return a part's structures as torch-geometric objects, for its ``DataLoader``."""
    objects = []
    for structure in data.parts[part]:
        batch = data.batch(structure[None])
        centre = torch.arange(len(batch.kind), device=batch.kind.device).repeat_interleave(
            batch.neighbour.shape[1]
        )
        objects.append(
            Data(
                kind=batch.kind,
                edge_index=torch.stack([batch.neighbour.flatten(), centre]),  # from, to: (2, E)
                distance=batch.distance.flatten(),  # (E,)
                target=batch.target,
                num_nodes=len(batch.kind),
            )
        )
    return objects


@torch.no_grad()
def copy_weights(source: CrystalGraphNet, target: PygNet) -> None:
    """Copy weights and running statistics from ``source`` to ``target``."""
    target.embed.load_state_dict(source.embed.state_dict())
    target.head.load_state_dict(source.head.state_dict())
    for dense, pyg in zip(source.convolutions, target.convolutions, strict=True):
        assert isinstance(dense, Convolution)
        assert isinstance(pyg, CGConv)
        # CGConv concatenates in the same order: the atom itself, its neighbour, the edge.
        for name in ("weight", "bias"):
            gate, core = getattr(dense.linear, name).chunk(2)
            getattr(pyg.lin_f, name).copy_(gate)
            getattr(pyg.lin_s, name).copy_(core)
        pyg.bn.load_state_dict(dense.norm.state_dict())
