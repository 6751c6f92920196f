"""Tiny problems for contract tests: a few classes of small images, a narrow network, a handful of steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from distill.expert_file import Trajectory
from distill.experts import ExpertConfig, train_expert
from distill.image_set import ImageSet
from distill.methods import METHODS
from distill.problem import Problem
from distill.recipes import recipe
from distill.spaces import NormalizedSpace, PixelSpace
from fyi_bench import rng

CLASSES, PER_CLASS, SIZE = 3, 12, 8
SPACE = NormalizedSpace((0.5, 0.45, 0.4), (0.25, 0.25, 0.3))
MODEL = "convnet-w8-d2"


def real_set(classes: int = CLASSES, per_class: int = PER_CLASS, size: int = SIZE) -> ImageSet:
    """uint8 images whose classes differ in colour and in a bright side, so that there is something to learn."""
    g = rng.stream(7, "tiny real", classes, per_class, size)
    noise = torch.randint(0, 90, (classes * per_class, 3, size, size), generator=g)
    labels = torch.arange(classes).repeat_interleave(per_class)
    colour = torch.nn.functional.one_hot(labels % 3, 3).view(-1, 3, 1, 1) * 100
    ramp = torch.linspace(0, 60, size).long().view(1, 1, 1, -1) * (labels % 2).view(-1, 1, 1, 1)
    return ImageSet((noise + colour + ramp).to(torch.uint8), labels, PixelSpace(), classes)


def problem(ipc: int = 2, seed: int = 0, real: ImageSet | None = None, **changes: Any) -> Problem:
    """A problem over the tiny real set in normalised space."""
    given = {"real": real if real is not None else real_set(), "space": SPACE, "ipc": ipc, "seed": seed}
    made = Problem(**{**given, **changes})
    return made if made.experts else replace(made, experts=lambda: _kept_experts(made))


_EXPERTS: dict[tuple[Any, ...], list[Trajectory]] = {}


def _kept_experts(of: Problem) -> list[Trajectory]:
    """The same ones for all problems of the same images: training them takes longer than most tests."""
    key = (of.real.digest, str(of.space.describe()), of.classes, of.dtype, of.device, of.precision)
    if key not in _EXPERTS:
        _EXPERTS[key] = experts(of)
    return _EXPERTS[key]


def experts(of: Problem, count: int = 2) -> list[Trajectory]:
    """Expert trajectories of a problem's images, a few dozen steps each."""
    values = ExpertConfig(
        model=MODEL, epochs=4, lr=0.05, momentum=0.0, wd=0.0, batch=8, augment="flip_scale", dispatcher="dsa",
        storage="fp32",
    )  # fmt: skip
    return [train_expert(replace(of, seed=k, experts=None), values).trajectory for k in range(count)]


# what makes each method's recipe small; further methods add theirs
SMALL: dict[str, dict[str, Any]] = {
    "dc": {"outer_loop": 2, "inner_loop": 1, "batch_train": 4},
    "dsa": {"outer_loop": 2, "inner_loop": 1, "batch_train": 4},
    **{name: {"outer_loop": 3, "inner_loop": 1, "batch_train": 4, "outer_warmup": 2} for name in ("dcc", "dsac")},
    "mtt": {"syn_steps": 3, "batch_syn": 4, "expert_epochs": 1, "max_start_epoch": 2, "lr_img": 10.0},
    "haba": {
        "syn_steps": 3,
        "batch_syn": 4,
        "expert_epochs": 1,
        "max_start_epoch": 2,
        "lr_img": 10.0,
        "n_style": 3,
        "style_init": "default",
    },
    "rtp": {"inner_steps": 3, "batch_addresses": 2, "batch_target": 4, "bases": 10, "augment": "flip_rotate"},
    "speed": {
        "syn_steps": 3,
        "batch_syn": 4,
        "expert_epochs": 1,
        "max_start_epoch": 2,
        "images_per_class": 3,
        "tokens": 4,
        "token_dim": 4,
        "decoder_heads": 2,
        "top_k": 6,
    },
    "ftd": {"syn_steps": 3, "batch_syn": 4, "expert_epochs": 1, "max_start_epoch": 2, "lr_img": 10.0},
    "idc": {"inner_loop": 2, "n_data": 12, "batch_train": 6, "lr_img": 0.01},
    "dream": {"inner_loop": 3, "interval": 2, "n_data": 12, "batch_train": 6, "lr_img": 0.01},
    "m3d": {"lr_img": 0.5},
    "kip": {"batch_target": 12, "lr_img": 0.04},
    "frepo": {
        "model": "freponet-w8-d2-batch",
        "batch_target": 12,
        "net_num": 2,
        "max_online_updates": 2,
        "lr_img": 0.05,
        "zca": False,
    },
    "dd": {"batch_target": 12, "distill_epochs": 4, "lr_img": 0.01},
    "idm": {
        "lr_img": 0.05,
        "batch_train": 6,
        "net_num": 2,
        "net_start": 1,
        "net_generate_interval": 2,
        "meter_reset": 3,
        "model_train_steps": 2,
    },
    "cafe": {"max_matches": 2, "max_epochs": 1, "batch_train": 4},
    "cafe-dsa": {"max_matches": 2, "max_epochs": 1, "batch_train": 4},
    **{name: {"feature_steps": 3, "batch_train": 6} for name in ("herding", "kcenter", "kmeans")},
}


