"""Sets in archives and in repositories of the Hub: unpacked and fetched safely, told by the name that was given."""

from __future__ import annotations

import io
import socket
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch

import fyi_bench
from fyi_bench.data import load_dataset
from fyi_bench.errors import DataError
from fyi_bench.formats import export_set, load_set
from fyi_bench.formats.unpacking import unpack
from importer_files import dc_file, labels, mtt_folder, normalised, picture_folder, png, trap_bytes

hub = pytest.importorskip("huggingface_hub.constants", reason="needs the extra 'hub'")
CLASSES = [f"new{label:03d}" for label in range(10)]


def packed(folder: Path, path: Path, inside: str = "") -> Path:
    """An archive of a folder, by the ending of its name."""
    files = [(each, inside + str(each.relative_to(folder))) for each in sorted(folder.rglob("*")) if each.is_file()]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for each, name in files:
                archive.write(each, name)
    else:
        with tarfile.open(path, "w:" + {"tar": "", "tgz": "gz"}.get(path.suffix[1:], path.suffix[1:])) as archive:
            for each, name in files:
                archive.add(each, name)
    return path


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz", "set.tar.xz", "set.tar.bz2", "set.tgz"])
def test_pictures_in_archives_are_those_of_the_folder(tmp_path, name):
    picture_folder(tmp_path / "set", CLASSES)
    plain = load_set(tmp_path / "set")
    found = load_set(packed(tmp_path / "set", tmp_path / name, inside="syn_data/best/"))
    assert found.format == "image-folder"
    assert found.image_set.digest == plain.image_set.digest
    assert next(iter(found.image_set.provenance["imported"]["files"])) == name


