"""A set as a repository of the Hub: `datasets` reads it, we read it whole, and it is pushed with the user's token."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

import fyi_bench
from distill.image_set import ImageSet
from distill.spaces import PixelSpace
from fyi_bench.errors import DataError, UsageError
from fyi_bench.formats import load_set
from sample_records import record
from sample_sets import image_set

REPO = "somebody/my-set"


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[ImageSet, Path]:
    """A set of floats with soft labels, and the folder it was exported to."""
    made = image_set("dm", "fyi", size=32, dataset="shapes10")
    soft = torch.nn.functional.one_hot(made.labels, 3).float() * 2 - 0.25
    made = replace(made, labels=soft, lr=0.03)
    folder = tmp_path_factory.mktemp("hub") / "my-set"
    fyi_bench.export(made, folder, "hub")
    return made, folder


@pytest.fixture
def read(monkeypatch, tmp_path):
    """Function(folder) -> its train split, by the `datasets` library without a network."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    return lambda folder: datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))


def test_datasets_reads_what_was_exported(exported, read):
    made, folder = exported
    rows = read(folder)
    assert rows.features["label"].names == list(made.class_names)
    assert rows["label"] == made.hard_labels.tolist()
    assert torch.equal(torch.tensor(rows["soft_label"][:]), made.labels)
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in rows["image"]])).permute(0, 3, 1, 2) / 255
    assert torch.allclose(pixels, made.pixels().clamp(0, 1), atol=0.5 / 255 + 1e-6)


def test_a_set_of_bytes_is_equal(tmp_path, read):
    made = image_set("random", "none", size=16)
    levels = replace(made, images=(made.pixels() * 255).round().to(torch.uint8), space=PixelSpace())
    fyi_bench.export(levels, tmp_path / "bytes", "hub")
    rows = read(tmp_path / "bytes")
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in rows["image"]])).permute(0, 3, 1, 2)
    assert torch.equal(pixels, levels.images)
    assert rows["label"] == levels.labels.tolist()


def test_it_comes_back_whole_and_says_what_it_is(exported):
    made, folder = exported
    found = load_set(folder)
    assert (found.format, found.image_set.digest, found.own) == ("hub", made.digest, True)
    page = (folder / "README.md").read_text()
    front, body = page.removeprefix("---\n").split("\n---\n", 1)
    assert "path: data/train-*.parquet" in front
    assert 'pretty_name: "dm+fyi, 2 images per class of shapes10"' in front
    for told in ("| method | dm |", "| flip | fyi |", f"| digest | {made.digest} |", "| recipe: lr_img | 1.0 |"):
        assert told in body
    assert "None were given" in body


def test_the_results_of_its_card_stand_on_the_page(exported, tmp_path):
    made, _ = exported
    arm = {"method": "dm", "flip": "fyi", "ipc": 2, "set_digest": made.digest, "set_bytes": made.nbytes}
    found = record("card", [arm], images=6, parts={}, left_out={}, verdict="undecided", words="Undecided.", answers=[],
                   sources=[])  # fmt: skip
    (tmp_path / "card.json").write_text(json.dumps(found))
    fyi_bench.export(made, tmp_path / "out", "hub", card=tmp_path / "card.json")
    assert "**Undecided.**" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(UsageError, match="card of another set"):
        fyi_bench.export(image_set("dm", "none"), tmp_path / "x", "hub", card=tmp_path / "card.json")
    with pytest.raises(UsageError, match="--format hub"):
        fyi_bench.export(made, tmp_path / "x.pt", "dc", card=tmp_path / "card.json")


class StandIn(BaseHTTPRequestHandler):
    """The few answers of the Hub that an upload asks for. Files land in `kept`; only TOKEN may write."""

    TOKEN = "hf_" + "x" * 34
    kept: dict[str, bytes]

    def log_message(self, *words) -> None:
        pass

    def do_GET(self) -> None:
        if self.headers["Authorization"] != f"Bearer {self.TOKEN}":
            self._answer({"error": "Invalid user token."}, 401)
        else:
            self._answer({"id": REPO, "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {self.TOKEN}":
            self._answer({"error": "Invalid user token."}, 401)
        elif self.path.endswith("/repos/create"):
            self._answer({"url": f"http://{self.headers['Host']}/datasets/{REPO}"})
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.kept[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer(
                {
                    "commitUrl": f"http://{self.headers['Host']}/datasets/{REPO}/commit/1",
                    "commitOid": "1" * 40,
                    "success": True,
                }
            )
        else:
            self._answer({})

    def _answer(self, content: dict, code: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def hub():
    """A server that stands in for the Hub: (its address, what it was given)."""
    pytest.importorskip("huggingface_hub")
    StandIn.kept = {}
    server = HTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", StandIn.kept
    server.shutdown()
    server.server_close()


def test_a_folder_is_pushed_with_the_users_token(exported, hub):
    _, folder = exported
    address, kept = hub
    fyi_bench.push(folder, REPO, token=StandIn.TOKEN, endpoint=address)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert kept == files


def test_a_refusal_is_two_lines_without_the_token(exported, hub, tmp_path):
    address, kept = hub
    wrong = "hf_" + "y" * 34
    with pytest.raises(DataError) as error:
        fyi_bench.push(exported[1], REPO, token=wrong, endpoint=address)
    assert len(str(error.value).splitlines()) == 2
    assert wrong not in str(error.value)
    assert not kept
    assert "Log in" in str(error.value)
    with pytest.raises(DataError, match=r"did not take.*\nSee that the Hub can be reached.*; then push again\.$"):
        fyi_bench.push(exported[1], REPO, token=StandIn.TOKEN, endpoint="http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"did not take.*\nName it OWNER/NAME"):
        fyi_bench.push(exported[1], "a set/of mine", token=StandIn.TOKEN, endpoint=address)
    with pytest.raises(DataError, match=r"no exported repository.*\n.*--format hub"):
        fyi_bench.push(tmp_path, REPO, token=StandIn.TOKEN, endpoint=address)
