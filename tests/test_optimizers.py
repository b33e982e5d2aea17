"""Optimisers without PyTorch's compiler. That training does not import it is in test_train.py."""

import pytest
import torch

from pipeline.training.optimizers import without_compiler

KINDS = [
    (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1, "fused": True}),
    (torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, "fused": True}),
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_updates_are_those_of_pytorch_to_the_bit(kind, options):
    weights = []
    for of in (kind, without_compiler(kind)):
        torch.manual_seed(0)
        network = torch.nn.Linear(5, 3)
        optimizer = of(network.parameters(), **options)
        for _ in range(5):
            optimizer.zero_grad(set_to_none=True)
            network(torch.randn(7, 5)).square().mean().backward()
            optimizer.step()
        weights.append([*network.parameters(), *(v for p in network.parameters() for v in optimizer.state[p].values())])
        assert isinstance(optimizer, kind)
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def test_a_step_is_no_part_of_the_graph_of_gradients():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = without_compiler(torch.optim.SGD)([weight], lr=0.1)
    with torch.no_grad():
        assert float(optimizer.step(lambda: weight.square().sum())) == 3
    weight.sum().backward()
    optimizer.step()
    assert weight.requires_grad
    assert weight.grad_fn is None
    torch.testing.assert_close(weight.detach(), torch.full((3,), 0.9))
