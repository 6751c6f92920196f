"""Hostile and broken input at the edges: own files, labels, pictures, names, options, a terminal that goes away."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save

import tiny
from commands import ROOT, arguments, run, start
from distill.image_set import ImageSet
from distill.spaces import PixelSpace
from fyi_bench.data.pictures import decode_images
from fyi_bench.errors import DataError, StoreError, printable
from fyi_bench.files import check_place
from fyi_bench.formats import load_set
from fyi_bench.present.page import render
from fyi_bench.run.executor import default_url
from fyi_bench.run.storage import open_storage
from fyi_bench.store.store import Store
from fyi_bench.terminal import echo, told

FACTS = {"schema": 1, "space": {"kind": "pixel"}, "num_classes": 3, "class_names": [], "factor": 1,
         "decode_type": "single", "lr": None, "provenance": {}}  # fmt: skip
NORMALIZED = {"kind": "normalized", "mean": [0.5] * 3, "std": [0.2] * 3}


def own_file(path, images=(6, 3, 8, 8), **changes):
    """A file of ours without seals, as an enemy or an old version may write it."""
    tensors = {"images": torch.rand(images), "labels": torch.arange(images[0]) % 3}
    path.write_bytes(save(tensors, {"fyi_bench": json.dumps({**FACTS, **changes})}))
    return path


def test_a_file_without_seals_is_read(tmp_path):
    assert len(ImageSet.load(own_file(tmp_path / "a.safetensors"))) == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": "abc"}, {"lr": float("nan")}, {"lr": [0.1, "x"]}, {"lr": {"a": 1}}, {"num_classes": "3"},
        {"num_classes": 10**12}, {"num_classes": -1}, {"num_classes": 3.5}, {"class_names": 5}, {"factor": 10**9},
        {"factor": 0}, {"factor": None}, {"provenance": "abc"}, {"provenance": [1]}, {"schema": "new"}, {"space": 5},
        {"space": {"kind": []}}, {"space": {**NORMALIZED, "mean": [float("nan")] * 3}}, {"variants": 0},
        {"space": {**NORMALIZED, "std": [float("inf")] * 3}}, {"space": {**NORMALIZED, "std": [0] * 3}},
        {"space": {**NORMALIZED, "mean": "abc"}}, {"space": {"kind": "normalized", "mean": [], "std": []}},
        {"decoder": 5}, {"decoder": {"name": "none such"}}, {"label_kind": []}, {"variants": "x"},
        {"images": (6, 3, 0, 10**9)}, {"images": (6, 3, 8, 0)},
    ],
    ids=str,
)  # fmt: skip
def test_facts_that_make_no_sense_are_refused(tmp_path, changes):
    path = own_file(tmp_path / "a.safetensors", **changes)
    with pytest.raises((DataError, StoreError)) as caught:
        ImageSet.load(path)
    assert len(str(caught.value).splitlines()) <= 2
    done = run("inspect", str(path), check=5)
    assert len(done.stderr.splitlines()) <= 3


@pytest.mark.parametrize("top", [5_000, 200_000_000, 2**40])
def test_a_label_far_above_the_images_is_refused(tmp_path, top):
    torch.save([torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, top])], tmp_path / "data.pt")
    with pytest.raises(DataError, match=f"largest label is {top}"):
        load_set(tmp_path / "data.pt")


def test_classes_of_a_large_set_keep_their_numbers(tmp_path):
    torch.save([torch.rand(4, 3, 8, 8), torch.tensor([0, 217, 566, 701])], tmp_path / "data.pt")
    assert load_set(tmp_path / "data.pt").image_set.num_classes == 702


def test_a_picture_of_impossible_size_is_not_decoded(tmp_path):
    Image.new("1", (13_000, 13_000)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="13000x13000 pixels"):
        decode_images([tmp_path / "a.png"], str, resize=64)


NAMES = ("\x1b[2J\x1b[31mPWNED\x07", "b\nduplicates   none", "\u202eevil", "\x9bnews", "tab\there")


def test_foreign_names_never_steer_a_terminal(tmp_path, capsys):
    echo("".join(NAMES))
    assert not set(capsys.readouterr().out) & set("\x1b\x07\x9b\u202e")
    names = ImageSet(torch.rand(5, 3, 8, 8), torch.arange(5), PixelSpace(), 5, NAMES, provenance={"method": NAMES[0]})
    path = names.save(tmp_path / "a.safetensors", preview=False)
    done = run("inspect", str(path))
    shown = done.stdout + done.stderr
    assert "PWNED" in shown
    assert not set(shown) & set("\x1b\x07\x9b\u202e\t")
    assert not [line for line in shown.splitlines() if line.startswith("duplicates")]
    odd = tmp_path / "\x1b[31m.safetensors"
    odd.write_text("no set")
    assert "\x1b" not in run("inspect", str(odd), check=5).stderr
    page = render("report.html.j2", title=NAMES[0], sections=[], notes=list(NAMES), papers=[], arms=True)
    assert not set(page) & set("\x1b\x07\x9b\u202e")


@pytest.mark.parametrize("place", ["/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_no_file_takes_the_place_of_a_device(tmp_path, monkeypatch, place):
    monkeypatch.setattr(os, "replace", lambda *_: pytest.fail("moved there"))
    done = run(*arguments("distill", "--method", "dm", "--only", store=tmp_path / "store"), "--json", place, check=5)
    assert done.stderr == f"fyi-bench: {place} is a device, not a file.\nName a file.\n"
    assert not (tmp_path / "store").exists()
    check_place(tmp_path / "null")
    check_place(Path("/dev/shm/null"))


def test_printable_text_is_left_alone():
    assert printable("Äpfel – ± 日本\n\t2nd") == "Äpfel – ± 日本\n\t2nd"


@pytest.mark.parametrize(
    "words",
    [("--threads", "100000"), ("--workers", "100000"), ("--seeds", "10000000000"), ("--set", f"iterations={10**21}"),
     ("--set", f"iterations={10**9}"), ("--set", f"epochs={10**21}"), ("--set", f"batch_real={10**21}")],
    ids=" ".join,
)  # fmt: skip
def test_absurd_numbers_are_refused_in_words(tmp_path, words):
    done = run(*arguments("distill", "--method", "dm", "--only", "--arch", "convnet", store=tmp_path), *words, check=2)
    assert 1 <= len(done.stderr.splitlines()) <= 3
    assert "frame #" not in done.stderr


def test_a_damaged_queue_says_that_removing_it_heals(tmp_path):
    url = default_url(Store(tmp_path))
    for content in (b"no database at all", b"SQLite format 3\x00" + bytes(4096)):
        (tmp_path / url.rpartition("/")[2]).write_bytes(content)
        with pytest.raises(StoreError, match="Remove it: results are in the store"):
            open_storage(url)


def test_a_closed_stdin_agrees_to_what_is_planned(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    run(*arguments("distill", "--method", "dm", "--only", store=tmp_path), "--dry-run")


def test_no_file_takes_the_number_of_a_closed_stream(tmp_path):
    code = "import os; from fyi_bench import terminal as t; t.ready_streams(); t.echo('a'); print(os.dup(0), end='')"
    done = subprocess.run(
        ["sh", "-c", '"$@" <&- 2>&-', "sh", sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout == "a\n3"


def test_a_folder_that_is_gone_is_told(tmp_path):
    (tmp_path / "gone").mkdir()
    code = "import os, sys; from fyi_bench.cli import main; os.rmdir(os.getcwd()); sys.exit(main(['ls', 'methods']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "gone", capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stderr == "fyi-bench: The present folder is gone (No such file or directory).\nGo to another one.\n"
    assert done.returncode == 2


def test_a_name_that_is_not_utf8_is_told(tmp_path):
    odd = tmp_path / os.fsdecode(b"bad\xff")
    odd.mkdir()
    said = run(*arguments("distill", "--method", "dm", "--only", store=odd / "store"), check=5).stderr
    assert said.splitlines()[0].endswith("store is not UTF-8.")
    assert not (odd / "store").exists()
    shutil.copy(tiny.real_set().save(tmp_path / "a.safetensors", preview=False), odd)
    assert "is not UTF-8.\nRename it." in run("inspect", str(odd / "a.safetensors"), check=5).stderr


@pytest.mark.parametrize("words", [("ls", "methods"), ("ls", "--help")], ids=" ".join)
def test_a_pipe_that_nobody_reads_is_told(words):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "fyi_bench", *words], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    os.close(writing)
    assert done.stderr.splitlines()[0] == "fyi-bench: stdout took no more (Broken pipe)."
    assert (done.returncode, len(done.stderr.splitlines())) == (5, 2)


def test_an_encoding_that_lacks_a_character_is_no_error():
    code = "from fyi_bench import terminal as t; t.ready_streams(); t.echo('28 \u2013 30 \u00b1 1')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, timeout=120, check=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert done.stdout == b"28 ? 30 \xb1 1\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "not enough memory"),
        (RuntimeError("Could not determine home directory."), "Set HOME"),
    ],
    ids=str,
)
def test_what_a_system_lacks_is_named(error, words):
    said, code = told(error)
    assert words in said
    assert (code, len(said.splitlines())) == (5, 2)


@pytest.mark.long
@pytest.mark.parametrize("device", ["full", "closed"])
def test_a_stdout_that_takes_nothing_is_told(tmp_path, device):
    command = [sys.executable, "-m", "fyi_bench", "ls", "methods"]
    shell = {"full": '"$@" > /dev/full', "closed": '"$@" >&-'}[device]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *command], cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        env=buffered,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert done.returncode == (5 if device == "full" else 0)


@pytest.mark.long
def test_the_end_of_the_terminal_checkpoints(tmp_path):
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        pytest.skip("SIGHUP is ignored here, as under nohup")
    words = arguments("distill", "--method", "dm", "--only", "--ipc", "1", "--arch", "none", store=tmp_path)
    process = start(*words, "--set", "iterations=200000")
    until = time.monotonic() + 200
    while not list(tmp_path.glob("distill/*/config.json")) and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 130, said
    assert "SIGHUP" in said
    assert list(tmp_path.glob("distill/*/ckpt-*.safetensors")) or "step" in said


def test_nohup_is_respected():
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        from fyi_bench.run.deadline import Deadline

        with Deadline().signals() as deadline:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not deadline.interrupted
    finally:
        signal.signal(signal.SIGHUP, ignored)


def test_tiny_sets_are_still_read(tmp_path):
    path = tiny.real_set().save(tmp_path / "a.safetensors", preview=False)
    assert load_set(path).image_set.digest == tiny.real_set().digest
