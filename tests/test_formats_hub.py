"""Sets in the Hub's own files: parquet under any of its columns, `save_to_disk`; SRe2L's and rethinkdc's names."""

from __future__ import annotations

import io
import json
import zipfile

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from fyi_bench.errors import DataError
from fyi_bench.formats import load_set
from importer_files import picture_folder, pictures, png

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def rows(labels, column: str = "label", names: list[str] | None = None, images=None) -> arrow.Table:
    """A table as the Hub's library writes it."""
    images = pictures(len(labels)) if images is None else images
    values = [{"bytes": png(image), "path": None} for image in images]
    kind = {"names": names, "_type": "ClassLabel"} if names else {"dtype": "int32", "_type": "Value"}
    features = {"image": {"_type": "Image"}, column: kind}
    schema = arrow.schema(
        [("image", arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])),
         (column, arrow.string() if isinstance(labels[0], str) else arrow.int32())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )  # fmt: skip
    return arrow.table([arrow.array(values, schema.field(0).type), arrow.array(labels, schema.field(1).type)], schema)


def save_to_disk(folder, table: arrow.Table, shards: int = 2, **options):
    """A folder of Dataset.save_to_disk."""
    folder.mkdir(parents=True)
    files = [f"data-{i:05d}-of-{shards:05d}.arrow" for i in range(shards)]
    each = -(-len(table) // shards)
    for i, name in enumerate(files):
        with arrow.OSFile(str(folder / name), "wb") as sink:
            settings = arrow.ipc.IpcWriteOptions(**options)
            with arrow.ipc.new_stream(sink, table.schema, options=settings) as writer:
                writer.write_table(table.slice(i * each, each))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in files]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


LABELS = [0, 0, 3, 3, 9, 9]


@pytest.mark.parametrize("column", ["label", "labels", "class_id", "fine_label"])
def test_labels_under_any_of_their_columns(tmp_path, column):
    parquet.write_table(rows(LABELS, column, NAMES), tmp_path / "cifar10.parquet")
    found = load_set(tmp_path / "cifar10.parquet").image_set
    assert found.labels.tolist() == LABELS
    parquet.write_table(rows(LABELS, column, NAMES[::-1]), tmp_path / "cifar10.parquet")
    found = load_set(tmp_path / "cifar10.parquet").image_set
    assert found.labels.tolist() == [9 - label for label in LABELS]  # by name


def test_fine_labels_before_coarse_ones(tmp_path):
    table = rows([0, 5, 99], "fine_label").append_column("coarse_label", arrow.array([1, 1, 1]))
    parquet.write_table(table, tmp_path / "cifar100.parquet")
    assert load_set(tmp_path / "cifar100.parquet").image_set.labels.tolist() == [0, 5, 99]


def test_save_to_disk_folders_are_read(tmp_path):
    table = rows(LABELS, names=NAMES)
    parquet.write_table(table, tmp_path / "cifar10.parquet")
    plain = load_set(tmp_path / "cifar10.parquet").image_set
    found = load_set(save_to_disk(tmp_path / "cifar10_dm", table))
    assert (found.format, found.dataset) == ("arrow", "cifar10")
    assert found.image_set.digest == plain.digest
    assert load_set(tmp_path / "cifar10_dm" / "data-00000-of-00002.arrow").image_set.labels.tolist() == LABELS[:3]
    for split in ("train", "test"):
        save_to_disk(tmp_path / "cifar10_dict" / split, table)
    (tmp_path / "cifar10_dict" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert load_set(tmp_path / "cifar10_dict").image_set.digest == plain.digest


def test_broken_arrow_files_are_named(tmp_path):
    folder = save_to_disk(tmp_path / "cifar10", rows(LABELS, names=NAMES))
    path = folder / "data-00001-of-00002.arrow"
    whole = path.read_bytes()

    def message(**facts) -> str:
        with pytest.raises(DataError) as caught:
            load_set(folder, **facts)
        assert len(str(caught.value).splitlines()) == 2
        return str(caught.value)

    for end in (4, 100, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:end])
        assert path.name in message() or end == len(whole) - 20
    path.write_bytes(whole[:4] + b"\xff" * 60 + whole[64:])
    assert path.name in message()
    path.unlink()
    assert "is absent" in message()
    path.write_bytes(whole)
    assert "at most" in message(max_bytes=1000)
    packed = save_to_disk(tmp_path / "packed", rows(LABELS, names=NAMES), compression="zstd")
    with pytest.raises(DataError, match="compressed Arrow"):
        load_set(packed, dataset="cifar10")
    links = rows(LABELS).set_column(0, "image", arrow.array([{"bytes": None, "path": "a.png"}] * 6))
    with pytest.raises(DataError, match="no image bytes"):
        load_set(save_to_disk(tmp_path / "links", links, 1), dataset="cifar10")