def config(method: str, iterations: int = 4, ipc: int = 2, **changes: Any) -> Any:
    """The method's quick recipe, made tiny."""
    values = dict(recipe(method, "cifar10", ipc, "quick").values)
    small = {"model": MODEL, "iterations": iterations if values["iterations"] else 0, "batch_real": 6}
    values |= {**small, **SMALL.get(method, {}), **changes}
    return METHODS.get(method).Config.from_values(values)


# the space of each kind, for methods that do not work in normalised space
SPACES = {"pixel": PixelSpace()}

# DREAM's nearest image of a cluster of two is either one, as the last digit has it, and digits differ between devices
# and processors: clusters large enough to have no such ties, a start without clusters, made once an iteration
UNTIED = {"dream": {"representatives_per_cluster": 3, "init": "mix", "interval": 3}}

# methods whose logged loss must fall over 30 tiny iterations, with the changes that make it visible
LOSS_FALLS: dict[str, dict[str, Any]] = {
    "haba": {
        "max_start_epoch": 1,
        "augment": "none",
        "lr_img": 600.0,
        "lr_style": 30.0,
        "lr_lr": 1e-3,
        "club_weight": 0.0,
    },
    "rtp": {"lr_img": 5.0, "augment": "none", "lr_net": 0.1, "batch_target": 12, "batch_addresses": 4},
    "speed": {
        "max_start_epoch": 1,
        "augment": "none",
        "l1_weight": 0.0,
        "lr_img": 3.0,
        "lr_tokens": 0.3,
        "lr_lr": 0.0,
        "lr_teacher": 0.3,
        "batch_syn": 0,
        "syn_steps": 4,
    },
    "dc": {"lr_img": 1.0, "batch_real": 12, "init": "noise"},
    "dsa": {"lr_img": 1.0, "batch_real": 12, "init": "noise"},
    # one phase each: the loss is of another size in the other
    "dcc": {"lr_img": 3.0, "batch_real": 12, "init": "noise", "outer_warmup": 0, "outer_loop": 1},
    "dsac": {"lr_img": 1.0, "batch_real": 12, "init": "noise", "inner_warmup": 9, "outer_warmup": 99},
    "dm": {"lr_img": 1.0, "batch_real": 12, "init": "noise"},
    "plain": {"lr_img": 1.0, "batch_real": 12, "init": "noise"},
    "idc": {"lr_img": 0.2, "batch_real": 12, "init": "noise", "aug_match": "none"},
    "dream": {
        "lr_img": 0.2,
        "batch_real": 12,
        "init": "noise",
        "aug_match": "none",
        "representatives_per_cluster": 12,
    },  # one cluster: all images of a class
    "kip": {"batch_target": 36, "init": "noise"},
    "frepo": {"lr_img": 0.05, "batch_target": 36, "label_margin": False, "max_online_updates": 20},
    "dd": {"lr_img": 0.05, "batch_target": 36, "init": "noise", "distill_lr": 0.1, "fixed_init": True},
    "idm": {"lr_img": 0.5, "batch_real": 12, "init": "noise", "ce_weight": 0.0, "lr_net": 0.0},
    "m3d": {"lr_img": 0.5, "batch_real": 12, "init": "noise", "aug_match": "none"},
    "cafe": {"batch_real": 12},
    "cafe-dsa": {"batch_real": 12},
    "datadam": {"lr_img": 1.0, "batch_real": 12, "init": "noise"},
}
