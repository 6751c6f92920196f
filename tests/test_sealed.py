"""Records of commands: sealed, dated, kept as they were the first time, merged; no link leads out of a store."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from benchmarks.jsonl import append_line
from commands import arguments, run
from fyi_bench.errors import StoreError
from fyi_bench.files import write_json, write_text
from fyi_bench.store.commands import read_commands, record_path, save_record
from fyi_bench.store.lock import FolderLock
from fyi_bench.store.merge import merge
from fyi_bench.store.record import SEAL
from fyi_bench.store.run_dir import DONE, RECORD
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store
from fyi_bench.store.verify import verify
from fyi_bench.tasks.report import write_report
from sample_records import distill_record

SPEC = RunSpec("distill", {"seed": 0})


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store", lambda text: None)


@pytest.fixture
def kept(store) -> Path:
    return record_path(store, save_record(store, distill_record()))


def edit(path: Path, change) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["arms"][0].update(loss_last=7777.0),
        lambda r: r["arms"][0]["unequalness"].update(mean=7777.0),
        lambda r: r.update(dataset="other7777"),
        lambda r: r.update(more=7777),
        lambda r: (r.pop(SEAL), r.update(wall_s=7777.0)),
        lambda r: r.update({SEAL: "0" * 16}),
    ],
)
def test_an_edited_record_is_named_and_never_shown(store, kept, change):
    assert verify(store) == []
    edit(kept, change)
    (fault,) = verify(store)
    assert str(kept) in fault.what
    assert read_commands(store)[0] == []
    page = write_report(store).read_text(encoding="utf-8")
    assert "7777" not in page.replace(str(kept), "")
    assert kept.name in page


def test_a_record_of_an_earlier_version_is_read(store, kept):
    edit(kept, lambda r: (r.pop(SEAL), r.pop("date")))
    assert verify(store) == []
    assert len(read_commands(store)[0]) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    "text", ["[" * 60000 + "]" * 60000, "{}", "[]", '{"task": 5, "digest": "a", "arms": []}', "\x00", "",
             '{"task": "distill", "digest": "a", "arms": [5]}', '{"task": "distill", "digest": "a", "arms": {"a": 1}}'],
    ids=["deep", "empty", "list", "task", "zero", "nothing", "arms", "table"],
)  # fmt: skip
def test_an_odd_record_is_named_and_harms_no_other(store, kept, text):
    write_text(kept.with_name("distill-odd.json"), text)
    assert len(read_commands(store)[0]) == 1
    assert len(verify(store)) == 1
    assert "distill-odd.json" in write_report(store).read_text(encoding="utf-8")


def test_a_finished_command_repeated_leaves_its_record_alone(tmp_path):
    words = arguments("distill", "--method", "dm", "--only", "--ipc", "1", "--arch", "none", store=tmp_path / "store")
    run(*words)
    (path,) = (tmp_path / "store/reports").glob("*.json")
    before = path.read_bytes()
    record = json.loads(before)
    assert record["date"].endswith("+00:00")
    run(*words, "--threads", "1", "--yes")
    assert path.read_bytes() == before
    edit(path, lambda r: r.update(wall_s=1e9))
    run(*words)
    assert json.loads(path.read_text())["wall_s"] < 1e9
    assert verify(Store(tmp_path / "store")) == []


def test_a_store_that_may_only_be_read_tells_its_answers(tmp_path, monkeypatch):
    words = arguments("distill", "--method", "dm", "--only", "--ipc", "1", "--arch", "none", store=tmp_path / "store")
    first = run(*words).stdout

    def read_only(lock):
        raise StoreError("Could not write there.")

    monkeypatch.setattr(FolderLock, "try_acquire", read_only)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    again = run(*words).stdout
    assert [line for line in again.splitlines() if line.startswith("record")] == [
        line for line in first.splitlines() if line.startswith("record")
    ]


def test_what_a_killed_writer_left_beside_the_records_is_swept(store, kept):
    left = [kept.with_name(".distill-1.json.abc.tmp"), kept.with_suffix("") / ".plot.png.abc.tmp"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text("cut")
    save_record(store, {**distill_record(), "digest": "1" * 16})
    assert not [path for path in left if path.exists()]


def test_answers_come_with_a_merge(tmp_path, store, kept):
    other = Store(tmp_path / "other", lambda text: None)
    report = merge(other, store.root)
    assert report.lines() == ["1 answers of commands brought in"]
    assert record_path(other, json.loads(kept.read_text())).read_bytes() == kept.read_bytes()
    assert merge(other, store.root).answers == []
    edit(kept, lambda r: r.update(wall_s=5.0))
    third = Store(tmp_path / "third", lambda text: None)
    assert "its seal does not match" in "\n".join(merge(third, store.root).lines())
    assert verify(third) == []


# what leads out of a store -----------------------------------------------------------------------------------------


def finish(store: Store) -> Path:
    with store.run(SPEC) as opened:
        write_text(opened.path("a.txt"), "mine")
        opened.finish({"value": 0.5})
    return store.folder(SPEC)


def as_link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("name", ["a.txt", "notes.txt", "config.json", RECORD, DONE, "ckpt-3.safetensors", "lock"])
@pytest.mark.parametrize("kind", ["link", "pipe", "zero"])
@pytest.mark.parametrize("state", ["done", "unfinished"])
def test_only_regular_files_are_merged(tmp_path, name, kind, state):
    theirs, ours = Store(tmp_path / "theirs"), Store(tmp_path / "ours")
    folder, secret = finish(theirs), tmp_path / "secret"
    secret.write_text("my private key")
    if state == "unfinished":
        (folder / DONE).unlink()
    path = folder / name
    if kind == "pipe":
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    else:
        as_link(path, str(secret) if kind == "link" else "/dev/zero")
    report = merge(ours, theirs.root)
    assert len(report.damaged) == 1
    assert name in report.damaged[0]
    assert not [found for found in ours.root.rglob("*") if found.is_file() and "private" in found.read_text()]
    if name != "lock":
        verify(theirs)  # neither hangs nor fails


@pytest.mark.parametrize("left", [[], ["lock"], ["lock", ".config.json.abc.tmp"]])
def test_a_run_that_only_took_its_lock_is_no_damage(store, tmp_path, left):
    folder = store.folder(SPEC)
    folder.mkdir(parents=True)
    for name in left:
        (folder / name).write_text("")
    assert verify(store) == []
    assert [info.state for info in store.ls()] == ["partial"]
    assert merge(Store(tmp_path / "ours"), store.root).damaged == []
    with FolderLock(folder):
        assert [info.state for info in store.ls()] == ["running"]
    write_text(folder / "a.txt", "an artefact and no config")
    assert len(verify(store)) == 1


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_files_have_the_rights_the_user_chose(store, mask):
    before = os.umask(mask)
    try:
        folder = finish(store)
        with store.run(RunSpec("distill", {"seed": 1})) as opened:
            append_line(opened.path("rows.jsonl"), {"a": 1})
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in store.root.rglob("*") if path.is_file()}
    assert modes == {0o666 & ~mask}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~mask


def test_the_first_cause_is_told_when_more_fails(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(Path, "unlink", lambda *args, **kwargs: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(StoreError, match="the disk is full"):
        write_json(tmp_path / "a.json", {})
