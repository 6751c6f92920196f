"""The optimisers are torch's own, bit for bit, and load no compiler."""

from __future__ import annotations

import pytest
import torch
from test_imports import modules_after

from distill import optimisers

CASES = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.5, "weight_decay": 0.1, "fused": True}),
    ("Adam", {"betas": (0.5, 0.99)}),
    ("AdamW", {"weight_decay": 0.3, "fused": True}),
]


def walked(kind: type[torch.optim.Optimizer], options: dict, steps: int = 5) -> list[torch.Tensor]:
    """Two tensors after some steps on a sum of cubes, with the optimiser's state saved and loaded half-way."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator).requires_grad_() for shape in ((7, 5), (3,))]
    optimiser = kind(tensors, lr=0.1, **options)
    for step in range(steps):
        if step == 2:
            state = optimiser.state_dict()
            optimiser = kind(tensors, lr=0.1, **options)
            optimiser.load_state_dict(state)
        optimiser.zero_grad(set_to_none=True)
        sum((t**3).sum() for t in tensors).backward()
        optimiser.step()
    assert all(t.is_leaf and t.requires_grad for t in tensors)
    return [t.detach() for t in tensors]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_an_optimiser_steps_as_torchs(name, options):
    ours, theirs = walked(getattr(optimisers, name), options), walked(getattr(torch.optim, name), options)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.long
def test_a_network_is_made_and_trained_without_loading_a_compiler():
    loaded = modules_after(
        "import torch, search_space; from distill.optimisers import SGD;"
        " net = search_space.build('convnet1-w8', 3, 8, 2, torch.Generator()); sgd = SGD(net.parameters(), lr=0.1);"
        " sgd.zero_grad(); net(torch.rand(4, 3, 8, 8)).sum().backward(); sgd.step()"
    )
    assert "torch" in loaded
    assert not loaded & {"torch._dynamo", "sympy"}
