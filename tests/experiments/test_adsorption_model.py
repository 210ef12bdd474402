from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("torch_geometric")

from torch_geometric.loader import DataLoader

from experiments.adsorption.data import load
from experiments.adsorption.model import CrystalGraphNet, build, n_parameters
from experiments.adsorption.model_pyg import PygNet, copy_weights, graphs

pytestmark = pytest.mark.slow

SIZES = {"embedding": 7, "conv_layers": 3, "fc_size": 10, "fc_layers": 2}


def pair() -> tuple[CrystalGraphNet, PygNet]:
    """The same network twice, in double precision so that only mistakes can differ."""
    dense = build(SIZES, torch.Generator().manual_seed(1))
    for convolution in dense.convolutions:
        torch.nn.init.normal_(convolution.norm.weight, generator=torch.Generator().manual_seed(2))
    pyg = PygNet(**SIZES)
    copy_weights(dense, pyg)
    return dense.double(), pyg.double()


def outputs(dense: CrystalGraphNet, pyg: PygNet) -> tuple[Tensor, Tensor, Tensor]:
    """Of both on the validation part, and its targets."""
    dataset = load({"profile": "smoke"})
    ours = dataset.batch(dataset.parts["validation"])
    (theirs,) = DataLoader(graphs(dataset, "validation"), batch_size=1000)
    return dense(as_double(ours)), pyg(theirs.apply(to_double)), ours.target.double()


def to_double(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def as_double(batch):
    from dataclasses import replace

    return replace(batch, distance=batch.distance.double())


@pytest.mark.parametrize("training", [True, False])
def test_dense_and_cgconv_give_the_same_outputs(training: bool):
    dense, pyg = pair()
    ours, theirs, _ = outputs(dense.train(training), pyg.train(training))
    assert ours.std() > 1e-3
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-11)


def test_dense_and_cgconv_give_the_same_gradients_and_running_statistics():
    dense, pyg = pair()
    ours, theirs, target = outputs(dense, pyg)
    (ours - target).abs().mean().backward()
    (theirs - target).abs().mean().backward()
    expected = {
        "embed.weight": (dense.embed.weight.grad, pyg.embed.weight.grad),
        "head": (dense.head.hidden[0].weight.grad, pyg.head.hidden[0].weight.grad),
    }
    for i, (a, b) in enumerate(zip(dense.convolutions, pyg.convolutions, strict=True)):
        gradient = torch.cat([b.lin_f.weight.grad, b.lin_s.weight.grad])
        expected[f"convolution {i}"] = (a.linear.weight.grad, gradient)
        expected[f"norm {i}"] = (a.norm.weight.grad, b.bn.weight.grad)
        expected[f"variance {i}"] = (a.norm.running_var, b.bn.running_var)
    for name, (a, b) in expected.items():
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10), name


@pytest.mark.parametrize("sizes", [(7, 3, 10, 2), (4, 1, 8, 1), (32, 4, 64, 8)])
def test_the_parameter_count_has_a_formula(sizes: tuple[int, int, int, int]):
    counted = {
        sum(p.numel() for p in net.parameters())
        for net in (CrystalGraphNet(*sizes), PygNet(*sizes))
    }
    assert counted == {n_parameters(*sizes)}


def test_first_weights_depend_on_the_generator_alone():
    def first(global_seed: int) -> Tensor:
        torch.manual_seed(global_seed)
        net = build(SIZES, torch.Generator().manual_seed(4))
        return torch.cat([p.flatten() for p in net.parameters()])

    assert torch.equal(first(0), first(1))


def test_the_order_of_graphs_in_a_batch_does_not_matter():
    dataset = load({"profile": "smoke"})
    net = build(SIZES, torch.Generator().manual_seed(1)).eval()
    forward = net(dataset.batch(torch.tensor([3, 100, 200])))
    backward = net(dataset.batch(torch.tensor([200, 100, 3])))
    assert torch.allclose(forward, backward.flip(0), atol=1e-5)
