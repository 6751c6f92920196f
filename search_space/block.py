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
            maps = maps.contiguous(memory_format=torch.channels_last)
    return _normed(conv(maps), norm, act, pool, how)


def pooled(maps: torch.Tensor, pool: nn.Module) -> torch.Tensor:
    """pool(maps); the same tensor where there is no pooling."""
    return (
        maps
        if type(pool) is nn.Identity
        else _normed(maps, _NOTHING, _NOTHING, pool, _plan(maps, _NOTHING, _NOTHING, pool))
    )


def run(layers: nn.Sequential, maps: torch.Tensor) -> torch.Tensor:
    """layers(maps), those together that follow each other as a convolution, norm, activation, pooling.

    Of a convolution's followers any may be missing, and a norm may stand first.
    """
    if watched(layers):
        return layers(maps)
    waiting = [layer for layer in layers if type(layer) is not nn.Identity or watched(layer)]
    while waiting:
        if isinstance(waiting[0], nn.Conv2d):
            conv = waiting.pop(0)
            maps = convolved(maps, conv, *_following(waiting))
        elif type(waiting[0]) in fused.NORMS:
            modules = _following(waiting)
            maps = _normed(maps, *modules, _plan(maps, *modules))
        else:
            maps = waiting.pop(0)(maps)
    return maps


def _plan(maps: torch.Tensor, *modules: nn.Module) -> Plan | None:
    return None if watched(*modules) else plan(maps, *modules)


def _normed(maps: torch.Tensor, norm: nn.Module, act: nn.Module, pool: nn.Module, how: Plan | None) -> torch.Tensor:
    if how is None or not how.fits(maps):
        return pool(act(norm(maps)))
    return norm_act_pool(maps, *affine_of(norm), how)


def _following(waiting: list[nn.Module]) -> list[nn.Module]:
    """Norm, activation and pooling from the head of the list, nothing for those that are not there."""
    return [_taken(waiting, known) for known in (fused.NORMS, fused.ACTS, fused.POOLS)]


def _taken(waiting: list[nn.Module], known: Container[type]) -> nn.Module:
    return waiting.pop(0) if waiting and type(waiting[0]) in known else _NOTHING
