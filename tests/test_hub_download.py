"""Sets fetched by the Hub's own client from a server that answers as the Hub: whole, resumed, or refused in words."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, HubServer, Repository, serving
from layouts import SHUFFLED, written

import fyi_bench
from fyi_bench.data.hub import Address, fetch
from fyi_bench.errors import DataError
from fyi_bench.formats import load_set

constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra 'hub'")
NAME = "somebody/cifar10-set"


def files_of(place: Path) -> dict[str, bytes]:
    root = place if place.is_dir() else place.parent
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[HubServer]:
    """The server, an empty cache, and nobody logged in; the client waits for nothing."""
    with serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        yield hub


@pytest.fixture
def mtt(tmp_path) -> dict[str, bytes]:
    """MTT's files and a page that describes them."""
    return {**files_of(written("mtt", tmp_path / "made")), "README.md": b"# a set", "notes/log.txt": b"x" * 50}


def message(address: str, **facts) -> str:
    with pytest.raises(DataError) as caught:
        load_set(address, **facts)
    assert len(str(caught.value).splitlines()) == 2
    assert str(caught.value).startswith(address) or address.split("/")[1].partition("@")[0] in str(caught.value)
    return str(caught.value)


def test_a_repository_is_fetched_once_and_read_without_a_network(server, mtt, tmp_path, monkeypatch):
    server.repositories[NAME] = Repository({"main": mtt})
    found = load_set(f"hf:{NAME}")
    assert (found.format, found.dataset) == ("mtt", "cifar10")
    assert found.image_set.labels.tolist() == SHUFFLED.tolist()
    tree = f"GET /api/datasets/{NAME}/tree/{server.repositories[NAME].commit('main')}"
    assert server.asked.count(tree) == 3  # four files and a folder, page by page
    assert not [each for each in server.asked if each.endswith("log.txt")]  # only what a reader knows
    assert len([each for each in server.asked if each.startswith("GET /cdn/")]) == 1  # images; labels are small
    server.asked.clear()
    assert load_set(f"hf:{NAME}").image_set.digest == found.image_set.digest
    assert not [each for each in server.asked if each.startswith("GET") and "/api/" not in each]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.asked.clear()
    assert load_set(f"hf:{NAME}").image_set.digest == found.image_set.digest
    assert not server.asked
    assert "HF_HUB_OFFLINE is set" in message("hf:somebody/other")


def test_a_file_of_a_repository_at_a_revision(server, mtt, tmp_path):
    other = {**mtt, **files_of(written("mtt", tmp_path / "v2", classes=SHUFFLED.flip(0)))}
    server.repositories[NAME] = Repository({"main": mtt, "v2": other})
    assert load_set(f"hf:{NAME}@v2").image_set.labels.tolist() == SHUFFLED.flip(0).tolist()
    assert load_set(f"hf:{NAME}").image_set.labels.tolist() == SHUFFLED.tolist()
    commit = server.repositories[NAME].commit("v2")
    assert load_set(f"hf:{NAME}@{commit}").image_set.labels.tolist() == SHUFFLED.flip(0).tolist()
    one = files_of(written("dc", tmp_path / "dc"))
    server.repositories["somebody/dc"] = Repository({"main": one}, kind="models")
    name = next(iter(one))
    assert load_set(f"hf:somebody/dc/{name}").image_set.labels.tolist() == SHUFFLED.tolist()
    assert "has no revision 'v3'" in message(f"hf:{NAME}@v3")
    assert "has no file absent.pt" in message(f"hf:{NAME}/absent.pt")
    assert "has nothing called absent" in message(f"hf:{NAME}/absent")


@pytest.mark.long
@pytest.mark.parametrize("trouble", ["cut", "ranges"])
def test_a_download_that_breaks_off_goes_on(server, mtt, trouble):
    """From where it was, or anew where the server knows no ranges; the content is what was saved."""
    server.repositories[NAME] = Repository({"main": mtt}, trouble=trouble)
    found = load_set(f"hf:{NAME}").image_set
    assert found.labels.tolist() == SHUFFLED.tolist()
    assert len(server.cut) == 1
    digest = hashlib.sha256(mtt["images_best.pt"]).hexdigest()
    assert len([each for each in server.asked if each == f"GET /cdn/{trouble}/{digest}"]) == 2


def test_private_and_gated_repositories_say_what_to_do(server, mtt, monkeypatch):
    server.repositories["somebody/hidden"] = Repository({"main": mtt}, private=True)
    server.repositories["somebody/gated"] = Repository({"main": mtt}, gated=True)
    assert "no repository somebody/absent, or it is private" in message("hf:somebody/absent")
    text = message("hf:somebody/hidden")
    assert "or it is private" in text
    assert "hf auth login" in text
    for address in ("hf:somebody/gated", "hf:somebody/gated/images_best.pt"):
        text = message(address)
        assert "is gated" in text
        assert f"{server.address}/datasets/somebody/gated" in text
    monkeypatch.setenv("HF_TOKEN", "hf_" + "y" * 34)
    text = message("hf:somebody/hidden")
    assert "y" * 34 not in text
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load_set("hf:somebody/hidden").image_set.labels.tolist() == SHUFFLED.tolist()


@pytest.mark.parametrize(("trouble", "code"), [("busy", "429"), ("down", "503")])
def test_a_busy_or_broken_server_is_told_and_its_cache_is_used(server, mtt, trouble, code):
    server.repositories[NAME] = Repository({"main": mtt}, trouble=trouble)
    for address in (f"hf:{NAME}", f"hf:{NAME}/images_best.pt"):
        text = message(address)
        assert "cannot be reached" in text
        assert code in text
    server.repositories[NAME].trouble = ""
    found = load_set(f"hf:{NAME}").image_set
    server.repositories[NAME].trouble = trouble
    assert load_set(f"hf:{NAME}").image_set.digest == found.digest


def test_a_repository_that_is_too_large_is_not_fetched(server, mtt):
    server.repositories[NAME] = Repository({"main": mtt})
    for address in (f"hf:{NAME}", f"hf:{NAME}/images_best.pt"):
        assert "--max-bytes" in message(address, max_bytes=1000)
    assert not [each for each in server.asked if each.startswith("GET /cdn/")]


def test_a_part_of_a_snapshot_is_not_taken_for_the_whole(server, mtt, monkeypatch):
    """One file was fetched, then the network goes: the repository as a whole is not there."""
    server.repositories[NAME] = Repository({"main": mtt})
    fetch(Address(NAME, "labels_best.pt"), 2**30)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError):
        load_set(f"hf:{NAME}")


def test_what_was_exported_is_served_and_evaluated_whole(server, tmp_path):
    place = written("hub", tmp_path / "made")
    server.repositories[NAME] = Repository({"main": files_of(place)})
    plain = load_set(place)
    found = load_set(f"hf:{NAME}")
    assert (found.format, found.own) == ("hub", True)
    assert found.image_set.digest == plain.image_set.digest
    assert fyi_bench.load(f"hf:{NAME}").digest == plain.image_set.digest
    assert torch.equal(found.image_set.labels, SHUFFLED)


@pytest.mark.long
def test_datasets_reads_what_is_served(server, tmp_path):
    """The Hub's library for data, in a process of its own, on what was exported here."""
    pytest.importorskip("datasets")
    server.repositories[NAME] = Repository({"main": files_of(written("hub", tmp_path / "made"))})
    code = f"import datasets; rows = datasets.load_dataset('{NAME}', split='train'); print(rows['label'][:])"
    there = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **there}, capture_output=True, text=True)
    assert done.stdout.strip() == str(SHUFFLED.tolist()), done.stderr[-500:]
