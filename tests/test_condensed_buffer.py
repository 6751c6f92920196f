"""CondensedBuffer in Avalanche's own strategies, on benchmarks as Avalanche makes them, and as plain torch data."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from PIL import Image

import fyi_bench
import tiny
from distill.image_set import concatenate
from distill.spaces import NormalizedSpace
from downstream.continual.library import avalanche, nc_benchmark
from downstream.continual.streams import _lent
from fyi_bench import rng
from fyi_bench.errors import DataError, UsageError

CLASSES, MEAN, STD = 6, (0.5, 0.45, 0.4), (0.25, 0.25, 0.3)
REAL = tiny.real_set(CLASSES, 8)
SMALL = {"model": tiny.MODEL, "iterations": "1", "batch_real": "4"}


class Pictures(torch.utils.data.Dataset):
    """(PIL image, label), as torchvision's data sets give them."""

    def __init__(self):
        self.targets = REAL.labels.tolist()

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return Image.fromarray(REAL.images[index].permute(1, 2, 0).numpy()), self.targets[index]


@pytest.mark.parametrize(
    ("given", "said"),
    [({"max_size": 0}, "not 0"), ({"max_size": "20"}, "not '20'"), ({"sets": ["x"]}, r"fyi_bench\.load")],
)
def test_what_no_memory_can_be_made_of_is_told_at_once(given, said):
    with pytest.raises(UsageError, match=said):
        fyi_bench.CondensedBuffer(**given)


def benchmark(train=None, evaluate=None, **options):
    """As SplitCIFAR10 is made: pictures, random crops in training, a task label in each item."""
    from torchvision import transforms as T

    after = [T.ToTensor(), T.Normalize(MEAN, STD)]
    return nc_benchmark(
        Pictures(), Pictures(), 3, task_labels=options.pop("task_labels", False), seed=0,
        train_transform=train or T.Compose([T.RandomCrop(tiny.SIZE, padding=4), T.RandomHorizontalFlip(), *after]),
        eval_transform=evaluate or T.Compose(after), **options,
    )  # fmt: skip


def buffer(**changes):
    options = {"max_size": 12, "dataset": "cifar10", "overrides": SMALL}
    return fyi_bench.CondensedBuffer("dsa", **{**options, **changes})


def network():
    import search_space

    return search_space.build(tiny.MODEL, 3, tiny.SIZE, CLASSES, rng.stream(0, "net"))


def common(model, **more):
    from avalanche.training.plugins import EvaluationPlugin

    return {
        "model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.05),
        "criterion": torch.nn.CrossEntropyLoss(), "train_mb_size": 4, "train_epochs": 1, "eval_mb_size": 32,
        "evaluator": EvaluationPlugin(loggers=[]), **more,
    }  # fmt: skip


def replay(memory):
    from avalanche.training.plugins import ReplayPlugin

    plugin = ReplayPlugin(mem_size=12, storage_policy=memory)
    return avalanche.training.Naive(**common(network(), plugins=[plugin]))


def gdumb(memory):
    return memory.attach(avalanche.training.GDumb(**common(network()), mem_size=12))


def er_ace(memory):
    return memory.attach(avalanche.training.ER_ACE(**common(network()), mem_size=12, batch_size_mem=4))


def der(memory):
    return memory.attach(avalanche.training.DER(**common(network()), mem_size=12, batch_size_mem=4))


def run(strategy, stream):
    with _lent(rng.stream(0, "test")):
        for experience in stream:
            strategy.train(experience, num_workers=0)


@pytest.mark.long
@pytest.mark.parametrize("task_labels", [False, True], ids=["one task", "tasks"])
@pytest.mark.parametrize("made", [replay, gdumb, er_ace, der], ids=lambda f: f.__name__)
def test_strategies_replay_condensed_images(made, task_labels):
    memory, split = buffer(), benchmark(task_labels=task_labels)
    run(made(memory), split.train_stream)
    assert len(memory.buffer) == 12
    assert sorted(memory.image_set.classes) == list(range(CLASSES))
    assert memory.image_set.ipc == 2
    item = memory.buffer[11]
    assert item[0].shape == (3, tiny.SIZE, tiny.SIZE)
    assert item[2] == (2 if task_labels else 0)
    assert len(item) == (4 if made is der else 3)
    if made is der:
        assert item[3].shape == (CLASSES,)


def test_real_images_are_condensed_as_eval_mode_shows_them():
    """With one real image a class and no iteration the condensed image is that image, uncropped, in its space."""
    memory = buffer(ipc=1, overrides={**SMALL, "iterations": "0"}, fyi=False)
    experience = benchmark().train_stream[0]
    memory.post_adapt(None, experience)
    assert memory.sets[0].space == NormalizedSpace(MEAN, STD)
    shown = torch.stack([x for x, *_ in experience.dataset.eval()])
    for image in memory.sets[0].images:
        assert (shown - image).abs().flatten(1).max(1).values.min() < 1e-5


