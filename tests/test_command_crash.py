"""Kill a command at any moment and run it again: the result of an uncut run. Two at once: one works, one reads."""

from __future__ import annotations

import itertools
import json
import signal
import time
from types import SimpleNamespace

import pytest

from commands import arguments, run, start
from fyi_bench.files import sha256_file
from fyi_bench.run import deadline

pytestmark = pytest.mark.long


def sets_of(store):
    return {path.parent.name: sha256_file(path) for path in (store / "distill").glob("*/set.safetensors")}


def values_of(store):
    records = [json.loads(p.read_text()) for p in sorted(store.glob("*/*/record.json"))]
    return {r["digest"]: r["value"] for r in records if "value" in r}


def kill_after(words, condition, limit=90.0):
    """Start a command and SIGKILL it once `condition()` holds; returns whether it was still running."""
    process, began = start(*words), time.monotonic()
    while not condition() and process.poll() is None and time.monotonic() - began < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


COMMANDS = {
    "distill": (("distill", "--method", "dsa", "--fyi", "--ipc", "1"), {"iterations": "15"}),
    "continual": (
        ("continual", "--steps", "2", "--method", "dm", "--fyi", "--ipc", "1", "--seeds", "1", "--against", "random"),
        {"iterations": "10"},
    ),
}


@pytest.mark.parametrize("name", ["distill", pytest.param("continual", marks=pytest.mark.long)])
def test_sigkill_and_again_gives_the_bytes_of_an_uncut_run(name, tmp_path):
    words, changes = COMMANDS[name]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(*arguments(*words, store=whole, **changes))
    again = arguments(*words, store=cut, **changes)

    def more_finished(by: int):
        before = len(list(cut.glob("*/*/done")))
        return lambda: len(list(cut.glob("*/*/done"))) >= before + by

    killed = [
        kill_after(again, lambda: any(cut.glob("distill/*/config.json"))),
        kill_after(again, more_finished(1)),
        kill_after(again, more_finished(2)),
    ]
    assert any(killed)
    run(*again)
    assert sets_of(cut) == sets_of(whole)
    assert values_of(cut) == values_of(whole)
    assert not list(cut.rglob("*.tmp"))


def test_a_budget_stops_with_code_3_and_the_next_call_goes_on(tmp_path, monkeypatch):
    words = ("distill", "--method", "dm", "--ipc", "1", "--only", "--arch", "none")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(*arguments(*words, store=whole, iterations="20"))
    limited = [*arguments(*words, store=cut, iterations="20"), "--budget", "8s"]
    clock = itertools.count(step=0.5)  # half a second whenever it is looked at
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    first = run(*limited, check=None)
    calls = 1
    while first.returncode == 3 and calls < 30:
        assert "run the same command to go on" in first.stderr
        first, calls = run(*limited, check=None), calls + 1
    assert calls > 1
    assert first.returncode == 0
    assert sets_of(cut) == sets_of(whole)


def test_ctrl_c_ends_with_130_and_keeps_a_checkpoint(tmp_path):
    words = arguments(
        "distill", "--method", "dm", "--ipc", "1", "--only", "--arch", "none", store=tmp_path, iterations="5000"
    )
    process = start(*words)
    while not any(tmp_path.glob("distill/*/config.json")) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command to go on" in errors
    assert any(tmp_path.glob("distill/*/ckpt-*.safetensors"))


def test_two_at_once_one_works_the_other_waits_and_reads(tmp_path):
    words = arguments(
        "distill", "--method", "dsa", "--ipc", "1", "--only", "--arch", "none", store=tmp_path, iterations="12"
    )
    both = [start(*words), start(*words)]
    texts = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert len(sets_of(tmp_path)) == 1
    assert len(list(tmp_path.glob("*/*/record.json"))) == len(list(tmp_path.glob("*/*/done"))) >= 1


def test_disk_full_loses_nothing(tmp_path):
    """A limit on the size of files stands for a full disk: the command fails clearly and goes on without the limit."""
    import resource
    import subprocess
    import sys

    words = arguments(
        "distill", "--method", "random", "--ipc", "10", "--only", "--arch", "none", store=tmp_path, batch_real=None
    )
    run("data", "verify", "shapes10")  # the decoded data is in the cache before files get small
    done = subprocess.run(
        [sys.executable, "-m", "fyi_bench.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
    )
    assert done.returncode == 5, done.stderr
    assert "Could not write" in done.stderr
    assert not sets_of(tmp_path)
    run(*words)
    assert len(sets_of(tmp_path)) == 1
