"""Sets that store something else than images: read into decoders, with the bytes that are really stored."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from distill.decoders.epitomes import Epitomes, parameter_shapes, sparse
from distill.decoders.frequencies import Frequencies, coefficients
from distill.image_set import ImageSet
from distill.zca import ImageZCASpace, RelativeZCASpace
from downstream.ordered import batches_of
from fyi_bench.errors import DataError, UsageError
from fyi_bench.formats import load_set
from fyi_bench.formats.export import save_imported
from importer_files import labels, mtt_folder, normalised, whitened

AUTHORS = {"mix": "mhsc.proj", "mlp1": "mlp.fc1", "mlp2": "mlp.fc2"}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def again(found, tmp_path) -> ImageSet:
    """The set after it was imported: as it was, and of the same size."""
    saved = ImageSet.load(save_imported(found, tmp_path / "out" / "set.safetensors"))
    assert saved.digest == found.image_set.digest
    assert saved.nbytes == found.image_set.nbytes
    return saved


# --- FreD ----------------------------------------------------------------------------------------------------------


def fred_images(kept: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with few frequencies, the same ones in each class, and their mask; by scipy's transform."""
    mask = torch.zeros(20, 3, 32, 32)
    for label in range(10):
        places = torch.randperm(1024, generator=torch.Generator().manual_seed(label))[:kept]
        mask[2 * label : 2 * label + 2].flatten(2)[:, :, places] = 1
    full = dctn(normalised().double().numpy(), axes=(2, 3))
    return torch.from_numpy(idctn(full * mask.numpy(), axes=(2, 3))).float(), mask


def test_the_cosine_transform_is_that_of_scipy():
    images = drawn(2, 3, 8, 12).double()
    found = coefficients(images)
    assert np.allclose(found.numpy(), dctn(images.numpy(), axes=(2, 3)), atol=1e-12)
    back = Frequencies((3, 8, 12), {}, {"kept": 96}).decode(found)
    assert torch.allclose(back[:, 0], images, atol=1e-12)


@pytest.mark.parametrize("layout", ["tm", "dc", "nested"])
def test_fred_keeps_its_coefficients(tmp_path, layout):
    images, mask = fred_images()
    folder = tmp_path / "CIFAR10"
    if layout == "tm":
        mtt_folder(folder, images, labels())
    else:
        folder.mkdir()
        pair = (images, labels())
        torch.save(
            {"data": [[pair] if layout == "nested" else list(pair)]}, folder / "res_FreD_CIFAR10_ConvNet_1ipc.pt"
        )
    torch.save(mask, folder / "mask.pt")
    found = load_set(folder, space="normalized")
    assert (found.format, found.dataset, found.image_set.decoder.name) == ("fred", "cifar10", "frequencies")
    assert torch.equal(found.image_set.labels, labels())
    assert float((found.image_set.decoded().images - images).abs().max()) < 1e-4
    s = again(found, tmp_path)
    # values, a place of 16 bits for each class and frequency, which class, labels
    assert s.nbytes == 20 * 3 * 64 * 4 + 10 * 64 * 2 + 20 * 4 + 20 * 8
    assert torch.equal(s.images, found.image_set.images)


def test_a_mask_that_is_not_of_the_images_is_said(tmp_path):
    images, mask = fred_images()
    folder = mtt_folder(tmp_path / "CIFAR10", images, labels())
    for wrong in (mask.roll(1, 3), mask[:10], mask * 0.5, torch.zeros_like(mask)):
        torch.save(wrong, folder / "mask.pt")
        found = load_set(folder, space="normalized")
        assert found.image_set.decoder is None
        assert [text for text in found.warnings if "kept as pixels" in text]
        assert torch.equal(found.image_set.images, images)


# --- SPEED ---------------------------------------------------------------------------------------------------------


