"""Convolution, norm, activation and pooling one after another, the fastest way a device has for them together."""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import nn

from search_space import fused, image_block
from search_space.convolution import Convolution
from search_space.fused import Plan, affine_of, norm_act_pool, plan, watched

_NOTHING = nn.Identity()


def convolved(
    maps: torch.Tensor, conv: nn.Conv2d, norm: nn.Module, act: nn.Module = _NOTHING, pool: nn.Module = _NOTHING
) -> torch.Tensor:
    """pool(act(norm(conv(maps)))) of maps [N, C, H, W]: the modules' values but for rounding, in any memory format."""
    how = _plan(maps, norm, act, pool)
    if how is not None:
        if image_block.fits(maps, conv, how) and not watched(conv):
            return image_block.image_block(maps, conv, *affine_of(norm), how)
        if type(conv) is not Convolution or not conv.takes_any_layout(maps):
            maps = _channels_last(maps)
    return _normed(conv(maps), norm, act, pool, how)


def _channels_last(maps: torch.Tensor) -> torch.Tensor:
    """The maps in channels-last, said by their strides: else PyTorch takes a single channel for channels-first."""
    if maps.shape[1] == 1:
        return maps.reshape(maps.shape[0], *maps.shape[2:], 1).permute(0, 3, 1, 2)
    return maps.contiguous(memory_format=torch.channels_last)


def pooled(maps: torch.Tensor, pool: nn.Module) -> torch.Tensor:
    """pool(maps); the same tensor where there is no pooling."""
    if type(pool) is nn.Identity:
        return maps
    return _normed(maps, _NOTHING, _NOTHING, pool, _plan(maps, _NOTHING, _NOTHING, pool))


def run(layers: nn.Sequential, maps: torch.Tensor) -> torch.Tensor:
    """layers(maps), those together that follow each other as a convolution, norm, activation, pooling.

    Of a convolution's followers any may be missing, and a norm may stand first.
    """
    if watched(layers):
        return layers(maps)
    waiting = [layer for layer in layers if type(layer) is not nn.Identity or watched(layer)]
    while waiting:
        conv = waiting[0]
        if isinstance(conv, nn.Conv2d):
            waiting.pop(0)
            norm, act, pool = _following(waiting)
            maps = convolved(maps, conv, norm, act, pool)
        elif type(waiting[0]) in fused.NORMS:
            norm, act, pool = _following(waiting)
            maps = _normed(maps, norm, act, pool, _plan(maps, norm, act, pool))
        else:
            maps = waiting.pop(0)(maps)
    return maps


def _plan(maps: torch.Tensor, norm: nn.Module, act: nn.Module, pool: nn.Module) -> Plan | None:
    return None if watched(norm, act, pool) else plan(maps, norm, act, pool)


def _normed(maps: torch.Tensor, norm: nn.Module, act: nn.Module, pool: nn.Module, how: Plan | None) -> torch.Tensor:
    if how is None or not how.fits(maps):
        return pool(act(norm(maps)))
    return norm_act_pool(maps, *affine_of(norm), how)


def _following(waiting: list[nn.Module]) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Norm, activation and pooling from the head of the list, nothing for those that are not there."""
    return _taken(waiting, fused.NORMS), _taken(waiting, fused.ACTS), _taken(waiting, fused.POOLS)


def _taken(waiting: list[nn.Module], known: Container[type[nn.Module]]) -> nn.Module:
    return waiting.pop(0) if waiting and type(waiting[0]) in known else _NOTHING
