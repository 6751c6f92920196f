"""Sets that store something else than images, labels that say what they are, and what a method may own beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from test_methods_contract import MemoryKeeper, StopAfter

import search_space
import tiny
from distill.contracts import Stored
from distill.decode import decoded
from distill.decoders import DECODERS, Decoder
from distill.engine import distill
from distill.image_set import ImageSet, concatenate
from distill.method import Method, MethodConfig
from distill.methods import METHODS
from distill.network_pool import NetworkPool
from downstream.accuracy import train_and_test
from downstream.protocol import protocol
from downstream.training import LOSSES, new_network, train
from fyi_bench import rng
from fyi_bench.errors import BudgetExhausted, DataError


class Gains(Decoder):
    """Rows that become as many images as there are gains."""

    name = "gains"
    needs = ("gains",)

    @property
    def variants(self) -> int:
        return len(self.tensors["gains"])

    def decode(self, rows):
        return rows.unsqueeze(1) * self.tensors["gains"].view(-1, 1, 1, 1)


@dataclass(frozen=True)
class LearnedConfig(MethodConfig):
    pass


class Learned(Method):
    """Moves rows, gains and labels by Adam towards a fixed image."""

    name, numerics, Config = "learned", 1, LearnedConfig

    def extra_parameters(self):
        soft = F.one_hot(torch.arange(self.problem.num_classes).repeat_interleave(self.problem.ipc)).float()
        return {"gains": (torch.tensor([1.0, 0.5]), 0.1, 0.0), "labels": (soft - 0.3, 0.1, 0.0)}

    def outer_optimiser(self, groups):
        return torch.optim.Adam(groups)

    def loss(self, ctx):
        target = ctx.real(1).mean()
        return (ctx.synthetic().mean() - target).square() + ctx.extras["labels"].square().sum()

    def decode(self, images, extras):
        return images * extras["gains"][0]

    def stored(self, images, extras):
        gains = Gains(self.problem.shape, {"gains": extras["gains"]})
        return Stored(images, torch.tensor([0.1, 0.2]), gains, extras["labels"], "targets")


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setitem(DECODERS._entries, "gains", Gains)
    monkeypatch.setitem(METHODS._entries, "learned", Learned)


def run(iterations: int = 4, **kwargs) -> ImageSet:
    config = LearnedConfig(tiny.MODEL, iterations, 0.05, 0.0, "real", "none", "dsa")
    return distill(tiny.problem(classes=(0, 2)), "learned", config, "fyi", **kwargs)


def test_a_set_with_a_decoder_is_kept_whole(known, tmp_path):
    made = run()
    again = ImageSet.load(made.save(tmp_path / "set.safetensors"))
    assert again.digest == made.digest
    assert again.decoder.describe() == made.decoder.describe()
    assert (again.lr, again.label_kind, len(again)) == (pytest.approx((0.1, 0.2)), "targets", 4)
    rows, gains, labels, steps = 4 * 3 * tiny.SIZE**2, 2, 4 * 3, 2
    assert made.nbytes == 4 * (rows + gains + labels + steps)
    shown = decoded(made)
    assert (len(shown), shown.variants, shown.shape, shown.decoder) == (8, 2, made.shape, None)
    assert torch.equal(shown.images[1], made.images[0] * made.decoder.tensors["gains"][1])
    assert shown.hard_labels.tolist() == [0] * 4 + [2] * 4
    assert torch.equal(concatenate([made, made]).images[8:], shown.images)
    assert torch.allclose(made.to_space(tiny.SPACES["pixel"]).images, made.pixels())


def test_learned_labels_of_some_classes_become_labels_of_all(known):
    made = run()
    assert made.labels.shape == (4, tiny.CLASSES)
    assert torch.equal(made.labels[:, 1], made.labels[:, [0, 2]].min(dim=1).values)


def test_any_optimiser_goes_on_to_the_bit(known):
    whole, keeper = run(), MemoryKeeper()
    with pytest.raises(BudgetExhausted):
        run(checkpointer=keeper, stop=StopAfter(2))
    assert {"optimiser.2.exp_avg", "optimiser.0.step"} <= set(keeper.kept[1])
    assert run(checkpointer=keeper).digest == whole.digest
    assert run(5).digest != whole.digest


def test_a_file_of_plain_images_says_nothing_of_decoders(tmp_path):
    from distill.tensor_file import load_tensors

    plain = tiny.real_set()
    meta = load_tensors(plain.save(tmp_path / "plain.safetensors", preview=False))[1]
    assert meta["schema"] == 1
    assert not {"decoder", "label_kind", "variants"} & set(meta)


def test_a_decoder_that_does_not_fit_its_rows_is_named(known):
    made = run()
    with pytest.raises(DataError, match="'gains' cannot read"):
        replace(made, decoder=replace(made.decoder, tensors={})).validate()
    with pytest.raises(DataError, match="NaN"):
        replace(made, images=made.images * float("nan")).validate()


def test_each_kind_of_labels_has_its_loss():
    answers, rows = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    spread = rows.softmax(1)
    cross = -(spread * answers.log_softmax(1)).sum(1).mean()
    assert torch.allclose(LOSSES["logits"](answers, rows), cross)
    assert torch.allclose(LOSSES["probabilities"](answers, spread), cross)
    assert torch.allclose(LOSSES["targets"](answers, rows), 0.5 * ((answers - rows) ** 2).sum() / 5)


def trained(image_set: ImageSet) -> torch.Tensor:
    rules = replace(protocol("quick", "accuracy"), eval_model=tiny.MODEL, epochs=3, min_steps=0, eval_augment="none")
    found = train(new_network(tiny.MODEL, image_set, 0), image_set, rules, 0)
    return torch.cat([p.detach().flatten() for p in found.network.parameters()])


def test_the_trainer_draws_one_of_the_variants_of_an_image():
    plain = tiny.real_set().to_space(tiny.SPACE)
    twice = replace(plain, images=plain.images.repeat_interleave(2, 0), labels=plain.labels.repeat_interleave(2))
    assert torch.equal(trained(replace(twice, variants=2)), trained(plain))  # equal variants: as if there were one
    images = twice.images.clone()
    images[1::2] += 1
    assert not torch.equal(trained(replace(twice, images=images, variants=2)), trained(plain))


def test_small_sets_of_tiles_get_as_many_steps_as_small_sets_of_images():
    tiles = replace(tiny.real_set(per_class=24).to_space(tiny.SPACE), factor=2)
    rules = replace(protocol("quick", "accuracy"), eval_model=tiny.MODEL, epochs=2, min_steps=20)
    [found] = train_and_test(tiles, tiny.real_set(), rules, [0])
    again = train(new_network(tiny.MODEL, tiles, 0), tiles, rules, 0)
    assert len(again.losses) == 4  # 288 images, 5 batches
    assert found.last_loss == again.losses[-1]


def test_targets_are_trained_on_by_their_squares():
    plain = tiny.real_set().to_space(tiny.SPACE)
    rows = F.one_hot(plain.labels).float()
    kinds = [trained(replace(plain, labels=rows, label_kind=kind)) for kind in ("targets", "probabilities", "logits")]
    assert torch.allclose(kinds[1], trained(plain), atol=1e-5)
    assert not torch.allclose(kinds[0], kinds[1], atol=1e-3)
    assert not torch.allclose(kinds[2], kinds[1], atol=1e-3)


@pytest.mark.parametrize("optimiser", [torch.optim.Adam, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)])
def test_networks_that_take_turns_are_as_if_each_were_alone(optimiser):
    def fresh(seed: int) -> torch.nn.Module:
        return search_space.build(tiny.MODEL, 3, tiny.SIZE, 3, rng.stream(seed, "pool"))

    shell = fresh(0)

    def renewed(seed: int) -> torch.nn.Module:
        shell.load_state_dict(fresh(seed).state_dict())
        return shell

    pool, x, y = NetworkPool(shell, optimiser, 2), torch.randn(4, 3, tiny.SIZE, tiny.SIZE), torch.tensor([0, 1, 2, 0])
    alone = [(network, optimiser(network.parameters())) for network in (fresh(3), fresh(4))]
    for slot in (0, 1):
        pool.fill(slot, lambda slot=slot: renewed(3 + slot))
    for step, slot in enumerate([0, 1, 1, 0, 1]):
        if step == 3:  # a restart
            state = {name: tensor.clone() for name, tensor in pool.state().items()}
            pool = NetworkPool(shell, optimiser, 2)
            pool.load_state(state)
        with pool.turn(slot) as turn:
            for network, moves in (turn, alone[slot]):
                moves.zero_grad()
                F.cross_entropy(network(x), y).backward()
                moves.step()
    for slot, (network, _) in enumerate(alone):
        with pool.turn(slot) as (module, _):
            assert all(torch.equal(a, b) for a, b in zip(module.parameters(), network.parameters(), strict=True))
