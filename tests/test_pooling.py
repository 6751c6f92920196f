"""The fast average pooling against torch's, with first and second derivatives."""

import pytest
import torch
import torch.nn.functional as F

from search_space.pooling import AveragePool2x2


@pytest.mark.parametrize("size", [2, 8, 9])
def test_equals_torch(size):
    maps = torch.randn(3, 4, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    maps.requires_grad_(True)
    ours, theirs = AveragePool2x2()(maps), F.avg_pool2d(maps, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-14)
    gradients = [torch.autograd.grad((y**3).sum(), maps, create_graph=True)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-13, atol=1e-13)
    seconds = [torch.autograd.grad((g**2).sum(), maps)[0] for g in gradients]
    torch.testing.assert_close(*seconds, rtol=1e-13, atol=1e-13)


def test_second_derivatives_numerically():
    maps = torch.randn(1, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradgradcheck(AveragePool2x2(), (maps,))


def test_other_memory_formats_and_types_give_the_same():
    maps = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    plain = AveragePool2x2()(maps)
    torch.testing.assert_close(AveragePool2x2()(maps.contiguous(memory_format=torch.channels_last)), plain)
    assert AveragePool2x2()(maps.bfloat16()).dtype == torch.bfloat16
