"""Small jobs that the crash tests run, kill and run again in processes of their own.

Called as `python crash_jobs.py JOB FOLDER [ARGUMENT]`; needs no torch unless the job is about checkpoints.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

from benchmarks.jsonl import append_line, read_lines
from fyi_bench.errors import FyiBenchError
from fyi_bench.files import write_bytes
from fyi_bench.run.deadline import Deadline
from fyi_bench.store.merge import merge
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store

CELL = RunSpec("toy", {"seed": 3, "steps": 5})
LOOP = RunSpec("toy", {"seed": 4, "steps": 40})


def plain_job(store: Store) -> dict:
    """Rows one by one, an artefact, a record: no torch."""
    with store.run(CELL) as run:
        if run.done:
            return run.record
        have = {row["step"] for row in read_lines(run.path("rows.jsonl"))}
        for step in range(CELL.inputs["steps"]):
            if step not in have:
                append_line(run.path("rows.jsonl"), {"step": step, "value": step * step})
        rows = sorted(read_lines(run.path("rows.jsonl")), key=lambda row: row["step"])
        write_bytes(run.path("out/result.bin"), json.dumps(rows).encode())
        return run.finish({"value": sum(row["value"] for row in rows)})


def checkpoint_job(store: Store) -> dict:
    """A recurrence whose every step depends on the one before, checkpointed after each."""
    import torch

    from distill.tensor_file import save_tensors

    with store.run(CELL) as run:
        if run.done:
            return run.record
        step, state = 0, {"x": torch.arange(4, dtype=torch.float64)}
        found = run.load()
        if found is not None:
            step, state, _ = found
        for at in range(step, CELL.inputs["steps"]):
            state = {"x": state["x"] * 1.7 + at}
            run.save(at + 1, state, {})
        save_tensors(run.path("set.safetensors"), state, {})
        return run.finish({"value": float(state["x"].sum())})


class Killer:
    """Kill this process at the n-th of the operations that change files."""

    def __init__(self, at: int):
        self.left = at
        for name in ("replace", "fsync", "unlink", "write"):
            setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, operation):
        def call(*args, **kwargs):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*args, **kwargs)

        return call


def kill_everywhere(folder: Path, job) -> None:
    """Run the job uncut, then killed at its 1st, 2nd, … operation and run again; print what all of them left."""
    if job is checkpoint_job:
        import torch  # noqa: F401  once here, not in every child

        import distill.tensor_file  # noqa: F401
    results = {"uncut": _in_child(lambda: job(Store(folder / "uncut")))}
    at = 0
    while True:
        at += 1
        store = Store(folder / f"cut{at}")
        ended = _in_child(lambda at=at, store=store: (Killer(at), job(store)))
        if ended == 0:
            break
        results[f"cut{at}"] = _in_child(lambda store=store: job(store))
    print(json.dumps({"results": results, "cuts": at - 1}))


def kill_merges(folder: Path) -> None:
    """The same for a merge over an unfinished run; what was cut is merged again or worked on, in turns."""
    plain_job(Store(folder / "uncut"))

    def bring(store: Store) -> None:
        merge(store, folder / "uncut")

    at, results = 0, {}
    while True:
        at += 1
        store = Store(folder / f"cut{at}")
        with store.run(CELL) as run:
            append_line(run.path("rows.jsonl"), {"step": 0, "value": 0})
            write_bytes(run.path("out/draft.bin"), b"draft")
        if _in_child(lambda at=at, store=store: (Killer(at), bring(store))) == 0:
            break
        again = (bring, plain_job)[at % 2]
        results[f"cut{at}"] = _in_child(lambda again=again, store=store: again(store))
    print(json.dumps({"results": results, "cuts": at - 1}))


def _in_child(work) -> int:
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitpid(child, 0)[1]


def same_cell(folder: Path) -> None:
    """Count in a file how often the cell is really computed."""
    with Store(folder).run(CELL) as run:
        if not run.done:
            append_line(folder / "counter.jsonl", {"pid": os.getpid()})
            time.sleep(0.3)
            run.finish({"value": 7})
        print(json.dumps(run.record["value"]))


def hold(folder: Path) -> None:
    """Take the lock, fork a helper that outlives us, and wait to be killed."""
    with Store(folder).run(CELL):
        helper = os.fork()
        if helper == 0:
            time.sleep(60)
            os._exit(0)
        print(json.dumps({"helper": helper}), flush=True)
        time.sleep(30)


def append_many(folder: Path) -> None:
    """Ten processes, two hundred rows each, into one file."""
    os.fsync = lambda descriptor: None  # the mixing of lines is the point here, not the disk
    children = []
    for worker in range(10):
        child = os.fork()
        if child == 0:
            for row in range(200):
                append_line(folder / "rows.jsonl", {"worker": worker, "row": row, "text": "x" * row})
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 10


def full_disk(folder: Path) -> None:
    """A checkpoint, then a bigger one than this process may write."""
    import torch

    with Store(folder).run(CELL) as run:
        run.save(1, {"x": torch.arange(10.0)}, {})
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            run.save(2, {"x": torch.zeros(2**20)}, {})
        except FyiBenchError as error:
            print(json.dumps(str(error)))
        step, tensors, _ = run.load()
        assert (step, tensors["x"].tolist()) == (1, list(range(10)))


def interruptible(folder: Path) -> None:
    """Forty slow steps with their state in rows; a stop ends it with the error's exit code."""
    stop = Deadline()
    try:
        with stop.signals(), Store(folder).run(LOOP, stop) as run:
            for step in range(len(read_lines(run.path("rows.jsonl"))), LOOP.inputs["steps"]):
                print("step", flush=True)
                append_line(run.path("rows.jsonl"), {"step": step})
                stop.check()
                time.sleep(float(os.environ.get("STEP_S", "0")))
            run.finish({"value": len(read_lines(run.path("rows.jsonl")))})
    except FyiBenchError as error:
        print(error, flush=True)
        sys.exit(error.exit_code)


JOBS = {
    "kill-plain": lambda folder: kill_everywhere(folder, plain_job),
    "kill-checkpoints": lambda folder: kill_everywhere(folder, checkpoint_job),
    "kill-merges": kill_merges,
    "same-cell": same_cell,
    "hold": hold,
    "append-many": append_many,
    "full-disk": full_disk,
    "interruptible": interruptible,
}

if __name__ == "__main__":
    JOBS[sys.argv[1]](Path(sys.argv[2]))
