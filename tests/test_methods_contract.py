"""What every method promises, with and without the flip: shapes, determinism, resume, honesty, falling loss."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

import tiny
from distill.decode import decoded
from distill.engine import distill
from distill.fyi import FLIPS
from distill.image_set import ImageSet
from distill.methods import METHODS
from distill.recipes import recipe
from fyi_bench.data import load_dataset
from fyi_bench.errors import BudgetExhausted
from fyi_bench.run.types.distill import distill_run
from plain_method import NAME, plain_method  # noqa: F401  a method of a plug-in, one of all here

ALL = [*METHODS.names(), NAME]
QUICK = {"dm", "random", NAME}  # these alone in `make test`; each method has tests of its own there


def each(*rows):
    """Parameters, one or several a row, the method first."""
    marks = {row: () if row[0] in QUICK else pytest.mark.long for row in rows}
    return [pytest.param(*row, marks=mark, id="-".join(row)) for row, mark in marks.items()]


METHOD = pytest.mark.parametrize("method", each(*((method,) for method in ALL)))
ARM = pytest.mark.parametrize(("method", "flip"), each(*((method, flip) for method in ALL for flip in ("none", "fyi"))))


class MemoryKeeper:
    """Checkpoints in memory."""

    def __init__(self):
        self.kept = None

    def save(self, step, tensors, meta):
        self.kept = (step, {k: v.clone() for k, v in tensors.items()}, meta)

    def load(self, take):
        if self.kept is not None:
            step, tensors, _ = self.kept
            take(step, {k: v.clone() for k, v in tensors.items()})
        return self.kept


class StopAfter:
    """Asks for a stop after some safe points."""

    def __init__(self, steps: int):
        self.left = steps

    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0

    def check(self) -> None:
        raise BudgetExhausted("enough")


def run(method: str, flip: str = "none", iterations: int = 4, seed: int = 0, **kwargs):
    space = METHODS.get(method).space_kind
    changes = {"space": tiny.SPACES[space]} if space in tiny.SPACES else {}
    config = tiny.config(method, iterations)
    return distill(tiny.problem(seed=seed, **changes), method, config, flip, **kwargs)


@functools.cache
def uncut(method: str, flip: str) -> ImageSet:
    """What `run` gives: the set that others are held against is made once."""
    return run(method, flip)


@ARM
def test_result_is_a_valid_set_of_the_right_shape(method, flip):
    result = uncut(method, flip).validate()
    assert result.shape == (3, tiny.SIZE, tiny.SIZE)
    if result.decoder is None:
        assert result.images.shape == (tiny.CLASSES * 2, 3, tiny.SIZE, tiny.SIZE)
        assert result.hard_labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert result.ipc == 2
    shown = decoded(result)
    assert shown.images.shape == (len(shown.labels), 3, tiny.SIZE, tiny.SIZE)
    assert shown.classes == [0, 1, 2]
    values = vars(tiny.config(method))
    assert shown.items == tiny.CLASSES * METHODS.get(method).shown(values, 2, tiny.CLASSES, result.shape)
    assert (result.provenance["method"], result.provenance["flip"]) == (method, flip)


@ARM
def test_same_seed_same_bytes_and_other_seed_other_bytes(method, flip):
    first, again, other = uncut(method, flip), run(method, flip), run(method, flip, seed=1)
    assert first.digest == again.digest
    assert first.digest != other.digest


@ARM
@pytest.mark.parametrize("cut", [1, 3])
def test_resumed_run_repeats_the_bytes_of_an_uncut_one(method, flip, cut):
    whole = uncut(method, flip)
    if not whole.provenance["iterations"]:
        pytest.skip("a coreset has no iteration to be cut in")
    keeper = MemoryKeeper()
    with pytest.raises(BudgetExhausted):
        run(method, flip, checkpointer=keeper, stop=StopAfter(cut))
    assert keeper.kept[0] == cut
    resumed = run(method, flip, checkpointer=keeper)
    assert resumed.digest == whole.digest
    assert resumed.provenance["loss_curve"] == whole.provenance["loss_curve"]


class Offering:
    """Gives one checkpoint; notes whether it was refused, and at which step the run then stopped."""

    def __init__(self, step, tensors):
        self.step, self.tensors, self.refused, self.at = step, tensors, "", None

    def save(self, step, tensors, meta):
        self.at = step

    def load(self, take):
        try:
            take(self.step, dict(self.tensors))
        except ValueError as error:
            self.refused = str(error)
            return None
        return self.step, self.tensors, {}


def of_another_run(step, tensors):
    """Checkpoints that hold something else than the run's own state, by what is wrong with them."""
    for name, value in tensors.items():
        rest = {key: other for key, other in tensors.items() if key != name}
        yield f"{name} has another name", step, {**rest, f"{name}.x": value}
        yield f"{name} has another shape", step, {**rest, name: value.new_zeros((*value.shape, 2))}
        yield f"{name} is broader than it is", step, {**rest, name: value.new_zeros((2, *value.shape))}
        yield f"{name} has other numbers", step, {**rest, name: value.to(torch.int16)}
    for name in ("images", "losses", *(key for key in tensors if key.startswith("extra."))):
        yield f"{name} is missing", step, {key: value for key, value in tensors.items() if key != name}
    for name in ("state.more", "extra.more", "optimiser.0.more", "optimiser.99.momentum_buffer", "optimiser", "more"):
        yield f"{name} is too much", step, {**tensors, name: torch.zeros(1)}
    yield "a step before the first", -1, tensors
    yield "a step after the last", 10**6, {**tensors, "losses": torch.zeros(10**6, dtype=torch.float64)}
    yield "nothing", step, {}