def test_tensors_in_archives_are_read_and_what_they_were_unpacked_to_is_gone(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    folder = mtt_folder(tmp_path / "mtt", normalised(), labels())
    found = load_set(packed(folder, tmp_path / "CIFAR10_mtt.zip"))
    assert (found.format, found.dataset) == ("mtt", "cifar10")
    (tmp_path / "one").mkdir()
    dc_file(tmp_path / "one")
    (tmp_path / "one" / "README.md").write_text("# set")
    assert load_set(packed(tmp_path / "one", tmp_path / "one.tar.gz")).format == "dc"
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("name", ["images.tar", "images.zip"])
def test_an_archive_that_is_all_a_folder_holds_is_read(tmp_path, name):
    picture_folder(tmp_path / "set", CLASSES)
    folder = tmp_path / "download" / "distilled"
    folder.mkdir(parents=True)
    packed(tmp_path / "set", folder / name, inside="train/")
    (folder / "README.md").write_text("# set")
    found = load_set(tmp_path / "download")
    assert found.image_set.digest == load_set(tmp_path / "set").image_set.digest
    packed(tmp_path / "set", folder / "more.tar")
    assert "no known layout" in the_message(tmp_path / "download")


def the_message(path: Path, **facts) -> str:
    with pytest.raises(DataError) as caught:
        load_set(path, **facts)
    text = str(caught.value)
    assert str(path) in text
    assert tempfile.gettempdir() + "/fyi-bench-" not in text
    assert len(text.splitlines()) <= 2
    return text


@pytest.mark.parametrize("name", ["../evil.pt", "/tmp/evil.pt", "a/../../evil.pt", "..\\evil.pt", "C:\\evil.pt"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_nothing_leaves_the_folder(tmp_path, name, kind):
    path, inner = tmp_path / f"set.{kind}", tmp_path / "inner"
    inner.mkdir()
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"x")
    else:
        with tarfile.open(path, "w") as archive:
            entry = tarfile.TarInfo(name)
            entry.size = 1
            archive.addfile(entry, io.BytesIO(b"x"))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="outside its folder"):
        unpack(path, inner, 100)
    assert set(tmp_path.rglob("*")) == before
    assert "outside its folder" in the_message(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        entry = tarfile.TarInfo("link")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    assert "holds a link or a device" in the_message(tmp_path / "set.tar")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert "holds a link or a device" in the_message(tmp_path / "set.zip")


def test_archives_that_would_fill_disk_or_memory_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.pt", bytes(2**22))
    assert "at most 1.0 MiB" in the_message(tmp_path / "bomb.zip", max_bytes=2**20)
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as archive:
        for number in range(3):
            entry = tarfile.TarInfo(f"{number}.pt")
            entry.size = 2**19
            archive.addfile(entry, io.BytesIO(bytes(2**19)))
    assert "at most 1.0 MiB" in the_message(tmp_path / "bomb.tar.gz", max_bytes=2**20)
    with tarfile.open(tmp_path / "names.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("x" * 2**21))
    assert "a header of 2.0 MiB" in the_message(tmp_path / "names.tar.gz")


def test_broken_and_odd_archives_are_named(tmp_path):
    picture_folder(tmp_path / "set", CLASSES)
    for name in ("set.zip", "set.tar.gz"):
        whole = packed(tmp_path / "set", tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        assert "truncated or damaged" in the_message(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert "holds no files" in the_message(tmp_path / "empty.zip")
    with zipfile.ZipFile(tmp_path / "nested.zip", "w") as archive:
        archive.write(tmp_path / "empty.zip", "empty.zip")
    assert "another archive" in the_message(tmp_path / "nested.zip")
    sentinel = tmp_path / "ran"
    with zipfile.ZipFile(tmp_path / "trap.zip", "w") as archive:
        archive.writestr("data.pkl", trap_bytes(sentinel))
    assert "is a pickle" in the_message(tmp_path / "trap.zip")
    assert not sentinel.exists()
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        for _ in range(2):
            archive.add(tmp_path / "empty.zip", "a/0.png")
    assert "holds the name 0.png twice" in the_message(tmp_path / "twice.tar")
    with zipfile.ZipFile(tmp_path / "page.zip", "w") as archive:
        archive.writestr("set.pt", "<!doctype html>")
    assert "page.zip/set.pt is a web page" in the_message(tmp_path / "page.zip")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the Hub, and no network."""
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)

    def repository(name: str, kind: str = "dataset") -> Path:
        place = tmp_path / "hub" / f"{kind}s--{name.replace('/', '--')}"
        snapshot = place / "snapshots" / ("a" * 40)
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text("a" * 40)
        snapshot.mkdir(parents=True)
        (snapshot / "README.md").write_text("# a set")
        return snapshot

    return repository


def test_sets_of_the_hub_are_read_from_its_cache(tmp_path, cache):
    plain = load_set(dc_file(tmp_path))
    dc_file(cache("someone/dsa_cifar10"))
    for address in ("hf:someone/dsa_cifar10", "hf:someone/dsa_cifar10@main", Path("hf:someone/dsa_cifar10")):
        found = load_set(address)
        assert (found.format, found.dataset) == ("dc", "cifar10")
        assert found.image_set.digest == plain.image_set.digest
    assert load_set(f"hf:someone/dsa_cifar10/{dc_file(tmp_path).name}").image_set.digest == plain.image_set.digest
    dc_file(cache("someone/a-model", "model"))
    assert load_set("hf:someone/a-model").image_set.digest == plain.image_set.digest
    (cache("someone/parquet") / "data").mkdir()
    place = tmp_path / "hub/datasets--someone--parquet/snapshots" / ("a" * 40) / "data" / "train-00000-of-00001.parquet"
    export_set(plain.image_set, place, "parquet")
    assert load_set("hf:someone/parquet").format == "parquet"
    assert fyi_bench.inspect("hf:someone/parquet", duplicates=False)["file"]["files"] == 2


def test_real_data_of_the_hub(tmp_path, cache):
    folder = cache("someone/shapes") / "data"
    shapes = load_dataset("shapes10")
    for split, images in (("train", shapes.train), ("test", shapes.test)):
        chosen = torch.cat([images.indices_of(label)[:2] for label in range(10)])
        export_set(images.select(chosen), folder / f"{split}-00000-of-00001.parquet", "parquet")
    found = load_dataset("hf:someone/shapes")
    assert (found.name, found.num_classes, len(found.train), len(found.test)) == ("hf:someone/shapes", 10, 20, 20)
    assert found.class_names == shapes.class_names
    cache("someone/empty")
    with pytest.raises(DataError, match="train-"):
        load_dataset("hf:someone/empty")


def test_what_cannot_be_had_is_told_in_two_lines(tmp_path, cache, monkeypatch):
    def lines(address: str) -> list[str]:
        with pytest.raises(DataError) as caught:
            load_set(address)
        return str(caught.value).splitlines()

    cache("someone/empty")
    for address in ("hf:someone/absent", "hf:someone/empty/absent.pt", "hf:nobody", "hf:../../etc/passwd", "hf:a/b@"):
        found = lines(address)
        assert len(found) == 2
        assert found[0].startswith(address)
    assert "HF_HUB_OFFLINE is set" in lines("hf:someone/absent")[0]

    def unknown(*arguments, **named):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    found = lines("hf:someone/absent")
    assert len(found) == 2
    assert "cannot be reached" in found[0]


def test_a_picture_beside_its_class(tmp_path):
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "0.png").write_bytes(png(torch.rand(3, 32, 32)))
    found = load_set(packed(tmp_path / "set", tmp_path / "cats.zip"), dataset="cifar10")
    assert found.image_set.labels.tolist() == [3]