def test_replay_takes_the_train_transforms():
    from torchvision import transforms as T

    after = [T.ToTensor(), T.Normalize(MEAN, STD)]
    split = benchmark(T.Compose([T.RandomHorizontalFlip(p=1.0), *after]), T.Compose(after))
    memory = buffer()
    memory.post_adapt(None, split.train_stream[0])
    made = memory.image_set.images
    replayed = torch.stack([memory.buffer.train()[k][0] for k in range(len(made))])
    kept = torch.stack([memory.buffer.eval()[k][0] for k in range(len(made))])
    assert torch.allclose(replayed, made.flip(-1), atol=1e-5)
    assert torch.equal(kept, made)


def test_transforms_that_draw_in_eval_mode_or_take_no_tensor_are_refused_in_words():
    from torchvision import transforms as T

    drawing = T.Compose([T.RandomCrop(tiny.SIZE, padding=4), T.ToTensor()])
    with pytest.raises(DataError, match="another image each time"):
        buffer().post_adapt(None, benchmark(evaluate=drawing).train_stream[0])
    arrays = T.Compose([np.asarray, T.ToPILImage(), T.ToTensor(), T.Normalize(MEAN, STD)])
    with pytest.raises(DataError, match=r"do not take a tensor(.|\n)*transform="):
        buffer().post_adapt(None, benchmark(arrays).train_stream[0])
    memory = buffer(transform=lambda image: image + 1)
    memory.post_adapt(None, benchmark(arrays).train_stream[0])
    assert torch.allclose(memory.buffer[0][0], memory.image_set.images[0] + 1)
    with pytest.raises(DataError, match=r"not tensors(.|\n)*eval_transform"):
        buffer().post_adapt(None, benchmark(evaluate=T.Resize(tiny.SIZE)).train_stream[0])


def test_another_size_than_the_plugins_is_told_in_words():
    from avalanche.training.plugins import ReplayPlugin

    with pytest.raises(UsageError, match=r"mem_size is 200, and the max_size of its CondensedBuffer 12"):
        ReplayPlugin(mem_size=200, storage_policy=buffer())
    with pytest.raises(UsageError, match="mem_size is 6"):
        buffer().attach(avalanche.training.GDumb(**common(network()), mem_size=6))


@pytest.mark.parametrize("name", ["GEM", "AGEM"])
def test_strategies_with_a_memory_of_their_own_are_refused_in_words(name):
    own = {"GEM": {"memory_strength": 0.5}, "AGEM": {"sample_size": 8}}[name]
    strategy = getattr(avalanche.training, name)(**common(network()), patterns_per_exp=4, **own)
    with pytest.raises(UsageError, match=f"{name} takes no storage policy"):
        buffer().attach(strategy)


def test_given_sets_a_fixed_total_and_other_attributes():
    from avalanche.benchmarks.utils import DataAttribute

    split = benchmark()
    first = buffer()
    for experience in split.train_stream:
        first.post_adapt(None, experience)
    given = fyi_bench.CondensedBuffer(sets=concatenate(first.sets), max_size=6, adaptive=True)
    sizes = []
    for experience in split.train_stream:
        given.post_adapt(None, experience)
        sizes.append(len(given.buffer))
    assert sizes == [4, 4, 6]  # 2, then 1 image a class
    assert given.image_set.ipc == 1
    partial = fyi_bench.CondensedBuffer(sets=first.sets[:1], max_size=12)
    with pytest.raises(DataError, match="no images of class"):
        partial.post_adapt(None, split.train_stream[1])
    with pytest.raises(UsageError, match="none for each class of each experience, 6 in all"):
        buffer(max_size=3).post_adapt(None, split.train_stream[0])

    experience = split.train_stream[0]
    by_class = DataAttribute([int(c) * 10 for c in experience.dataset.targets], "place", use_in_getitem=True)
    experience.dataset = experience.dataset.update_data_attribute("place", by_class)
    memory = buffer()
    memory.post_adapt(None, experience)
    assert memory.buffer[0][3] == 10 * memory.buffer[0][1]
    single = DataAttribute(list(range(len(experience.dataset))), "place", use_in_getitem=True)
    experience.dataset = experience.dataset.update_data_attribute("place", single)
    with pytest.raises(DataError, match="differ in 'place'"):
        buffer().post_adapt(None, experience)


def test_one_class_alone_has_nothing_to_classify():
    one = [(image / 255, 2) for image in REAL.of_classes([2]).images]

    def by(method):
        return fyi_bench.condense(one, 1, fyi_bench.Condenser(method, "none", "cifar10", overrides=SMALL))

    with pytest.raises(UsageError, match="dsa learns from a classifier"):
        by("dsa")
    assert by("dm").classes == [2]


