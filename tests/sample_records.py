"""Records as commands leave them, small and made by hand, for the tests of what people see."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from typing import Any

from fyi_bench.store.record import build_record


def summary(values: list[float]) -> dict[str, Any]:
    """values, mean, population deviation."""
    mean = math.fsum(values) / len(values)
    return {"values": values, "mean": mean, "std": math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))}


def record(task: str, arms: list[dict], dataset: str = "cifar10", protocol: str = "quick", **more: Any) -> dict:
    """A complete record of a task; `more` goes on top of the common keys."""
    common = {"device": "cpu", "precision": "fp32", "seeds": [0], "wall_s": 83.2, "digest": "00c0ffee00c0ffee"}
    common |= {key: more.pop(key) for key in list(more) if key in common}
    version = {"name": protocol, "version": 1}
    return build_record(task, dataset=dataset, protocol=version, arms=arms, **common, **more)


def distill_arm(method: str, flip: str, accuracy: dict[str, list[float]], **more: Any) -> dict[str, Any]:
    """An arm of a `distill` record; accuracy: architecture -> values."""
    arm = {
        "method": method,
        "flip": flip,
        "ipc": 10,
        "set": f"runs/distill/{method}-{flip}/set.safetensors",
        "set_digest": "1111222233334444",
        "sets": [f"runs/distill/{method}-{flip}/set.safetensors"],
        "cells": ["aaaabbbbccccdddd"],
        "iterations": 300,
        "loss_first": 31.25,
        "loss_last": 4.5,
        "unequalness": {"mean": 12.34 if flip == "none" else 56.78, "std": 1.0, "per_class": {}, "networks": 20},
        "set_bytes": 1229600,
        "distill_s": [61.0],
    }
    if accuracy:
        arm["architectures"] = [{"name": name, **summary(values)} for name, values in accuracy.items()]
    return arm | more


def distill_record(arms: list[dict] | None = None, **more: Any) -> dict[str, Any]:
    """dm with and without fyi and random images, two architectures, three networks."""
    arms = arms or [
        distill_arm("dm", "none", {"convnet": [0.45, 0.46, 0.47], "resnet18": [0.38, 0.4, 0.36]}),
        distill_arm("dm", "fyi", {"convnet": [0.46, 0.475, 0.478], "resnet18": [0.40, 0.41, 0.39]}),
        distill_arm("random", "none", {"convnet": [0.28, 0.3, 0.29]}, loss_first=None, loss_last=None, iterations=0),
    ]
    difference = {"mean": 0.011, "low": -0.003, "high": 0.027, "pairs": 3}
    defaults = {"difference": difference, "command": "fyi-bench distill --method dm --fyi --ipc 10"}
    return record("distill", arms, **(defaults | more))


def continual_arm(method: str, flip: str, curve: list[list[float]], size: int = 20, **more: Any) -> dict[str, Any]:
    """An arm of a `continual` record; curve: values of each step."""
    rows = [{"classes_seen": size * (k + 1), "images": 0, **summary(v)} for k, v in enumerate(curve)]
    runs = [math.fsum(values) / len(values) for values in zip(*curve)]
    arm = {"method": method, "flip": flip, "ipc": 10, "accuracy": rows, "average": summary(runs), "cells": []}
    return arm | {"distill_s": 120.0, "unequalness": 20.0 if flip == "none" else 44.0} | more


def continual_record(arms: list[dict] | None = None, **more: Any) -> dict[str, Any]:
    """dsa with and without fyi and random images over five steps and three class orders."""
    arms = arms or [
        continual_arm("dsa", "none", _curve([0.52, 0.43, 0.37, 0.33, 0.29], 0.012)),
        continual_arm("dsa", "fyi", _curve([0.55, 0.46, 0.40, 0.355, 0.318], 0.010)),
        continual_arm("random", "none", _curve([0.38, 0.29, 0.23, 0.19, 0.165], 0.008)),
    ]
    defaults = {
        "steps": 5,
        "class_orders": [list(range(100))] * 3,
        "seeds": [0, 1, 2],
        "networks": 1,
        "difference": {"mean": 0.0286, "low": 0.021, "high": 0.036, "pairs": 3},
        "command": "fyi-bench continual --steps 5 --method dsa --fyi",
        "dataset": "cifar100",
    }
    return record("continual", arms, **(defaults | more))


def evaluate_record(**more: Any) -> dict[str, Any]:
    """A set from a file on two architectures."""
    entries = [{"name": "convnet", **summary([0.5, 0.52])}, {"name": "vgg11", **summary([0.41])}]
    arm = {"method": "mtt", "flip": "unknown", "ipc": 10, "set": "mtt.safetensors", "set_digest": "5555666677778888"}
    return record("accuracy", [arm | {"set_bytes": 1000, "architectures": entries}], **more)


def robust_record(**more: Any) -> dict[str, Any]:
    """Robust scores of a set with hard labels."""
    names = ("real-hard", "set-hard", "set-any", "random-any", "set-plain", "random-plain")
    tried = {"lr": 0.05, "validation": {"0.01": 0.3, "0.05": 0.4}, "seconds": [3.1, 3.3]}
    scores = {"recovery": 0.3, "improvement": 0.08, "label_robust": 0.25, "augmentation_robust": 0.3}
    arm = {
        "method": "dm", "flip": "fyi", "ipc": 10, "set_digest": "5555666677778888", "set_bytes": 1_229_600,
        "labels": "hard", "model": "convnet-w32", "peak_memory_mib": 700.0,
        "accuracies": {name: {**summary([0.4, 0.42]), **tried} for name in names},
        **{key: {**summary([v, v + 0.01]), "low": v - 0.05, "high": v + 0.06} for key, v in scores.items()},
    }  # fmt: skip
    rules = {"lrs": [0.01, 0.05], "validation": 0.1}
    defaults = {"rules": rules, "units": "fractions", "reference": "4 epochs on 5,000 images"}
    return record("robust", [arm], command="fyi-bench evaluate SET --robust", **(defaults | more))


def _curve(means: list[float], spread: float) -> list[list[float]]:
    return [[mean - spread, mean, mean + spread] for mean in means]


def texts(svg: str) -> list[str]:
    """Every piece of text of an SVG, in order."""
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
