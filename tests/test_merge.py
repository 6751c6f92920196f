"""Care of a store: what `verify` finds, and what `merge` brings in, leaves and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.jsonl import append_line, read_lines
from distill.tensor_file import save_tensors
from fyi_bench.errors import StoreError
from fyi_bench.files import sha256_file, write_bytes
from fyi_bench.store.merge import merge
from fyi_bench.store.run_dir import CONFIG, DONE, RECORD
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store
from fyi_bench.store.verify import checkpoints_of, verify

CELL = RunSpec("distill", {"seed": 0})
OTHER = RunSpec("evaluate", {"seed": 0})


@pytest.fixture
def ours(tmp_path) -> Store:
    return Store(tmp_path / "ours", lambda text: None)


@pytest.fixture
def theirs(tmp_path) -> Store:
    return Store(tmp_path / "theirs", lambda text: None)


def finish(store: Store, cell: RunSpec = CELL, content: bytes = b"abc", **record) -> None:
    with store.run(cell) as run:
        write_bytes(run.path("sub/a.bin"), content)
        run.finish(record or {"value": 0.5})


def advance(store: Store, step: int, cell: RunSpec = CELL) -> None:
    with store.run(cell) as run:
        append_line(run.path("rows.jsonl"), {"step": step})
        run.save(step, {"x": torch.full((2,), float(step))}, {"at": step})


def summary(report) -> dict[str, list[str]]:
    return {name: entries for name, entries in vars(report).items() if entries}


def content(store: Store, cell: RunSpec = CELL) -> dict[str, str]:
    files = [path for path in store.folder(cell).rglob("*") if path.is_file() and path.name != "lock"]
    return {path.relative_to(store.root).as_posix(): sha256_file(path) for path in files}


NAME = f"distill/{CELL.digest}"


def test_finished_runs_are_copied_whole_and_once(ours, theirs):
    finish(theirs)
    finish(theirs, OTHER, value=float("nan"))
    finish(ours, RunSpec("distill", {"seed": 9}))
    report = merge(ours, theirs.root)
    assert summary(report) == {"copied": [NAME, f"evaluate/{OTHER.digest}"]}
    assert report.lines() == ["2 finished runs brought in"]
    assert content(ours) == content(theirs)
    assert len(ours.ls()) == 3
    assert verify(ours) == []
    with ours.run(CELL) as run:
        assert run.record["value"] == 0.5
    again = merge(ours, theirs.root)
    assert summary(again) == {"same": [NAME, f"evaluate/{OTHER.digest}"]}


def test_results_that_differ_are_reported_and_ours_is_kept(ours, theirs):
    finish(ours, value=0.5)
    finish(theirs, value=0.6)
    before = content(ours)
    report = merge(ours, theirs.root)
    assert summary(report) == {"conflicts": [NAME]}
    assert f"{NAME}: both stores have a result and they differ" in report.lines()[1]
    assert content(ours) == before


def test_cost_and_circumstances_are_no_conflict(ours, theirs):
    for store, wall, device in ((ours, 10.0, "cpu"), (theirs, 1.0, "cuda")):
        with store.run(RunSpec("distill", {"seed": 0}, {"device": device})) as run:
            save_tensors(run.path("set.safetensors"), {"images": torch.ones(3)}, {"wall_s": wall})
            run.finish({"value": 0.5, "wall_s": wall, "environment": {"device_name": device}})
    assert summary(merge(ours, theirs.root)) == {"same": [NAME]}


def test_sets_with_other_tensors_are_a_conflict_even_with_equal_values(ours, theirs):
    for store, pixel in ((ours, 1.0), (theirs, 1.5)):
        with store.run(CELL) as run:
            save_tensors(run.path("set.safetensors"), {"images": torch.full((3,), pixel)}, {})
            run.finish({"value": 0.5})
    assert summary(merge(ours, theirs.root)) == {"conflicts": [NAME]}


def test_a_finished_run_replaces_an_unfinished_one(ours, theirs):
    advance(ours, 3)
    finish(theirs)
    assert summary(merge(ours, theirs.root)) == {"copied": [NAME]}
    assert content(ours) == content(theirs)


def test_the_further_checkpoint_wins(ours, theirs):
    advance(ours, 3)
    for step in (4, 8):
        advance(theirs, step)
    assert summary(merge(theirs, ours.root)) == {"older": [NAME]}
    assert summary(merge(ours, theirs.root)) == {"advanced": [NAME]}
    with ours.run(CELL) as run:
        step, tensors, meta = run.load()
        assert (step, tensors["x"].tolist(), meta) == (8, [8.0, 8.0], {"at": 8})
        assert [row["step"] for row in read_lines(run.path("rows.jsonl"))] == [4, 8]
    assert summary(merge(ours, theirs.root)) == {"older": [NAME]}
    finish(ours)
    assert summary(merge(ours, theirs.root)) == {"older": [NAME]}


def test_an_unfinished_run_is_begun_here_from_theirs(ours, theirs):
    advance(theirs, 4)
    with theirs.run(CELL) as run:
        run.mark_diverged({"message": "no longer finite", "step": 5})
    assert summary(merge(ours, theirs.root)) == {"advanced": [NAME]}
    assert [(info.state, info.step) for info in ours.ls()] == [("diverged", 4)]


def test_only_whole_checkpoints_are_brought_in(ours, theirs):
    for step in (4, 8):
        advance(theirs, step)
    (theirs.folder(CELL) / "ckpt-8.safetensors").write_bytes(b"half")
    assert summary(merge(ours, theirs.root)) == {"advanced": [NAME]}
    assert [path.name for path in ours.folder(CELL).glob("ckpt-*")] == ["ckpt-4.safetensors"]
    shutil.rmtree(ours.root)
    (theirs.folder(CELL) / "ckpt-4.safetensors").write_bytes(b"half")
    assert summary(merge(ours, theirs.root)) == {"damaged": [f"{NAME}: none of its checkpoints is whole"]}
    assert not ours.root.exists()


def test_a_run_being_worked_on_here_is_left_for_later(ours, theirs):
    finish(theirs)
    with ours.run(CELL) as run:
        # another thread of control holds the lock, as another process would
        append_line(run.path("rows.jsonl"), {"step": 1})
        import threading

        reports = []
        worker = threading.Thread(target=lambda: reports.append(merge(ours, theirs.root)))
        worker.start()
        worker.join()
    assert summary(reports[0]) == {"busy": [NAME]}
    assert ours.ls()[0].state == "partial"


def test_a_damaged_run_here_is_mended_by_a_whole_copy(ours, theirs):
    finish(ours)
    finish(theirs)
    (ours.folder(CELL) / "sub" / "a.bin").write_bytes(b"abd")
    assert "a.bin does not match its checksum" in str(verify(ours)[0])
    assert summary(merge(ours, theirs.root)) == {"mended": [NAME]}
    assert verify(ours) == []


def damage_artefact(folder):
    (folder / "sub" / "a.bin").write_bytes(b"abd")


def shorten_artefact(folder):
    (folder / "sub" / "a.bin").write_bytes(b"a")


def lose_artefact(folder):
    (folder / "sub" / "a.bin").unlink()


def edit_record(folder):
    path = folder / RECORD
    path.write_text(path.read_text().replace("0.5", "0.9"))


def lose_record(folder):
    (folder / RECORD).unlink()


def edit_config(folder):
    path = folder / CONFIG
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


def damage_config(folder):
    (folder / CONFIG).write_bytes(b"\xff\xfe")


def escape(folder):
    """A record whose artefact list points outside, sealed as if it were right."""
    record = json.loads((folder / RECORD).read_text())
    record["artefacts"] = {"../../../../outside": {"bytes": 1, "sha256": "0" * 64}}
    (folder / RECORD).write_text(json.dumps(record))
    (folder / DONE).write_text(sha256_file(folder / RECORD))


def nonsense(folder):
    """A sealed record without sizes."""
    record = json.loads((folder / RECORD).read_text())
    record["artefacts"] = {"sub/a.bin": {}}
    (folder / RECORD).write_text(json.dumps(record))
    (folder / DONE).write_text(sha256_file(folder / RECORD))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (damage_artefact, "sub/a.bin does not match its checksum"),
        (shorten_artefact, "sub/a.bin has 1 of 3 bytes"),
        (lose_artefact, "sub/a.bin is missing"),
        (edit_record, "record.json was changed after the run finished"),
        (lose_record, "There is no record"),
        (edit_config, "config.json was edited"),
        (damage_config, "config.json cannot be read"),
        (escape, "makes no sense"),
        (nonsense, "makes no sense"),
    ],
)
def test_every_damage_is_named_and_never_brought_in(ours, theirs, damage, text):
    finish(theirs)
    finish(theirs, OTHER)
    damage(theirs.folder(CELL))
    [problem] = verify(theirs)
    assert problem.folder == theirs.folder(CELL)
    assert text in problem.what
    assert str(theirs.folder(CELL)) in problem.remedy
    report = merge(ours, theirs.root)
    assert report.copied == [f"evaluate/{OTHER.digest}"]
    assert report.damaged[0].startswith(f"{NAME}: ")
    assert text in report.damaged[0]
    assert not (ours.folder(CELL) / DONE).exists()


def test_verify_names_a_damaged_checkpoint_and_what_happens(ours):
    advance(ours, 4)
    assert verify(ours) == []
    (ours.folder(CELL) / "ckpt-4.safetensors").write_bytes(b"half")
    [problem] = verify(ours)
    assert "ckpt-4.safetensors" in problem.what
    assert "starts again" in problem.remedy


def test_a_merge_cut_short_completes_itself(ours, theirs):
    finish(theirs)
    merge(ours, theirs.root)
    (ours.folder(CELL) / DONE).unlink()  # the last thing it copies
    assert summary(merge(ours, theirs.root)) == {"copied": [NAME]}
    (ours.folder(CELL) / DONE).unlink()
    with ours.run(CELL) as run:
        assert run.record["value"] == 0.5


def test_a_store_that_is_not_there_or_is_this_one_is_refused(ours, tmp_path):
    with pytest.raises(StoreError, match="There is no store"):
        merge(ours, tmp_path / "nowhere")
    finish(ours)
    with pytest.raises(StoreError, match="is this very store"):
        merge(ours, ours.root / ".." / "ours")


# an excerpt of a store, to be shown to others ---------------------------------------------------------------------


def made_and_tested(store: Store, method="dsa", ipc=1, notes=None) -> tuple[RunSpec, RunSpec, RunSpec]:
    """A set, its accuracy by a protocol, its unequalness."""
    made = RunSpec("distill", {"method": method, "ipc": ipc})
    test = RunSpec("accuracy", {"set": {"cell": made.digest}}, notes or {"protocol": "paper+nets=5", "file": None})
    score = RunSpec("unequalness", {"set": {"cell": made.digest}})
    with store.run(made) as run:
        save_tensors(run.path("set.safetensors"), {"images": torch.ones(3)}, {})
        write_bytes(run.path("preview.png"), b"png")
        run.finish({"set_digest": f"{ipc:016x}"})
    finish(store, test, value=0.25)
    finish(store, score, mean=3.0)
    return made, test, score


def test_an_excerpt_holds_finished_runs_of_its_protocol_and_what_they_were_made_of(ours, theirs):
    wanted = [*made_and_tested(theirs), *made_and_tested(theirs, "random")]
    made_and_tested(theirs, "dm", notes={"protocol": "quick"})
    made_and_tested(theirs, "dc", notes={"protocol": "paper+epochs=20"})
    advance(theirs, 3, RunSpec("distill", {"method": "dsa", "ipc": 1, "seed": 1}))
    finish(theirs)
    assert set(merge(ours, theirs.root, "paper").copied) == {f"{run.kind}/{run.digest}" for run in wanted}
    assert verify(ours) == []
    more = RunSpec("accuracy", {"set": {"cell": wanted[0].digest}, "seed": 1}, {"protocol": "paper"})
    finish(theirs, more, value=0.5)
    again = merge(ours, theirs.root, "paper")
    assert (again.copied, len(again.same)) == ([f"accuracy/{more.digest}"], len(wanted))


@pytest.mark.parametrize(("method", "ipc", "shown"), [("dsa", 1, True), ("dsa", 10, False), ("random", 1, False)])
def test_large_sets_and_real_images_are_in_an_excerpt_by_digest_alone(ours, theirs, method, ipc, shown):
    made, *_ = made_and_tested(theirs, method, ipc)
    merge(ours, theirs.root, "paper")
    assert (ours.folder(made) / "set.safetensors").exists() == shown
    assert (ours.folder(made) / "preview.png").exists() == shown
    assert ours.record(made)["artefacts"] == theirs.record(made)["artefacts"]
    assert verify(ours) == []
    assert summary(merge(theirs, ours.root)).keys() == {"same"}
    assert verify(theirs) == []
    if not shown:
        with pytest.raises(StoreError, match="by its digest alone"):
            ours.artefact("distill", made.digest, "set.safetensors")
        assert merge(ours, theirs.root).mended == [f"distill/{made.digest}"]
        assert ours.artefact("distill", made.digest, "set.safetensors").exists()


def test_a_file_that_an_excerpt_lost_is_named(ours, theirs):
    made, *_ = made_and_tested(theirs)
    merge(ours, theirs.root, "paper")
    (ours.folder(made) / "set.safetensors").unlink()
    assert "set.safetensors is missing" in str(verify(ours)[0])
    assert merge(ours, theirs.root, "paper").mended == [f"distill/{made.digest}"]


@pytest.mark.parametrize("place", ["/home/me/set.pt", "~/set.pt", "imagefolder:/data/birds@64", "C:\\sets\\set.pt"])
def test_an_excerpt_names_no_place_of_a_machine(ours, theirs, place):
    notes = {"protocol": "paper", "from": place, "page": "https://example.org/a:b"}
    _, test, _ = made_and_tested(theirs, notes=notes)
    assert f"mentions {place}" in merge(ours, theirs.root, "paper").damaged[0]
    assert not ours.has(test)


@pytest.mark.parametrize("place", ["/home/me/set.pt", "~/set.pt", "C:\\sets\\set.pt"])
def test_an_excerpt_names_a_given_set_without_its_folder(ours, theirs, place):
    notes = {"protocol": "paper", "file": place, "files": [place]}
    _, test, _ = made_and_tested(theirs, notes=notes)
    assert merge(ours, theirs.root, "paper").damaged == []
    config = json.loads((ours.folder(test) / "config.json").read_text())
    assert (config["notes"]["file"], config["notes"]["files"]) == ("set.pt", ["set.pt"])
    assert place not in "".join(path.read_text() for path in ours.folder(test).glob("*.json"))
    assert verify(ours) == []
    assert ours.record(test)["value"] == theirs.record(test)["value"]
    assert not merge(ours, theirs.root, "paper").copied


@pytest.mark.parametrize("seen", [True, False])
def test_files_that_go_while_a_store_is_looked_at_are_no_fault(ours, theirs, monkeypatch, seen):
    """Who works on a run removes checkpoints and temporary files at any moment; `seen`: between two looks."""
    advance(theirs, 1)
    finish(theirs, OTHER)
    found, there, ghosts = Path.rglob, Path.is_file, ("ckpt-7.safetensors", ".a.tmp")
    monkeypatch.setattr(Path, "rglob", lambda path, pattern: [*found(path, pattern), *(path / one for one in ghosts)])
    monkeypatch.setattr(Path, "is_file", lambda path: (seen and path.name == ".a.tmp") or there(path))
    assert verify(theirs) == []
    assert [info.state for info in theirs.ls()] == ["partial", "done"]
    assert merge(ours, theirs.root).damaged == []


def test_a_fault_counts_when_it_is_there_twice(theirs, monkeypatch):
    finish(theirs)
    looks = iter([["gone"], [], ["stays"], ["stays"]])
    monkeypatch.setattr("fyi_bench.store.verify.faults_of", lambda folder: next(looks))
    assert (verify(theirs), verify(theirs)) == ([], ["stays"])


def test_a_run_that_goes_on_during_a_merge_is_left_out(ours, theirs, monkeypatch):
    advance(theirs, 1)
    finish(theirs, OTHER)
    gone = checkpoints_of(theirs.folder(CELL)).path(1)
    monkeypatch.setattr("fyi_bench.store.merge.checkpoint_error", lambda folder, step: gone.unlink())
    report = merge(ours, theirs.root)
    assert report.damaged == [f"{NAME}: {gone.name} went away: somebody works on it there; merge again later"]
    assert ours.has(OTHER)
    assert verify(ours) == []


def test_a_run_that_is_removed_while_it_is_listed_is_not_listed(theirs, monkeypatch):
    finish(theirs)
    monkeypatch.setattr("fyi_bench.store.store._state", lambda folder: (shutil.rmtree(folder), ("partial", ""))[1])
    assert theirs.ls() == []