def test_a_memory_without_avalanche():
    """As in Mammoth: a task's images are condensed, and the memory is a torch dataset with the train transforms."""
    task = [(image.float() / 255, int(label)) for image, label in zip(REAL.images, REAL.labels)]
    made = fyi_bench.condense(task, 1, fyi_bench.Condenser("dm", "fyi", "cifar10", overrides=SMALL))
    memory = fyi_bench.MemoryDataset([made, made], transform=lambda image: image.flip(-1))
    assert len(memory) == 2 * CLASSES
    assert memory.targets[:CLASSES] == list(range(CLASSES))
    assert torch.equal(memory[0][0], made.images[0].flip(-1))
    batch, labels = next(iter(torch.utils.data.DataLoader(memory, batch_size=4)))
    assert batch.shape == (4, 3, tiny.SIZE, tiny.SIZE)
    assert labels.tolist() == [0, 1, 2, 3]


def test_help_spells_the_signature_out():
    parameters = inspect.signature(fyi_bench.CondensedBuffer).parameters
    assert {"method", "max_size", "ipc", "sets", "adaptive", "transform"} <= set(parameters)
    assert not any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values())
    assert all(f"{name}" in (fyi_bench.CondensedBuffer.__doc__ or "") for name in parameters)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"method": "dmm"}, "'dmm'"), ({"flip": "fy"}, "'fy'"), ({"protocol": "quik"}, "'quik'"),
     ({"overrides": {"iteration": "2"}}, "'iteration'")],
)  # fmt: skip
def test_a_wrong_name_is_told_before_anything_is_learned(wrong, said):
    with pytest.raises(UsageError, match=said):
        fyi_bench.CondensedBuffer(**{"method": "dm", **wrong})


def write_pictures(folder, classes, each, size):
    """`each` pictures of every class, as PNG: their paths below the folder, by class."""
    draw, found = rng.stream(0, "pictures"), {}
    for number in classes:
        found[number] = [f"{number}-{k}.png" for k in range(each)]
        for name in found[number]:
            pixels = torch.randint(256, (size, size, 3), dtype=torch.uint8, generator=draw)
            Image.fromarray(pixels.numpy()).save(folder / name)
    return found


@pytest.mark.parametrize("made", [replay, der], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "lists", [[(0, 1), (2, 3), (4, 5)], [range(3), range(3)]], ids=["new classes", "new instances"]
)
def test_streams_from_lists_of_files_as_core50s(tmp_path, made, lists):
    """Each batch of CORe50 is a list of files; the same classes may come again, with other pictures."""
    from avalanche.benchmarks.scenarios.deprecated.generators import filelist_benchmark
    from torchvision import transforms as T

    names = write_pictures(tmp_path, range(CLASSES), 4 * len(lists), tiny.SIZE)
    batches = []
    for number, classes in enumerate(lists):
        lines = [f"{name} {c}" for c in classes for name in names[c][number * 4 : number * 4 + 4]]
        batches.append(tmp_path / f"batch{number}.txt")
        batches[-1].write_text("\n".join(lines))
    after = T.Compose([T.ToTensor(), T.Normalize(MEAN, STD)])
    split = filelist_benchmark(
        tmp_path, batches, [batches[0]], task_labels=[0] * len(lists), complete_test_set_only=True,
        train_transform=after, eval_transform=after,
    )  # fmt: skip
    memory = buffer()
    run(made(memory), split.train_stream)
    assert [sorted(one.classes) for one in memory.sets] == [list(classes) for classes in lists]
    assert len(memory.buffer) == 12


@pytest.mark.long
def test_tiny_imagenet_as_avalanche_splits_it(tmp_path):
    from avalanche.benchmarks.classic import SplitTinyImageNet

    root = tmp_path / "tiny-imagenet-200"
    names = [f"n{number:08}" for number in range(200)]
    (root / "val" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(names))
    held = write_pictures(root / "val" / "images", range(200), 1, 64)
    (root / "val" / "val_annotations.txt").write_text("\n".join(f"{held[c][0]}\t{names[c]}\t0" for c in held))
    for name in names:
        (root / "train" / name / "images").mkdir(parents=True)
        write_pictures(root / "train" / name / "images", [0], 2, 64)
    split = SplitTinyImageNet(n_experiences=100, return_task_id=True, dataset_root=tmp_path)
    memory = fyi_bench.CondensedBuffer("random", fyi=False, max_size=200, dataset="tiny-imagenet")
    for number in range(2):
        memory.post_adapt(None, split.train_stream[number])
    assert [sorted(one.classes) for one in memory.sets] == [
        sorted(split.train_stream[number].classes_in_this_experience) for number in range(2)
    ]
    assert memory.buffer[3][0].shape == (3, 64, 64)
    assert memory.buffer[3][2] == 1
