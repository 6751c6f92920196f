"""Every public layout, written by its description, comes back as the right ImageSet."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from distill.image_set import ImageSet
from distill.spaces import NormalizedSpace, PixelSpace, WhitenedSpace
from distill.zca import ImageZCASpace
from fyi_bench.errors import DataError
from fyi_bench.formats import FORMATS, load_set, save_imported
from fyi_bench.formats.inspection import format_report, inspect_set
from importer_files import (
    CIFAR10,
    CIFAR100,
    dc_file,
    labels,
    mtt_folder,
    normalised,
    picture_folder,
    pictures,
    png,
    whitened,
)


def has(texts: list[str], *words: str) -> bool:
    return any(all(word in text for word in words) for text in texts)


def same(image_set: ImageSet, images: torch.Tensor, targets: torch.Tensor) -> bool:
    return torch.equal(image_set.images, images) and torch.equal(image_set.labels, targets)


def test_every_format_is_registered_with_a_title():
    known = set(FORMATS.names())
    assert known >= {"fyi-bench", "dc", "cafe", "datadam", "dm-continual", "dc-bench", "mtt", "ftd", "datm"}
    assert known >= {"dd-ranking", "idc", "dream", "idm", "haba", "kip", "frepo", "image-folder", "parquet", "tensors"}
    assert all(FORMATS.get(name).__doc__ and FORMATS.get(name).name == name for name in known)


@pytest.mark.parametrize("old", [False, True])
def test_dc_takes_the_last_experiment_and_says_how_many(tmp_path, old):
    path = dc_file(tmp_path, experiments=3, _use_new_zipfile_serialization=not old)
    found = load_set(path)
    assert found.format == "dc"
    assert same(found.image_set, normalised(seed=2), labels())
    assert found.image_set.space == CIFAR10
    assert has(found.guesses, "experiment 2", "last of 3")
    assert found.image_set.provenance["method"] == "dsa"
    assert found.image_set.provenance["dataset"] == "cifar10"
    assert found.image_set.provenance["imported"]["reported_accuracy"] == {"ConvNet": pytest.approx(0.3)}
    assert found.image_set.class_names[0] == "airplane"
    assert not found.warnings


def test_dc_experiment_of_choice(tmp_path):
    path = dc_file(tmp_path, experiments=3)
    assert torch.equal(load_set(path, experiment=0).image_set.images, normalised(seed=0))
    assert torch.equal(load_set(path, experiment=-2).image_set.images, normalised(seed=1))
    with pytest.raises(DataError, match=r"has 3 experiments, so experiment=3 is not there"):
        load_set(path, experiment=3)


def test_accuracies_as_numpy_numbers_and_arrays_are_read(tmp_path):
    path = tmp_path / "res_DM_CIFAR10_ConvNet_2ipc.pt"
    accuracies = {"ConvNet": [np.float64(0.4), np.float32(0.5)], "all": np.arange(6.0).reshape(2, 3)}
    torch.save({"data": [[normalised(), labels()]], "accs_all_exps": accuracies}, path)
    found = load_set(path)
    assert found.image_set.provenance["imported"]["reported_accuracy"] == {"ConvNet": pytest.approx(0.45)}


def test_a_folder_with_one_such_file_is_enough(tmp_path):
    dc_file(tmp_path)
    assert load_set(tmp_path).format == "dc"


def test_cifar100_constants_are_those_of_the_family(tmp_path):
    images, targets = normalised(100, CIFAR100), torch.arange(100)
    torch.save({"data": [[images, targets]]}, tmp_path / "res_DM_CIFAR100_ConvNet_1ipc.pt")
    assert load_set(tmp_path / "res_DM_CIFAR100_ConvNet_1ipc.pt").image_set.space == CIFAR100
    folder = mtt_folder(tmp_path / "CIFAR100" / "run", normalised(100), targets)
    found = load_set(folder)
    assert found.image_set.space == CIFAR10
    assert has(found.guesses, "constants of cifar100", "those of CIFAR-10")


def test_cafe_labels_of_32_bits(tmp_path):
    torch.save({"data": [[normalised(), labels().int()]]}, tmp_path / "res_DC_CIFAR10_ConvNet_2ipc.pt")
    found = load_set(tmp_path / "res_DC_CIFAR10_ConvNet_2ipc.pt")
    assert found.format == "cafe"
    assert same(found.image_set, normalised(), labels())
    assert has(found.guesses, "int32", "int64")


def test_datadam_both_layouts(tmp_path):
    late = normalised(seed=1)
    snapshots = tmp_path / "res_DataDAM_CIFAR10_ConvNet_2ipc_.pt"
    torch.save({"data": [[normalised(), labels()], [late, labels()]]}, snapshots)
    torch.save({"data": [normalised(), labels()]}, tmp_path / "syn_data_CIFAR10_ipc_2.pt")
    last = load_set(snapshots)
    released = load_set(tmp_path / "syn_data_CIFAR10_ipc_2.pt")
    assert (last.format, released.format) == ("datadam", "datadam")
    assert same(last.image_set, late, labels())
    assert same(released.image_set, normalised(), labels())
    assert released.image_set.space == CIFAR10


def test_dm_continual_steps_are_joined_or_chosen(tmp_path):
    path = tmp_path / "cl_DM_CIFAR100_ConvNet_20ipc_2steps_seed0.pt"
    images, targets = normalised(40), torch.tensor([3, 97, 11, 40]).repeat_interleave(10)
    torch.save({"data": [[images[:20], targets[:20]], [images[20:], targets[20:]]]}, path)
    joined = load_set(path)
    assert joined.format == "dm-continual"
    assert same(joined.image_set, images, targets)
    assert joined.image_set.num_classes == 100
    assert has(joined.guesses, "2 steps joined")
    assert has(joined.warnings, "96 of 100 classes have no image")
    assert same(load_set(path, step=1).image_set, images[20:], targets[20:])
    with pytest.raises(DataError, match="steps 0 to 1, not 2"):
        load_set(path, step=2)


def test_steps_that_repeat_classes_give_the_last(tmp_path):
    path = tmp_path / "cl_herding_CIFAR10_2ipc.pt"
    torch.save({"data": [[normalised(10), labels(10)], [normalised(20), labels(20)]]}, path)
    found = load_set(path, dataset="cifar10")
    assert len(found.image_set) == 20
    assert has(found.guesses, "step 1")


def test_mtt_folder_takes_the_best_then_the_latest(tmp_path):
    for tag, seed in (("100", 1), ("2000", 2)):
        mtt_folder(tmp_path / "CIFAR10", normalised(seed=seed), labels(), tag)
    latest = load_set(tmp_path / "CIFAR10")
    assert latest.format == "mtt"
    assert same(latest.image_set, normalised(seed=2), labels())
    mtt_folder(tmp_path / "CIFAR10", normalised(seed=3), labels())
    assert torch.equal(load_set(tmp_path / "CIFAR10").image_set.images, normalised(seed=3))
    assert torch.equal(load_set(tmp_path / "CIFAR10" / "images_100.pt").image_set.images, normalised(seed=1))
    assert torch.equal(load_set(tmp_path / "CIFAR10" / "labels_100.pt").image_set.images, normalised(seed=1))


def test_mtt_undone_whitening_is_pixels(tmp_path):
    folder = mtt_folder(tmp_path / "CIFAR10", whitened(), labels(), "10")
    torch.save(pictures(), folder / "images_zca_10.pt")
    found = load_set(folder / "images_zca_10.pt")
    assert found.image_set.space == PixelSpace()
    assert torch.equal(found.image_set.images, pictures())
    assert isinstance(load_set(folder).image_set.space, WhitenedSpace)


def test_dc_bench_split_files_are_joined(tmp_path):
    images, targets = normalised(50), labels(50)
    for i in range(5):
        torch.save(images[10 * i : 10 * i + 10].clone(), tmp_path / f"images_best_{i}.pt")
        torch.save(targets[10 * i : 10 * i + 10].clone(), tmp_path / f"labels_best_{i}.pt")
    found = load_set(tmp_path, dataset="cifar10")
    assert same(found.image_set, images, targets)
    assert has(found.guesses, "5 parts joined")
    (tmp_path / "labels_best_3.pt").unlink()
    with pytest.raises(DataError, match=r"labels_best_3\.pt is missing"):
        load_set(tmp_path, format="mtt")


def test_dc_bench_coresets(tmp_path):
    stem = tmp_path / "random" / "cifar10_IPC2_normalize"
    stem.parent.mkdir()
    torch.save(normalised(), f"{stem}_images.pt")
    torch.save(labels(), f"{stem}_labels.pt")
    found = load_set(f"{stem}_images.pt")
    assert (found.format, found.image_set.provenance["method"]) == ("dc-bench", "random")
    assert same(found.image_set, normalised(), labels())
    assert found.image_set.space == CIFAR10
    assert load_set(f"{stem}_labels.pt").image_set.digest == found.image_set.digest


def test_ftd_running_mean(tmp_path):
    folder = mtt_folder(tmp_path / "CIFAR10", normalised(), labels(), prefix="ema_")
    found = load_set(folder)
    assert found.format == "ftd"
    assert same(found.image_set, normalised(), labels())


def test_datm_logits_and_step_size(tmp_path):
    logits = torch.randn(20, 10, generator=torch.Generator().manual_seed(0)).requires_grad_()
    folder = mtt_folder(tmp_path / "CIFAR10" / "Normal", normalised().requires_grad_(), logits)
    torch.save(torch.tensor(0.021), folder / "lr_best.pt")
    found = load_set(folder)
    assert found.format == "datm"
    assert torch.equal(found.image_set.labels, logits.detach())
    assert not found.image_set.labels.requires_grad
    assert not found.image_set.images.requires_grad
    assert found.image_set.lr == pytest.approx(0.021)
    assert has(found.guesses, "logits")


RATES = {
    "synset_lr_best.pt": torch.nn.Parameter(torch.tensor(0.03, dtype=torch.bfloat16)),
    "learned_lr.pt": torch.tensor([[0.03]], dtype=torch.float16),
    "lr_best.pth": {"lr": torch.tensor(0.03, dtype=torch.bfloat16, requires_grad=True)},
    "syn_lr.pt": {"step": 12, "syn_lr": 0.03},
}


@pytest.mark.parametrize("name", RATES)
def test_a_learned_step_size_in_any_type_and_under_any_usual_name(tmp_path, name):
    folder = mtt_folder(tmp_path / "CIFAR10", normalised(), labels())
    torch.save(RATES[name], folder / name)
    found = load_set(folder)
    assert found.image_set.lr == pytest.approx(0.03, rel=0.01)
    torch.save(torch.tensor([0.01, 0.02, 0.03]), folder / name)
    found = load_set(folder)
    assert found.image_set.lr is None
    assert has(found.guesses, f"the learned step size was not read: {name}")


NAMED = [("run", None), ("MTT", "mtt"), ("DATM/run", "datm"), ("tesla_1", "tesla")]


@pytest.mark.parametrize(("folder", "method"), NAMED)
def test_a_layout_is_no_method(tmp_path, folder, method):
    """A learned step size beside the images, soft labels, a running mean: whoever made them, only names say it."""
    place = mtt_folder(tmp_path / "CIFAR10" / folder, normalised(), labels())
    torch.save(torch.tensor(0.021), place / "lr_best.pt")
    found = load_set(place)
    assert (found.format, found.image_set.lr) == ("mtt", pytest.approx(0.021))
    assert found.image_set.provenance.get("method") == method
    mtt_folder(place, normalised(), torch.randn(20, 10))
    assert load_set(place).image_set.provenance.get("method") == method
    torch.save([normalised(), labels()], place / "data.pt")
    assert load_set(place / "data.pt", format="idc", space="normalized").image_set.provenance.get("method") == method
    assert load_set(place, method="mine", name="ours").image_set.provenance["method"] == "mine"
    if method is None:
        assert "made by      method unknown" in format_report(inspect_set(place))


def test_dd_ranking_with_soft_labels_and_without(tmp_path):
    soft = torch.softmax(torch.randn(20, 10, generator=torch.Generator().manual_seed(0)), dim=1)
    torch.save(normalised(), tmp_path / "images.pt")
    torch.save(soft, tmp_path / "labels.pt")
    torch.save(torch.tensor([0.01]), tmp_path / "lr.pt")
    found = load_set(tmp_path, dataset="cifar10")
    assert found.format == "dd-ranking"
    assert found.image_set.lr == pytest.approx(0.01)
    assert torch.allclose(found.image_set.labels.softmax(1), soft, atol=1e-6)
    (tmp_path / "labels.pt").unlink()
    for stated in ({"dataset": "cifar10"}, {"ipc": 2, "dataset": "cifar10"}):
        assert same(load_set(tmp_path, **stated).image_set, normalised(), labels())
    with pytest.raises(DataError, match=r"no labels.*\n.*ipc"):
        load_set(tmp_path)


def test_idc_factor_from_notes_name_or_caller(tmp_path):
    folder = tmp_path / "cifar10" / "conv3in_grad_mse_nd2000_cut_niter2000_factor2_lr0.005_mix_ipc2"
    folder.mkdir(parents=True)
    images = pictures() * 1.04 - 0.02
    torch.save([images, labels()], folder / "data.pt")
    named = load_set(folder)
    assert named.format == "idc"
    assert same(named.image_set, images, labels())
    assert (named.image_set.factor, named.image_set.space) == (2, PixelSpace())
    (folder / "args.txt").write_text(json.dumps({"factor": 3, "dataset": "cifar10", "decode_type": "multi"}))
    noted = load_set(folder / "data.pt").image_set
    assert (noted.factor, noted.decode_type) == (3, "multi")
    assert load_set(folder, factor=1).image_set.factor == 1


def test_idc_phases_are_joined_in_order(tmp_path):
    for phase in (10, 0, 2):
        folder = tmp_path / f"conv3in_factor2_ipc1_20_phase{phase}"
        folder.mkdir()
        torch.save([pictures(4, seed=phase), torch.arange(4)], folder / "data.pt")
    found = load_set(tmp_path)
    assert torch.equal(found.image_set.labels, torch.arange(12))
    assert torch.equal(found.image_set.images, torch.cat([pictures(4, seed=i) for i in (0, 2, 10)]))
    assert found.image_set.factor == 2
    alone = load_set(tmp_path / "conv3in_factor2_ipc1_20_phase2")
    assert has(alone.warnings, "one of several phases")


def hallucinator_weights(models: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.2

    state = {}
    for k in range(models):
        state |= {f"{k}.scale": 1 + draw(1, 3, 30, 30), f"{k}.shift": draw(1, 3, 30, 30)}
        state |= {f"{k}.enc.weight": draw(3, 3, 3, 3), f"{k}.enc.bias": draw(3)}
        state |= {f"{k}.dec.weight": draw(3, 3, 3, 3), f"{k}.dec.bias": draw(3)}
    return state


def test_haba_bases_are_decoded_by_all_hallucinators(tmp_path):
    folder, state = tmp_path / "CIFAR10", hallucinator_weights(5)
    folder.mkdir()
    torch.save(normalised(10), folder / "images_best.pt")
    torch.save(state, folder / "weights_best.pt")
    found = load_set(folder, space="normalized")
    assert (found.format, len(found.image_set), found.image_set.ipc) == ("haba", 10, 1)
    assert torch.equal(found.image_set.images, normalised(10))
    assert torch.equal(found.image_set.labels, labels(10))
    assert found.image_set.nbytes == normalised(10).nbytes + 10 * 8 + sum(t.nbytes for t in state.values())
    shown = found.image_set.decoded()
    assert (shown.variants, shown.items) == (5, 10)
    assert torch.equal(shown.labels, labels(50))
    for base, model in ((0, 0), (3, 4)):
        conv, back = torch.nn.Conv2d(3, 3, 3), torch.nn.ConvTranspose2d(3, 3, 3)
        conv.load_state_dict({"weight": state[f"{model}.enc.weight"], "bias": state[f"{model}.enc.bias"]})
        back.load_state_dict({"weight": state[f"{model}.dec.weight"], "bias": state[f"{model}.dec.bias"]})
        with torch.no_grad():
            hidden = conv(normalised(10)[base : base + 1]) * state[f"{model}.scale"] + state[f"{model}.shift"]
            expected = back(hidden)[0]
        assert torch.allclose(shown.images[5 * base + model], expected, atol=1e-5)


def test_images_a_class_are_stated_of_habas_bases(tmp_path):
    folder = tmp_path / "CIFAR10"
    folder.mkdir()
    torch.save(normalised(20), folder / "images_best.pt")
    torch.save(hallucinator_weights(5), folder / "weights_best.pt")
    for stated in ({}, {"ipc": 2}, {"ipc": 2, "dataset": "cifar10"}):
        found = load_set(folder, space="normalized", **stated).image_set
        assert torch.equal(found.labels, labels(10).repeat_interleave(2))
        assert (found.ipc, found.num_classes, found.provenance["ipc"]) == (2, 10, 2)
    with pytest.raises(DataError):
        load_set(folder, space="normalized", dataset="cifar10", ipc=10)


def test_haba_of_another_structure_is_refused(tmp_path):
    torch.save(normalised(10), tmp_path / "images_best.pt")
    torch.save({"0.weight": torch.zeros(3, 3, 5, 5)}, tmp_path / "weights_best.pt")
    with pytest.raises(DataError, match="not HaBa's hallucinators"):
        load_set(tmp_path, dataset="cifar10")


def test_kip_arrays(tmp_path):
    targets = np.eye(10, dtype=np.float32)[labels().numpy()] - 0.1
    path = tmp_path / "kip_cifar10_ConvNet3_ssize20_zca_nol_noaug_ckpt1000.npz"
    np.savez(path, images=whitened().permute(0, 2, 3, 1).numpy(), labels=targets)
    found = load_set(path)
    assert found.format == "kip"
    assert same(found.image_set, whitened(), torch.from_numpy(targets))
    assert found.image_set.label_kind == "targets"
    assert isinstance(found.image_set.space, WhitenedSpace | ImageZCASpace)  # as its train images are here or not
    assert has(found.guesses, "channels last")
    assert has(found.guesses, "largest entry")
    assert same(load_set(path, labels="hard").image_set, whitened(), labels())


@pytest.mark.parametrize("packed", [True, False])
def test_frepo_prototypes(tmp_path, packed):
    arrays = {"x_proto": whitened().permute(0, 2, 3, 1).numpy(), "y_proto": np.eye(10, dtype="f4")[labels()] - 0.1}
    np.savez(tmp_path / "all.npz", **arrays)
    for name, value in arrays.items():
        np.save(tmp_path / f"{name}.npy", value)
    found = load_set(tmp_path / ("all.npz" if packed else "x_proto.npy"), dataset="cifar10")
    assert found.format == "frepo"
    assert same(found.image_set, whitened(), torch.from_numpy(arrays["y_proto"]))
    assert found.image_set.space.kind in ("whitened", "zca-relative")


def test_a_set_of_ours_comes_back_whole(tmp_path):
    original = ImageSet(normalised(), labels(), CIFAR10, 10, lr=0.02, factor=2, provenance={"method": "mtt"})
    original.save(tmp_path / "set.safetensors")
    for path in (tmp_path, tmp_path / "set.safetensors"):
        found = load_set(path)
        assert found.format == "fyi-bench"
        assert found.image_set.digest == original.digest
        assert found.image_set.provenance == {"method": "mtt"}


def test_safetensors_of_others(tmp_path):
    from safetensors.torch import save_file

    save_file({"images": normalised(), "labels": labels()}, tmp_path / "cifar10.safetensors")
    found = load_set(tmp_path / "cifar10.safetensors")
    assert same(found.image_set, normalised(), labels())
    assert found.image_set.space == CIFAR10


@pytest.mark.parametrize("channels", [1, 3])
def test_folder_of_pictures(tmp_path, channels):
    levels = picture_folder(tmp_path, ["cat", "dog", "emu"], channels=channels)
    found = load_set(tmp_path)
    assert found.format == "image-folder"
    assert same(found.image_set, levels, labels(6, 3))
    assert found.image_set.class_names == ("cat", "dog", "emu")
    assert found.image_set.space == PixelSpace()


def test_folders_called_by_numbers_keep_them(tmp_path):
    levels = picture_folder(tmp_path / "a", ["0", "2", "10"])
    found = load_set(tmp_path / "a").image_set
    assert found.num_classes == 11
    assert torch.equal(found.images[found.labels == 10], levels[4:])
    picture_folder(tmp_path / "b", ["01_zebra", "00_wasp", "02_ant"])
    assert load_set(tmp_path / "b").image_set.class_names == ("wasp", "zebra", "ant")


def test_folders_of_a_known_data_set_take_its_order(tmp_path):
    from fyi_bench.data import DATASETS

    names = [name for name, _ in DATASETS.get("imagewoof").layouts[0].classes]
    levels = picture_folder(tmp_path, names)
    found = load_set(tmp_path)
    assert torch.equal(found.image_set.images[found.image_set.labels == 0], levels[:2])
    assert has(found.guesses, "imagewoof")


@pytest.mark.parametrize("column", ["img", "image"])
def test_parquet_of_the_hub(tmp_path, column):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    rows = [{"bytes": png(image), "path": None} for image in pictures(6, size=8)]
    features = {"label": {"names": ["x", "y", "z"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = arrow.table({column: rows, "label": [0, 0, 1, 1, 2, 2]}).replace_schema_metadata(metadata)
    parquet.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    for path in (tmp_path, tmp_path / "train-00000-of-00001.parquet"):
        found = load_set(path)
        assert found.format == "parquet"
        assert same(found.image_set, (pictures(6, size=8) * 255).round().to(torch.uint8), labels(6, 3))
        assert found.image_set.class_names == ("x", "y", "z")


def test_plain_tensors(tmp_path):
    torch.save({"images": normalised(), "labels": labels(), "lr": 0.02}, tmp_path / "cifar10_a.pt")
    torch.save([normalised(), labels()], tmp_path / "cifar10_b.pt")
    np.savez(tmp_path / "cifar10_c.npz", images=normalised().numpy(), labels=labels().numpy())
    torch.save(normalised(), tmp_path / "cifar10_d.pt")
    np.save(tmp_path / "cifar10_e.npy", normalised().numpy())
    found = [load_set(path) for path in sorted(tmp_path.iterdir())]
    assert [f.format for f in found] == ["tensors"] * 5
    assert all(same(f.image_set, normalised(), labels()) for f in found)
    assert [f.image_set.lr for f in found] == [0.02, None, None, None, None]
    assert has(found[3].guesses, "no labels", "2 of each of 10 classes")


def test_saving_keeps_a_set_whose_pixels_cannot_be_computed(tmp_path):
    torch.save([whitened(), labels()], tmp_path / "x.pt")
    found = load_set(tmp_path / "x.pt", space="zca")
    path = save_imported(found, tmp_path / "whitened" / "set.safetensors")
    assert not (path.parent / "preview.png").exists()
    assert ImageSet.load(path).digest == found.image_set.digest
    plain = save_imported(load_set(dc_file(tmp_path)), tmp_path / "plain" / "set.safetensors")
    assert (plain.parent / "preview.png").exists()
    assert isinstance(ImageSet.load(plain).space, NormalizedSpace)