@METHOD
def test_a_checkpoint_of_another_run_is_refused_whatever_is_in_it(method):
    keeper = MemoryKeeper()
    try:
        run(method, "fyi", checkpointer=keeper, stop=StopAfter(2))
    except BudgetExhausted:
        pass
    else:
        pytest.skip("a coreset has no iteration to be cut in")
    step, tensors, _ = keeper.kept
    for what, other_step, other in [("nothing is wrong", step, tensors), *of_another_run(step, tensors)]:
        offering = Offering(other_step, other)
        with pytest.raises(BudgetExhausted):
            run(method, "fyi", checkpointer=offering, stop=StopAfter(0))
        right = what == "nothing is wrong"
        assert (offering.refused == "", offering.at) == ((True, step) if right else (False, 0)), what


@METHOD
def test_every_flip_runs_and_changes_what_is_learned(method):
    plain = run(method, "none", iterations=2)
    for flip in FLIPS:
        flipped = run(method, flip, iterations=2)
        assert bool(torch.isfinite(flipped.images).all())
        same = flipped.digest == plain.digest
        assert same == (flip == "none" or not plain.provenance["iterations"])


@METHOD
def test_no_global_generator_is_touched(method):
    import random

    import numpy as np

    states = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    run(method, "random", iterations=2)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]


@METHOD
def test_only_images_of_the_wanted_classes_are_read(method):
    real = tiny.real_set()
    spoiled = real.images.clone()
    spoiled[real.labels == 1] = 255 - spoiled[real.labels == 1]
    other = tiny.real_set()
    object.__setattr__(other, "images", spoiled)
    space = METHODS.get(method).space_kind
    changes = {"space": tiny.SPACES[space]} if space in tiny.SPACES else {}
    sets = [
        distill(tiny.problem(real=r, classes=(0, 2), **changes), method, tiny.config(method, 2), "fyi")
        for r in (real, other)
    ]
    assert sets[0].digest == sets[1].digest
    assert sets[0].classes == [0, 2]
    assert sets[0].ipc == len(sets[0]) // 2


@pytest.mark.long
@pytest.mark.parametrize("method", [m for m in ALL if m in tiny.LOSS_FALLS])
@pytest.mark.parametrize("flip", ["none", "fyi"])
def test_loss_falls(method, flip):
    config = tiny.config(method, 30, **tiny.LOSS_FALLS[method])
    space = METHODS.get(method).space_kind
    changes = {"space": tiny.SPACES[space]} if space in tiny.SPACES else {}
    curve = distill(tiny.problem(**changes), method, config, flip).provenance["loss_curve"]
    assert sum(curve[-8:]) < 0.9 * sum(curve[:8])


# what makes a step of each method depend on the mean over a class's real images alone
MEANS = {
    "dc": {"outer_loop": 1}, "dsa": {"outer_loop": 1}, "dcc": {"outer_loop": 1}, "dsac": {"outer_loop": 1},
    "idc": {"inner_loop": 1}, "idm": {}, "m3d": {"kernel": "linear"}, "cafe": {"max_matches": 1, "inner_weight": 0.0},
    "cafe-dsa": {"max_matches": 1, "inner_weight": 0.0}, "dm": {}, "datadam": {}, NAME: {},
}  # fmt: skip


@pytest.mark.parametrize("method", each(*((method,) for method in MEANS)))
def test_a_small_class_takes_nothing_from_the_batches_of_the_others(method):
    """4 images of one class and 8 of the others are as good as these 4 twice, when a batch may hold 8."""
    full, space = tiny.real_set(), METHODS.get(method).space_kind
    rows = [full.indices_of(c)[: 4 if c == 0 else 8] for c in range(tiny.CLASSES)]
    sets = []
    for twice in (False, True):
        real = full.select(torch.cat([rows[0].repeat(1 + twice), *rows[1:]]))
        problem = tiny.problem(real=real, dtype=torch.float64, space=tiny.SPACES.get(space, tiny.SPACE))
        config = tiny.config(method, 1, init="noise", batch_real=8, lr_img=0.1, **MEANS[method])
        sets.append(distill(replace(problem, statistics=tiny.SPACE), method, config, "fyi").images)
    moved = float((sets[1] - distill(problem, method, replace(config, iterations=0), "fyi").images).abs().max())
    assert moved > 1e-4
    assert float((sets[0] - sets[1]).abs().max()) < 1e-4 * moved


def test_runs_on_data_with_small_classes_have_digests_of_their_own():
    shapes = load_dataset("shapes10")
    rows = [shapes.train.indices_of(c)[: 20 if c == 3 else None] for c in range(10)]
    uneven = replace(shapes, train=shapes.train.select(torch.cat(rows)), sums={})
    for method, concerned in (("dm", True), ("cafe", True), ("mtt", False), ("random", False)):
        values = recipe(method, "shapes10", 2, "quick")
        assert "batches" not in distill_run(shapes, method, "none", 2, 0, values).inputs["numerics"]
        assert ("batches" in distill_run(uneven, method, "none", 2, 0, values).inputs["numerics"]) == concerned
        others = distill_run(uneven, method, "none", 2, 0, values, classes=[0, 1, 2])
        assert "batches" not in others.inputs["numerics"]
