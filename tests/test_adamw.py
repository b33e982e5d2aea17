import pytest
import torch

from pipeline.training.adamw import AdamW


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_it_updates_as_pytorchs_own_one_by_one(weight_decay):
    """Over some steps at changing rates; a parameter without a gradient stays, and starts when it gets one."""
    made = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(0)
        made.append([torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 4), (4,), ())])
    theirs = torch.optim.AdamW(made[0], betas=(0.8, 0.95), weight_decay=weight_decay, foreach=False)
    ours = AdamW(made[1], 1e-3, (0.8, 0.95), weight_decay)
    generator = torch.Generator().manual_seed(1)
    for number in range(20):
        theirs.param_groups[0]["lr"] = ours.learning_rate = 0.1 / (1 + number)
        for place, pair in enumerate(zip(*made, strict=True)):
            gradient = torch.randn(pair[0].shape, generator=generator)
            for parameter in pair:
                parameter.grad = None if place == 1 and number < 5 else gradient.clone()
        theirs.step()
        ours.step()
    for their, our in zip(*made, strict=True):
        torch.testing.assert_close(their, our)
        assert set(ours.state[our]) == set(theirs.state[their])
        for name, value in theirs.state[their].items():
            torch.testing.assert_close(ours.state[our][name], value)
    ours.zero_grad()
    assert all(parameter.grad is None for parameter in made[1])