def speed_folder(folder, kept: int = 6, **changes):
    """17 tokens of 8 numbers, 2 heads, 2 blocks, patches of 8: as its code saves them."""
    folder.mkdir(parents=True)
    tokens, codes = drawn(17, 8), sparse(drawn(20, 2, 16, 17, seed=1), kept)
    layers = {name: drawn(*shape, seed=i) for i, (name, shape) in enumerate(parameter_shapes(8, 2, 192).items())}
    theirs = {}
    for name, value in layers.items():
        block, _, rest = name.partition(".")
        part, _, end = rest.partition(".")
        key = f"decoder_blocks.{block}.{AUTHORS.get(part, part)}.{end}" if block.isdigit() else f"decoder_pred.{rest}"
        theirs[key] = value
    content = {"saet": tokens, "scm": codes.to_sparse(), "freenet": theirs, "syn_lr": torch.tensor(0.02)} | changes
    for name, value in content.items():
        torch.save(value, folder / f"{name}_best.pt")
    return tokens, codes, layers


def test_speed_is_read_into_epitomes(tmp_path):
    tokens, codes, layers = speed_folder(tmp_path / "CIFAR10")
    found = load_set(tmp_path / "CIFAR10", space="zca")
    s = found.image_set
    assert (found.format, s.decoder.name, len(s), s.ipc) == ("speed", "epitomes", 20, 2)
    assert s.lr == pytest.approx(0.02)
    assert torch.equal(s.images, codes)
    expected = Epitomes((3, 32, 32), {"tokens": tokens, **layers}, {"patch": 8, "top_k": 6}).decode(codes)
    assert torch.equal(s.decoded().images, expected.flatten(0, 1))
    whole = sum(t.nbytes for t in layers.values()) + tokens.nbytes
    assert again(found, tmp_path).nbytes == whole + 20 * 2 * 6 * (4 + 2) + 20 * 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"saet": torch.zeros(9, 8)}, "do not go together"), ({"saet": torch.zeros(17, 9)}, "do not go together"),
        ({"scm": torch.zeros(20, 2, 15, 17)}, "make no square"), ({"freenet": {}}, "lacks layers"),
        ({"freenet": {"decoder_blocks.0.attn.weight": torch.zeros(2)}}, "no layer of SPEED"),
        ({"freenet": {"decoder_pred.weight": torch.zeros(192, 8), "decoder_pred.bias": torch.zeros(192),
                      "decoder_blocks.0.mhsc.proj.weight": torch.zeros(8, 8)}}, "cannot read the stored rows"),
        ({"scm": torch.sparse_coo_tensor(torch.zeros(4, 1, dtype=torch.int64), torch.ones(1), (2**20, 2, 2**20, 17),
                                         check_invariants=True)}, "would take"),
        ({"syn_lr": torch.tensor(-1.0)}, "learned step size is -1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_broken_files_of_speed_are_named(tmp_path, changes, words):
    speed_folder(tmp_path / "CIFAR10", **changes)
    with pytest.raises(DataError, match=words) as caught:
        load_set(tmp_path / "CIFAR10", space="zca")
    assert len(str(caught.value).splitlines()) == 2


def test_places_outside_a_sparse_tensor_are_never_used(tmp_path):
    speed_folder(tmp_path / "CIFAR10")
    places = torch.tensor([[0], [0], [0], [16]])
    whole = torch.sparse_coo_tensor(places, torch.ones(1), (20, 2, 16, 17), check_invariants=True)
    whole._indices()[0, 0] = 10**9  # an enemy's file
    torch.save(whole, tmp_path / "CIFAR10" / "scm_best.pt")
    with pytest.raises(DataError) as caught:
        load_set(tmp_path / "CIFAR10")
    assert len(str(caught.value).splitlines()) == 2


# --- DD ------------------------------------------------------------------------------------------------------------


def dd_steps(passes: int = 3) -> list:
    once = [(normalised(10, seed=step), torch.arange(10)) for step in range(2)]
    rates = torch.linspace(0.01, 0.06, 2 * passes, requires_grad=True)
    return [(x, y, rate) for (x, y), rate in zip(once * passes, rates.unbind(), strict=True)]


def test_the_first_dd_has_its_steps(tmp_path):
    folder = tmp_path / "Cifar10" / "arch(AlexCifarNet)"
    folder.mkdir(parents=True)
    torch.save(dd_steps(), folder / "results.pth")
    for path in (folder, folder / "results.pth"):
        found = load_set(path)
        s = found.image_set
        assert (found.format, found.dataset, len(s), s.ipc) == ("dd", "cifar10", 20, 2)
        assert torch.equal(s.images, torch.cat([normalised(10, seed=0), normalised(10, seed=1)]))
        assert s.lr == pytest.approx(tuple(np.linspace(0.01, 0.06, 6)))
        assert s.space.std == (0.247, 0.243, 0.261)
        assert [text for text in found.warnings if "6 ordered steps" in text]
    again(found, tmp_path)


def test_steps_of_dd_show_the_images_they_were_made_of(tmp_path):
    folder = tmp_path / "Cifar10"
    folder.mkdir()
    labels = torch.arange(10).repeat_interleave(2)
    once = [(normalised(20, seed=step), labels, torch.tensor(0.1)) for step in range(3)]
    torch.save(once * 2, folder / "results.pth")
    s = load_set(folder).image_set
    batches = batches_of(s)
    assert len(batches) == len(s.lr) == 6
    for index, (images, _, _) in zip(batches, once * 2, strict=True):
        assert torch.equal(s.images[index.sort().values], images)
    uneven = [(normalised(10, seed=k), torch.arange(10) // 2 + 5 * k, torch.tensor(0.1)) for k in range(2)]
    torch.save(uneven, folder / "results.pth")
    with pytest.raises(UsageError, match="as many images of each class"):
        batches_of(load_set(folder).image_set)


def test_broken_steps_of_dd_are_named(tmp_path):
    steps = dd_steps(1)
    for wrong, words in (
        ([(steps[0][0], steps[0][1], torch.tensor(math.nan)), steps[1]], "no positive number"),
        ([(steps[0][0], steps[0][1][:5], steps[0][2]), steps[1]], "number of labels"),
        ([(steps[0][0][:, :, :16, :16], *steps[0][1:]), steps[1]], "shape of their images"),
    ):
        torch.save(wrong, tmp_path / "results.pth")
        with pytest.raises(DataError, match=words):
            load_set(tmp_path / "results.pth", dataset="cifar10")


# --- KIP, FRePo ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "keys", "space"), [
    ("kip_cifar10_ConvNet3_ssize20_zca_nol_noaug_ckpt1000.npz", ("images", "labels"), ImageZCASpace),
    ("cifar10_frepo.npz", ("image", "label"), RelativeZCASpace),
    ("cifar10_frepo.npz", ("x_proto", "y_proto"), RelativeZCASpace),
])  # fmt: skip
def test_targets_stay_targets_in_the_space_of_their_makers(tmp_path, name, keys, space):
    targets = np.eye(10, dtype=np.float32)[labels().numpy()] - 0.1
    targets[3] *= 0.5
    np.savez(tmp_path / name, **{keys[0]: whitened().permute(0, 2, 3, 1).numpy(), keys[1]: targets})
    found = load_set(tmp_path / name)
    s = found.image_set
    assert torch.equal(s.images, whitened())
    assert (s.label_kind, s.ipc) == ("targets", 2)
    assert torch.equal(s.labels, torch.from_numpy(targets))
    if not [text for text in found.warnings if "without its train images" in text]:  # where they are here
        assert type(s.space) is space
        assert s.space.std == (0.247, 0.2435, 0.2616)
    again(found, tmp_path)
    hard = load_set(tmp_path / name, labels="hard").image_set
    assert torch.equal(hard.labels, labels())