def test_offsets_that_point_outside_are_refused(tmp_path):
    """They would be read from wherever they point to."""
    table = arrow.table({"image": arrow.array([b"abcd", b"efgh"]), "label": arrow.array([0, 1])})
    folder = save_to_disk(tmp_path / "set", table, 1)
    path = folder / "data-00000-of-00001.arrow"
    offsets = b"".join(n.to_bytes(4, "little") for n in (0, 4, 8))
    assert path.read_bytes().count(offsets) == 1
    path.write_bytes(path.read_bytes().replace(offsets, b"".join(n.to_bytes(4, "little") for n in (0, 4, 2**30))))
    with pytest.raises(DataError, match="not a readable Arrow file"):
        load_set(folder)


def test_a_clone_that_lacks_files_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    parquet.write_table(rows(LABELS, "class_id"), tmp_path / "data" / "train-00000-of-00003-86921e166bc0c887.parquet")
    with pytest.raises(DataError, match="1 of the 3 files"):
        load_set(tmp_path, dataset="cifar10")


def test_sets_of_rethinkdc(tmp_path):
    """Parquet with class_id alone, in data/ of a repository; its name says method and data."""
    clone = tmp_path / "2025-rethinkdc-cifar10-sre2l-ipc-2"
    (clone / "data").mkdir(parents=True)
    (clone / "README.md").write_text("# set")
    labels = [label for label in range(10) for _ in range(2)]
    for i in range(2):
        name = f"train-0000{i}-of-00002-86921e166bc0c887.parquet"
        parquet.write_table(rows(labels[10 * i :][:10], "class_id"), clone / "data" / name)
    found = load_set(clone)
    assert (found.dataset, found.image_set.ipc) == ("cifar10", 2)
    assert found.image_set.provenance["method"] == "sre2l"
    assert found.image_set.labels.tolist() == labels
    assert found.image_set.class_names == tuple(NAMES)


def sre2l_zip(path, classes: list[int], each: int = 2) -> torch.Tensor:
    """new000/class000_id000.jpg …, as SRe2L's recovery saves them."""
    images = pictures(len(classes) * each)
    with zipfile.ZipFile(path, "w") as archive:
        for i, image in enumerate(images):
            label, number = classes[i // each], i % each
            buffer = io.BytesIO()
            Image.open(io.BytesIO(png(image))).save(buffer, format="JPEG", quality=95)
            archive.writestr(f"syn/new{label:03d}/class{label:03d}_id{number:03d}.jpg", buffer.getvalue())
    return images


def test_zips_of_sre2l_have_their_class_names_put_back(tmp_path):
    images = sre2l_zip(tmp_path / "sre2l_cifar10.zip", list(range(10)))
    found = load_set(tmp_path / "sre2l_cifar10.zip")
    assert (found.dataset, found.image_set.provenance["method"]) == ("cifar10", "sre2l")
    assert found.image_set.labels.tolist() == [label for label in range(10) for _ in range(2)]
    assert found.image_set.class_names == tuple(NAMES)
    assert float((found.image_set.pixels() - images).abs().mean()) < 0.02
    sre2l_zip(tmp_path / "some_cifar100.zip", [3, 40, 98])  # gaps move nothing
    found = load_set(tmp_path / "some_cifar100.zip")
    assert found.image_set.labels.tolist() == [3, 3, 40, 40, 98, 98]
    assert found.image_set.num_classes == 100


def test_pictures_in_the_folder_of_another_class_are_refused(tmp_path):
    picture_folder(tmp_path / "set", [f"new{label:03d}" for label in range(10)])
    (tmp_path / "set" / "new003" / "0.png").rename(tmp_path / "set" / "new003" / "class005_id000.png")
    (tmp_path / "wnids" / "n02102040").mkdir(parents=True)  # a name, not a number
    (tmp_path / "wnids" / "n02102040" / "class001_id000.png").write_bytes(png(pictures(1)[0]))
    assert load_set(tmp_path / "wnids").image_set.num_classes == 1
    with pytest.raises(DataError, match=r"class005_id000\.png is in the folder of another class, new003"):
        load_set(tmp_path / "set")
