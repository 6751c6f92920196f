"""Numbers of every versioned component at toy size: a change without a raised version would reuse stale results.

When a change of numbers is meant, raise the component's version and run `python tests/test_fingerprints.py`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import search_space
import tiny
from distill import decoders
from distill.augment import Augmentation
from distill.cutmix import cutmix
from distill.decode import decode
from distill.engine import distill
from distill.fyi import FLIPS
from distill.methods import METHODS
from downstream.probe import fit
from downstream.protocol import protocol
from downstream.training import new_network, train
from fyi_bench import rng
from fyi_bench.run.numerics import numerics

RECORDED = Path(__file__).parent / "assets" / "fingerprints.json"
TOLERANCE = 2e-3  # float32 sums differ in their last bits between machines; a change of method differs by far more


def images(key: str, count: int = 6) -> torch.Tensor:
    return torch.rand(count, 3, tiny.SIZE, tiny.SIZE, generator=rng.stream(0, key), dtype=torch.float64)


def weighted(x: torch.Tensor) -> float:
    """A number that depends on every entry and its place."""
    flat = x.detach().double().flatten()
    return float((flat * torch.linspace(0.5, 1.5, len(flat), dtype=torch.float64)).sum())


def network() -> float:
    built = search_space.build("convnet-w8-d2", 3, tiny.SIZE, 3, rng.stream(0, "fingerprint"))
    return weighted(torch.cat([p.flatten() for p in built.parameters()]) ** 2)


def augment() -> float:
    total = 0.0
    for dispatcher in ("dsa", "dsa-flip-first", "idc"):
        made = Augmentation(dispatcher=dispatcher)
        for k in range(8):
            draw = made.draw(rng.stream(k, dispatcher), 6, tiny.SIZE, siamese=bool(k % 2))
            total += weighted(made.apply(images("augment"), draw))
    return total


def flip() -> float:
    return sum(weighted(FLIPS.get(name).expand(images("flip"), generator=rng.stream(0, name))) for name in FLIPS)


def mixed() -> float:
    x, y = images("cutmix"), torch.arange(6)
    return sum(weighted(cutmix(x, y, rng.stream(k, "cutmix"), 1.0, 1.0)[0]) for k in range(4))


def decoded() -> float:
    return sum(weighted(decode(images("decode").unflatten(0, (2, 3)), 2, kind)) for kind in ("single", "multi"))


def from_rows() -> float:
    total = 0.0
    for name in ("speed", "rtp", "haba"):
        method = METHODS.get(name)(tiny.config(name), tiny.problem(dtype=torch.float64))
        extras = {key: value for key, (value, *_) in method.extra_parameters().items()}
        total += weighted(decoders.images_of(method.decoder(extras), method.initial_images()))
    return total


def trainer() -> float:
    train_set = tiny.real_set().to_space(tiny.SPACE)
    p = dataclasses.replace(protocol("quick", "accuracy"), eval_model=tiny.MODEL, epochs=2, min_steps=0)
    trained = train(new_network(tiny.MODEL, train_set, 0), train_set, p, 0)
    return weighted(torch.cat([w.flatten() for w in trained.network.parameters()]) ** 2)


def probe() -> float:
    seen = images("probe").flatten(1)[:, :9]
    return weighted(fit(seen, torch.arange(6) % 3, 3, 1e-3).weight)


def method(name: str) -> float:
    space = METHODS.get(name).space_kind
    changes = {"space": tiny.SPACES[space]} if space in tiny.SPACES else {}
    return weighted(
        distill(tiny.problem(**changes), name, tiny.config(name, 2, **tiny.UNTIED.get(name, {})), "fyi").images
    )


COMPONENTS = {
    "network": network,
    "augment": augment,
    "flip": flip,
    "cutmix": mixed,
    "decode": decoded,
    "decoder": from_rows,
    "trainer": trainer,
    "probe": probe,
    **{f"method {name}": (lambda name=name: method(name)) for name in METHODS},
}


def version_of(component: str) -> object:
    if component.startswith("method "):
        return METHODS.get(component.removeprefix("method ")).numerics
    return numerics()[component]


@pytest.mark.parametrize("component", COMPONENTS)
def test_numbers_change_only_with_the_version(component):
    recorded = json.loads(RECORDED.read_text())
    assert component in recorded, "run `python tests/test_fingerprints.py` to record a new component"
    entry = recorded[component]
    assert entry["version"] == version_of(component), "the version was raised: record the new numbers"
    assert COMPONENTS[component]() == pytest.approx(entry["value"], rel=TOLERANCE)


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = {name: {"version": version_of(name), "value": make()} for name, make in COMPONENTS.items()}
    RECORDED.write_text(json.dumps(rows, indent=1) + "\n")
