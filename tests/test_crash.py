"""Kill it at any moment, run it again: the same result. Every test here works with processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.jsonl import append_line, read_lines
from fyi_bench.errors import StoreError
from fyi_bench.files import sha256_file, write_bytes
from fyi_bench.run.deadline import Deadline
from fyi_bench.store.run_dir import DONE, RECORD
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store
from fyi_bench.store.verify import verify

ROOT = Path(__file__).resolve().parents[1]
CELL = RunSpec("toy", {"seed": 3, "steps": 5})  # that of crash_jobs


def start(job: str, folder: Path, **environment: str) -> subprocess.Popen:
    """One of the jobs of crash_jobs.py in a new process."""
    whole = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, str(ROOT / "tests" / "crash_jobs.py"), job, str(folder)]
    return subprocess.Popen(command, env=whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen) -> str:
    """What a process that must succeed printed."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


@pytest.mark.long
@pytest.mark.parametrize(
    ("job", "artefact"),
    [("kill-plain", "out/result.bin"), ("kill-checkpoints", "set.safetensors"), ("kill-merges", "out/result.bin")],
)
def test_killed_at_any_file_operation_and_run_again_gives_the_same_bytes(job, artefact, tmp_path):
    told = json.loads(finished(start(job, tmp_path)))
    assert told["cuts"] >= 15
    assert set(told["results"].values()) == {0}
    uncut = Store(tmp_path / "uncut")
    expected = sha256_file(uncut.artefact("toy", CELL.digest, artefact))
    for cut in range(1, told["cuts"] + 1):
        store = Store(tmp_path / f"cut{cut}")
        assert sha256_file(store.artefact("toy", CELL.digest, artefact)) == expected
        assert store.get(CELL.digest)["value"] == uncut.get(CELL.digest)["value"]
        assert verify(store) == []
        left = {path.name for path in store.folder(CELL).iterdir()}
        assert left - {"out", "rows.jsonl", artefact} == {"config.json", "lock", "record.json", "done"}


def test_of_processes_with_the_same_cell_exactly_one_computes(tmp_path):
    processes = [start("same-cell", tmp_path) for _ in range(4)]
    assert [json.loads(finished(process)) for process in processes] == [7] * 4
    assert len(read_lines(tmp_path / "counter.jsonl")) == 1


def test_a_killed_owner_frees_the_lock_even_while_its_forked_helper_lives(tmp_path):
    owner = start("hold", tmp_path)
    helper = json.loads(owner.stdout.readline())["helper"]
    waits = []

    def told(line: str) -> None:
        waits.append(line)
        owner.kill()

    try:
        with Store(tmp_path).run(CELL, Deadline(20), on_wait=told) as run:
            os.kill(helper, 0)  # alive
            assert run.finish({"value": 1})["value"] == 1
    finally:
        os.kill(helper, signal.SIGKILL)
        owner.communicate()
    assert len(waits) == 1
    assert f"process {owner.pid} on " in waits[0]
    assert CELL.digest in waits[0]
    assert "\n" not in waits[0]


def test_rows_of_ten_processes_all_arrive_whole(tmp_path):
    finished(start("append-many", tmp_path))
    rows = read_lines(tmp_path / "rows.jsonl", pytest.fail)
    assert sorted((row["worker"], row["row"]) for row in rows) == [(w, r) for w in range(10) for r in range(200)]
    assert all(len(row["text"]) == row["row"] for row in rows)


def test_full_disk_keeps_the_earlier_checkpoint_and_says_what_is_needed(tmp_path):
    message = json.loads(finished(start("full-disk", tmp_path)))
    first, second = message.split("\n")
    assert "ckpt-2.safetensors" in first
    assert "needs 4.00 MiB" in first
    assert "step 1 is kept" in second
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_cleanly_with_130_and_the_next_call_goes_on(number, tmp_path):
    process = start("interruptible", tmp_path, STEP_S="0.02")
    assert process.stdout.readline() == "step\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command to go on" in out
    assert "safe point" in err
    assert Store(tmp_path).ls()[0].state == "partial"
    assert len(finished(start("interruptible", tmp_path)).splitlines()) < 40
    assert Store(tmp_path).ls()[0].state == "done"


def test_a_second_interrupt_ends_at_once(tmp_path):
    process = start("interruptible", tmp_path, STEP_S="30")
    process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert "safe point" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert "KeyboardInterrupt" in err
    assert process.returncode != 0


def test_cut_between_record_and_done_is_completed_without_computing_again(tmp_path):
    store = Store(tmp_path)
    with store.run(CELL) as run:
        write_bytes(run.path("a.bin"), b"abc")
        whole = run.finish({"value": 5})
    (store.folder(CELL) / DONE).unlink()
    assert store.get(CELL.digest) is None
    with store.run(CELL) as run:
        assert run.done
        assert run.record == whole


def test_cut_between_record_and_done_with_a_broken_artefact_is_worked_again(tmp_path):
    said = []
    store = Store(tmp_path, said.append)
    with store.run(CELL) as run:
        write_bytes(run.path("a.bin"), b"abc")
        run.finish({"value": 5})
    (store.folder(CELL) / DONE).unlink()
    (store.folder(CELL) / "a.bin").write_bytes(b"abd")
    with store.run(CELL) as run:
        assert not run.done
        assert run.record is None
        assert not (run.folder / RECORD).exists()
    assert "a.bin does not match its checksum" in said[0]


def test_a_row_cut_short_is_left_out_reported_and_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_line(path, {"step": 0, "loss": float("nan")})
    with open(path, "ab") as handle:
        handle.write(b'{"step": 1, "lo')
    append_line(path, {"step": 2, "loss": float("-inf")})
    said = []
    rows = read_lines(path, said.append)
    assert [row["step"] for row in rows] == [0, 2]
    assert rows[0]["loss"] != rows[0]["loss"]
    assert rows[1]["loss"] == float("-inf")
    assert said == [f"{path}: left out 1 unreadable line(s) (2); their work is done again."]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_appending_to_a_full_device_is_an_error_with_the_cause():
    with pytest.raises(StoreError, match=r"Could not append to /dev/full: No space left on device\.\n"):
        append_line("/dev/full", {"step": 0})
