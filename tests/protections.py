"""Promises without their protection: `python -m tests.protections` takes lines out, one by one, and expects red tests.

Each protection is edited in a copy of the code, and the tests named beside it run there: they have to fail. A test that
stays green holds nothing. The table of docs/trust.md is that of `table()`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("search_space", "distill", "downstream", "fyi_bench", "tests", "pyproject.toml", "README.md")


@dataclass(frozen=True)
class Protection:
    """A line that holds a promise of the README, what stands in its place without it, and the test that then fails.

    test: file, and words of `-k`. line: once in the file. also: file, line and what stands there instead, of a second
    guard that would hold alone.
    """

    promise: int
    what: str
    file: str
    line: str
    without: str
    test: str
    words: str
    also: tuple[str, str, str] | None = None

    @property
    def edits(self) -> list[tuple[str, str, str]]:
        """File, line, and what stands there instead, of all that is taken out."""
        return [(self.file, self.line, self.without), *([self.also] if self.also else [])]

    def row(self) -> str:
        """Its line in the table of the docs."""
        return f"| {self.promise} | {self.what} (`{self.file}`) | `{self.test} -k '{self.words}'` |"


SAVED = "self.optimiser.state[leaf][key] = value.to(self.problem.device) if value.ndim else value"
NAMES = "return sorted(self.names - TENSOR_NAMES - NUMPY_NAMES - set(STORAGE_NAMES) - more)"
PROTECTIONS = (
    Protection(1, "the record's sha256 compared with `done`", "fyi_bench/store/run_dir.py",
               "if sha256_file(path) != sealed:", "if False:", "test_store.py", "changed_record"),
    Protection(1, "the seal of a record compared", "fyi_bench/store/record.py",
               "if record.get(SEAL, digest := _seal_of(record)) != digest:", "if False:",
               "test_sealed.py", "edited_record"),
    Protection(1, "a finished run refuses to be written", "fyi_bench/store/run_dir.py",
               "        if self.done:\n            raise StoreError", "        if False:\n            raise StoreError",
               "test_store.py", "finished_run_never"),
    Protection(1, "a command repeated keeps the record that is there", "fyi_bench/store/commands.py",
               "record = {**record, **{key: kept[key] for key in _OF_THE_FIRST if key in kept}}", "pass",
               "test_sealed.py", "repeated_leaves"),
    Protection(2, "the optimiser's state taken from the checkpoint", "distill/engine.py", SAVED,
               "self.optimiser.state[leaf][key] = torch.zeros_like(value)",
               "test_methods_contract.py", "resumed_run and dm"),
    Protection(2, "artefacts looked at before a cut run is called finished", "fyi_bench/store/run_dir.py",
               "        if broken:\n", "        if False:\n", "test_crash.py", "broken_artefact"),
    Protection(2, "an older checkpoint kept beside the newest", "fyi_bench/store/checkpoint.py",
               "KEPT = 2", "KEPT = 1", "test_resume.py", "two_checkpoints or passed_over"),
    Protection(2, "SIGHUP asks for a checkpoint, as SIGTERM does", "fyi_bench/run/deadline.py",
               ', signal.SIGHUP: "the end of its terminal (SIGHUP)"', "", "test_hostile.py", "end_of_the_terminal"),
    Protection(2, "who looks late at a dead worker's run finds it done", "fyi_bench/run/queue.py",
               "with _unless_over():  # another brought it back, and it is done by now",
               "if True:", "test_queue.py", "late_finds_it_done"),
    Protection(3, "the order of images drawn by the run's own seed", "downstream/training.py",
               'generator=rng.stream(self._seed, "shuffle", epoch)', "generator=None",
               "test_cli.py", "workers_do_not_change"),
    Protection(3, "a run's threads from its plan", "fyi_bench/run/drain.py",
               "set_threads(self.habits.threads or claim.threads)", "set_threads(self.habits.threads)",
               "test_queue.py", "threads_are_those"),
    Protection(3, "every transaction of sqlite begins as a writer", "fyi_bench/run/storage.py",
               "        _begin_as_writer(storage.engine)\n", "        pass\n", "test_queue.py", "claim_at_the_same"),
    Protection(4, "the data's digests compared before a run", "fyi_bench/run/run_type.py",
               "if changed or inputs.get(MEASURED,", "if False and inputs.get(MEASURED,",
               "test_same_data.py", "swapped_after and distill"),
    Protection(4, "a set's header compared with its digest", "distill/tensor_file.py",
               "if found.pop(_SEAL, None) != (digest_of(found) if _LAYOUT in found else None):",
               'if found.pop(_SEAL, None) == "":', "test_same_data.py", "one_byte"),
    Protection(4, "the config of a finished run compared with what is asked", "fyi_bench/store/store.py",
               "        run = RunDir(folder, spec, self.say)\n        run.check_config()\n",
               "        run = RunDir(folder, spec, self.say)\n", "test_resume.py", "finished_run_of_another"),
    Protection(4, "versions of components compared before a worker computes", "fyi_bench/run/drain.py",
               'check_numerics(claim.spec.inputs.get("numerics", {}), self.worker.device)', "pass",
               "test_queue.py", "of_another_version"),
    Protection(4, "compiled operations that are absent are part of the digest", "fyi_bench/run/numerics.py",
               "        found[WITHOUT] = without\n", "        pass\n", "test_same_data.py", "without_compiled"),
    Protection(4, "a file of a run compared with its record before it is used", "fyi_bench/store/store.py",
               "        if fault:\n", "        if False:\n", "test_store.py", "artefact_is_given"),
    Protection(5, "names in a pickle that are no tensor's", "fyi_bench/formats/pickle_scan.py",
               NAMES, "return []", "test_importers_security.py", "only_tensors_and_plain"),
    Protection(5, "both guards of a pickle, this one and torch's own", "fyi_bench/formats/pickle_scan.py",
               NAMES, "return []", "test_importers_security.py", "malicious_files",
               ("fyi_bench/formats/opening.py", "weights_only=True", "weights_only=False")),
    Protection(5, "names in an archive that lead out of its folder", "fyi_bench/formats/unpacking.py",
               'if plain.is_absolute() or ".." in parts or', "if", "test_formats_packed.py", "nothing_leaves"),
    Protection(5, "links in an archive", "fyi_bench/formats/unpacking.py",
               "            if (entry.external_attr >> 28) == 0o12:\n", "            if False:\n",
               "test_formats_packed.py", "links_and_devices"),
    Protection(5, "offsets of Arrow that point outside", "fyi_bench/data/arrow.py",
               "        table.validate(full=True)\n", "", "test_formats_hub.py", "offsets_that_point"),
    Protection(6, "the bound on labels", "fyi_bench/formats/labels.py",
               "if found.classes > max(FEW_CLASSES, MOST_EMPTY * count):", "if False:",
               "test_hostile.py", "label_far"),
    Protection(6, "what is no regular file not merged", "fyi_bench/store/merge.py",
               "                _check_regular(source)\n", "", "test_sealed.py", "regular_files and link"),
    Protection(6, "the bytes of a checkpoint's tensors compared", "distill/tensor_file.py",
               "if name in digests and sha256_of(tensor) != digests[name]:", "if False:",
               "test_resume.py", "whatever_byte"),
    Protection(6, "a checkpoint whose tensors are not the run's", "distill/contracts.py",
               "            check_alike(tensors, run.tensors())\n", "",
               "test_methods_contract.py", "another_run and dm"),
    Protection(6, "a checkpoint of another run or step", "fyi_bench/store/checkpoint.py",
               "if told != (self.key, step):", "if False:", "test_resume.py", "another_cell"),
    Protection(6, "both bounds on a picture's size", "fyi_bench/data/pictures.py",
               "    if count > MOST_PIXELS:\n", "    if False:\n", "test_hostile.py", "impossible_size",
               ("fyi_bench/data/pictures.py", "    if count > FEW_PIXELS and count > MOST_A_BYTE * held:\n",
                "    if False:\n")),
    Protection(6, "control characters of foreign names not printed", "fyi_bench/terminal.py",
               "typer.echo(printable(line))", "typer.echo(line)", "test_hostile.py", "foreign_names"),
    Protection(6, "a library compared with what was compiled", "search_space/native.py",
               "if not _whole(path):", "if not path.is_file():", "test_damage.py", "named and native"),
    Protection(7, "the bounds of the engine's guard", "distill/engine.py",
               "if growth <= MOST_GROWTH and worst <= most:", "if True:", "test_cli.py", "absurd_learning"),
    Protection(7, "the bound on a network's loss", "downstream/training.py",
               "if not abs(loss) <= self._most:", "if not math.isfinite(loss):",
               "test_training.py", "beyond_all_measure"),
    Protection(8, "the lock on a run's folder", "fyi_bench/store/lock.py",
               "in _BUSY:\n            return False", "in _BUSY:\n            return True",
               "test_crash.py", "exactly_one_computes"),
    Protection(8, "a lock on a folder that was removed meanwhile", "fyi_bench/store/lock.py",
               "if not _same_file(self.path, opened):", "if False:",
               "test_store.py", "removed_while or replaced_while"),
    Protection(8, "a forked helper keeps no lock alive", "fyi_bench/store/lock.py",
               "            _watch_forks()\n", "", "test_crash.py", "killed_owner_frees"),
    Protection(9, "records of earlier schemas brought up", "fyi_bench/store/record.py",
               "record = UPGRADES[schema](record)", "pass", "test_record.py", "brought_up"),
    Protection(9, "records from before the seal read", "fyi_bench/store/record.py",
               "if record.get(SEAL, digest := _seal_of(record)) != digest:", "if record.get(SEAL) != _seal_of(record):",
               "test_sealed.py", "earlier_version"),
    Protection(9, "sets from before the seal read", "distill/tensor_file.py",
               "(digest_of(found) if _LAYOUT in found else None)", "digest_of(found)",
               "test_same_data.py", "earlier_versions"),
    Protection(10, "other circumstances than before said and recorded", "fyi_bench/store/run_dir.py",
               "        elif differing:\n", "        elif False:\n", "test_resume.py", "other_circumstances"),
    Protection(11, "labels that look permuted stop a command", "fyi_bench/tasks/given.py",
               "if agreement is not None and agreement.doubtful:", "if False:", "test_guard.py", "stops_at_permuted"),
    Protection(11, "names of classes decide, not the order they are sorted in", "fyi_bench/formats/classes.py",
               "table = class_table(origin.found_by, options.data_root) if origin.classes_of else None", "table = None",
               "test_classes.py", "names_of_a_data_set_decide"),
)  # fmt: skip


def table() -> list[str]:
    """The table of docs/trust.md."""
    return ["| | taken out | tests that fail |", "| --- | --- | --- |", *(each.row() for each in PROTECTIONS)]


def without(protection: Protection, place: Path) -> None:
    """Copy the code to a folder, without the protection. Raises ValueError where its line is not once in the file."""
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / name)
    for path in (ROOT / "docs", ROOT / "results"):  # some tests read there
        if path.exists():
            (place / path.name).symlink_to(path)
    for name, line, instead in protection.edits:
        text = (place / name).read_text()
        if text.count(line) != 1:
            raise ValueError(f"{name} has {text.count(line)} times: {line}")
        (place / name).write_text(text.replace(line, instead))


def taken_out(protection: Protection) -> str:
    """'red', or how the tests of the protection ended without it."""
    with tempfile.TemporaryDirectory() as folder:
        without(protection, Path(folder))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", "--no-header"]
        done = subprocess.run(
            [*command, f"tests/{protection.test}", "-k", protection.words], cwd=folder, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}, check=False,
        )  # fmt: skip
    if done.returncode < 0 or (done.returncode == 1 and "FAILED" in done.stdout):  # died, or told
        return "red"
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]])[-1]
    return f"exit {done.returncode}: {last}"


def main(asked: Sequence[str]) -> int:
    """Take each out, or those whose file's name holds a word of `asked`; 1 where tests stay green."""
    options = argparse.ArgumentParser(prog="python -m tests.protections", description=(__doc__ or "").split("\n")[0])
    options.add_argument("words", nargs="*", help="of the names of files whose protections are taken out; default: all")
    words = options.parse_args(asked).words
    began, green = time.monotonic(), 0
    chosen = [each for each in PROTECTIONS if not words or any(word in each.file for word in words)]
    if not chosen:
        options.error(f"no file of a protection is called {' or '.join(words)}")
    for each in chosen:
        ended = taken_out(each)
        green += ended != "red"
        print(f"{each.promise:>3}  {ended:<4}  {each.what} ({each.file}): {each.test} -k '{each.words}'", flush=True)
    print(f"{len(chosen)} protections taken out in {time.monotonic() - began:.0f} s, {green} not noticed")
    return int(bool(green))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
