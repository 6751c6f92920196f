"""Kills of whole commands: `python -m tests.kill 1000` kills, runs again, compares, and prints what was lost.

A round is one command in an empty store, killed again and again until it ends; then its results must be those of an
uncut run. A kill strikes at a file operation (of any process of the command, and all of them die, or one worker alone)
or at a moment of its time; some are signals that ask it to stop (SIGTERM, SIGINT, SIGHUP). After each, every run that
was finished must be there byte for byte and `store verify` must be content. Which kills a round holds follows from the
seed and its number.

Rounds that ended stand in `build/kill/rounds.jsonl`: the same command goes on from them, `--budget 5m` stops in time.
Commands are forked from one process that has run them all, workers too, and work in a folder in memory, where there is
one. Checkpoints are written at every iteration; pictures are written and not drawn.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import io
import math
import mmap
import multiprocessing
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

import distill.engine
from benchmarks.jsonl import append_line, read_lines
from distill.image_set import ImageSet
from fyi_bench.cli import main
from fyi_bench.data.entry import DATASETS, DataFiles, DatasetEntry, Decoded, Split
from fyi_bench.duration import parse_duration
from fyi_bench.errors import EXIT_INTERRUPTED
from fyi_bench.files import read_table, sha256_file
from fyi_bench.present.figures import style
from fyi_bench.rng import stream
from fyi_bench.run.storage import open_storage, sqlite_url
from fyi_bench.run.types import unequalness
from fyi_bench.store.record import SEAL, same_result
from fyi_bench.store.run_dir import DONE, RECORD
from fyi_bench.store.store import Store
from fyi_bench.store.verify import verify
from fyi_bench.terminal import told

FOLDER = Path(__file__).resolve().parent.parent / "build" / "kill"
SHORT = "--dataset dots --protocol quick --threads 1 --yes --quiet --only --ipc 1"
ALONE = "--protocol quick --workers 1 --threads 1 --yes --quiet --store {place}/store"
TINY = "--set epochs=1 --set min_steps=0 --set eval_model=convnet-w8 --set nets=1 --set draws=1"
# the commands; {place} is the folder of a round, {made} holds what others made before, {set} is a set among it
COMMANDS = {
    "distill": f"distill --method dm --arch convnet-w8 {SHORT} {TINY} --set model=convnet-w8 --set iterations=3"
    " --set batch_real=4 --workers 1 --store {place}/store",
    "continual": f"continual --steps 3 --method random {SHORT} {TINY} --seeds 1 --workers 1 --store {{place}}/store",
    "nas": f"nas --space {{made}}/names.txt --method random {SHORT} --set epochs=1 --set min_steps=0 --set draws=1"
    " --seeds 1 --reference-images 6 --reference-epochs 1 --workers 2 --store {place}/store",
    "merge": "store merge {made}/distill/store --store {place}/store",
    "import": "import {made}/theirs.pt --dataset dots --space pixel --out {place}/ours.safetensors",
    "report": "report --store {place}/store",
    "evaluate": f"evaluate {{set}} --arch convnet-w8 {ALONE} --set epochs=1 --set min_steps=0 --set nets=1",
    "cross-arch": f"cross-arch {{set}} --arch mlp {ALONE} --set epochs=1 --set min_steps=0 --set nets=1",
    "card": f"card {{set}} --only labels duplicates cost {ALONE}",
    "export": "export {set} --format mtt --out {place}/exported",
    "runs": "runs --store {place}/store",
    "gc": "store gc --unfinished --yes --store {place}/store",
    "verify": "store verify --store {place}/store",
}
KILLED = ("distill", "continual", "nas", "merge", "import", "report")
ON_A_STORE = ("report", "runs", "gc", "verify")  # begin from a store that others made
SAID, COMPLAINED = "said.txt", "complained.txt"  # what a command printed on stdout and on stderr
LONGEST_S, MOST_KILLS = 600.0, 16
_OPERATIONS = ("open", "write", "fsync", "replace", "unlink")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_STOPPED = (-signal.SIGKILL, -signal.SIGPROF, EXIT_INTERRUPTED, *(-number for number in SIGNALS))
_PICTURE = b"<svg xmlns='http://www.w3.org/2000/svg'></svg>"


class Dots(DataFiles):
    """Three classes of noise: enough for commands whose numbers do not matter."""

    def read(self, split: Split) -> Decoded:
        images = torch.randint(0, 255, (12, 3, 32, 32), generator=stream(5, "dots", split), dtype=torch.uint8)
        return Decoded(images, torch.arange(12) % 3, 3, ("a", "b", "c"))


@dataclass(frozen=True)
class Strike:
    """When a command is killed: at the `at`-th file operation, or after `at` seconds of its processor time.

    alone: a worker dies by itself and the command goes on. asks: the signal it gets where it is only asked to stop.
    """

    kind: str
    at: float
    asks: int = 0

    @property
    def alone(self) -> bool:
        return self.kind == "worker"

    def arm(self, counts: mmap.mmap) -> None:
        """Make this process, which leads its group, and those it forks die at their time."""
        root = os.getpid()

        def counted(real: Callable[..., object]) -> Callable[..., object]:
            def call(*rest: object, **named: object) -> object:
                number = struct.unpack_from("q", counts)[0] + 1
                struct.pack_into("q", counts, 0, number)
                if number >= self.at and not (self.alone and os.getpid() == root):
                    if self.alone:
                        struct.pack_into("q", counts, 0, -(10**9))  # one death is enough
                        os.kill(os.getpid(), signal.SIGKILL)
                    os.killpg(root, signal.SIGKILL)
                return real(*rest, **named)

            return call

        if self.kind in ("operation", "worker"):
            for name in _OPERATIONS:
                setattr(os, name, counted(getattr(os, name)))
        if self.kind == "signal":
            signal.signal(signal.SIGPROF, lambda number, frame: os.kill(root, self.asks))
            for number in SIGNALS:  # the shell that started the attack may have had them ignored
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if self.kind in ("moment", "signal"):
            signal.setitimer(signal.ITIMER_PROF, max(self.at, 1e-4))  # nobody handles SIGPROF: it kills at once


class Blow(Protocol):
    """What happens to a command while it runs. counts: memory of all its processes, for 8 numbers of 8 bytes."""

    def arm(self, counts: mmap.mmap) -> None: ...


NEVER = Strike("operation", math.inf)


@dataclass
class Uncut:
    """What a command leaves when nobody kills it, and how much it does: file operations, seconds."""

    results: dict[str, object]
    operations: int
    seconds: float


@dataclass
class Round:
    """One command on its way through its kills."""

    name: str
    place: Path
    made: Path
    kills: Counter[str] = field(default_factory=Counter)
    finds: list[str] = field(default_factory=list)

    @property
    def words(self) -> list[str]:
        sets = sorted((self.made / "distill/store/distill").glob("*/set.safetensors"))
        known = {"place": self.place, "made": self.made, "set": sets[0] if sets else ""}
        return [word.format(**known) for word in COMMANDS[self.name].split()]

    @property
    def store(self) -> Store:
        return Store(self.place / "store", lambda text: None)

    def prepare(self) -> None:
        """An empty folder, or one with a store to report of."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        if self.name in ON_A_STORE:
            shutil.copytree(self.made / "distill" / "store", self.place / "store")
        if self.name == "gc":  # what no answer is made of
            shutil.rmtree(self.place / "store" / "reports")

    def undisturbed(self) -> Uncut:
        """The command without a kill. Raises SystemExit where it fails by itself."""
        self.prepare()
        code, counts, seconds = self.attempt(NEVER)
        if code:
            raise SystemExit(f"{self.name} ends with {code} before any kill: {self.said()}")
        return Uncut(self.results(), counts[0], seconds)

    def attempt(self, blow: Blow) -> tuple[int, tuple[int, ...], float]:
        """Run the command under a blow: exit code (negative: the signal), what was counted, processor seconds."""
        counts = mmap.mmap(-1, 64)
        child = os.fork()
        if child == 0:
            _live(self.words, blow, counts, self.place)
        code, seconds = _ended(child)
        with contextlib.suppress(ProcessLookupError):  # its workers
            os.killpg(child, signal.SIGKILL)
        return code, struct.unpack("8q", counts), seconds

    def said(self) -> str:
        """The end of what the command printed; of an error that nobody expected, all of it."""
        text = "".join((self.place / name).read_text(errors="replace") for name in (SAID, COMPLAINED)).strip()
        return text[-3000:] if "Traceback" in text else text.splitlines()[-1][:200] if text else ""

    def results(self) -> dict[str, object]:
        """What the command left: the record of each run, its files by digest, records of commands, pages."""
        found: dict[str, object] = {}
        for folder in self.store.run_dirs():
            if (folder / DONE).exists():
                found[f"{folder.parent.name}/{folder.name}"] = read_table(folder / RECORD)
                found |= {str(p.relative_to(self.place)): ImageSet.load(p).digest for p in folder.glob("set.safe*")}
        reports = self.place / "store" / "reports"
        found |= {path.name: {**read_table(path), SEAL: ""} for path in reports.glob("*.json")}
        others = [self.place / "ours.safetensors", *self.place.glob("exported/*"), reports / "report.html"]
        found |= {path.name: sha256_file(path) for path in others if path.exists()}
        return found

    def check(self, before: dict[str, str]) -> dict[str, str]:
        """Compare with what was finished before the kill, and verify; digests of what is finished now."""
        paths = [folder / RECORD for folder in self.store.run_dirs() if (folder / DONE).exists()]
        now = {str(path): sha256_file(path) for path in paths}
        self.finds += [f"lost: {path}" for path, digest in before.items() if now.get(path) != digest]
        self.finds += [f"not whole: {fault}" for fault in verify(self.store)]
        ours = self.place / "ours.safetensors"
        if ours.exists():
            ImageSet.load(ours)
        return now

    def play(self, uncut: Uncut, draw: random.Random, most: int) -> None:
        """Kill until the command ends, at most so often; then let it end, and compare."""
        self.prepare()
        finished = self.check({})
        while True:
            killing = self.kills.total() < min(most, MOST_KILLS)
            strike = _drawn(self.name, uncut, draw) if killing else NEVER
            code, counts, _ = self.attempt(strike)
            if code in _STOPPED and killing:
                self.kills[strike.kind] += 1
            elif code != 0:
                self.finds.append(f"exit {code}: {self.said()}")
                return
            elif strike.alone and counts[0] < 0:
                self.kills[strike.kind] += 1
            finished = self.check(finished)
            if code == 0:
                break
        left = self.results()
        differing = {key for key in left.keys() | uncut.results.keys() if not same(left, uncut.results, key)}
        self.finds += [f"differs: {key}" for key in sorted(differing)]


def same(ours: dict[str, object], theirs: dict[str, object], key: str) -> bool:
    """Whether two commands left the same under this name, cost aside."""
    return key in ours and key in theirs and same_result(_without_cost(ours[key]), _without_cost(theirs[key]))


def _without_cost(value: Any) -> Any:
    """The value without seconds and memory."""
    if isinstance(value, dict):
        cost = {key for key in value if key.endswith("_s") or key in ("seconds", "peak_memory_mib")}
        return {key: _without_cost(entry) for key, entry in value.items() if key not in cost}
    return [_without_cost(entry) for entry in value] if isinstance(value, list) else value


def _drawn(name: str, uncut: Uncut, draw: random.Random) -> Strike:
    """A strike early in the work: what was done stays done, so later parts have their turn."""
    kind = draw.choice(("operation", "worker", "signal") if name == "nas" else ("operation", "moment", "signal"))
    if kind in ("moment", "signal"):
        return Strike(kind, draw.uniform(0, uncut.seconds * 0.4), draw.choice(SIGNALS))
    return Strike(kind, draw.randint(1, int(uncut.operations * 0.4) + 1))


def _live(words: list[str], blow: Blow, counts: mmap.mmap, place: Path) -> None:
    """Life of the child: the command under its blow; never returns."""
    os.setpgid(0, 0)
    for number, name in ((1, SAID), (2, COMPLAINED)):
        os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
    # what took their place while a test runs writes elsewhere
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    blow.arm(counts)
    code = 1
    try:
        code = main([*words, "--debug"])
    except Exception as error:
        message, code = told(error)
        print(message if code != 1 else traceback.format_exc(), file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ended(child: int) -> tuple[int, float]:
    until = time.monotonic() + LONGEST_S
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        if time.monotonic() > until:
            os.killpg(child, signal.SIGABRT)
        time.sleep(0.005)


@contextlib.contextmanager
def working_folder() -> Iterator[Path]:
    """An empty folder for the attempts, in memory where there is one: a kill takes nothing from a disk either."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


@functools.cache
def _eased() -> None:
    """Change, once a process, what only takes time: pictures that nobody looks at, many networks for a number."""
    from alembic.script import ScriptDirectory

    torch.set_num_threads(1)
    distill.engine.CHECKPOINT_SECONDS = 0.0
    DATASETS.register("dots", DatasetEntry("dots", fixed=Dots()))
    unequalness.NETWORKS = 2
    style.draw = lambda name, size, paint: style.Drawing(name, None)  # type: ignore[arg-type]
    style.Drawing._bytes = lambda self, kind, nothing: _PICTURE  # type: ignore[method-assign]
    # workers need not import torch, nor every command read the history of the queue's tables
    spawned, read = multiprocessing.get_context, ScriptDirectory.from_config
    multiprocessing.get_context = lambda method=None: spawned("fork")  # type: ignore[assignment]
    histories: list[Any] = []

    def once(config: Any) -> Any:
        histories[:] = histories or [read(config)]
        return histories[0]

    ScriptDirectory.from_config = once  # type: ignore[method-assign]


def make_ready(folder: Path) -> Path:
    """Import and cache all that commands share, and make what some of them begin from; its folder.

    Each command is run here once, so that those that are forked import, compile and look up nothing.
    """
    _eased()
    made = folder / "made"
    made.mkdir()
    torch.save([torch.rand((3, 3, 32, 32), generator=stream(5, "theirs")), torch.arange(3)], made / "theirs.pt")
    (made / "names.txt").write_text("convnet-w8-d1\nconvnet-w8-d2\nconvnet-w8-d3\n")  # a search of seconds less
    for name in COMMANDS:
        one = Round(name, made / name, made)
        one.prepare()
        words = one.words
        alone = ["1" if before == "--workers" else word for before, word in zip(["", *words], words)]
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            if code := main(alone):
                raise SystemExit(f"{name} ends with {code} before any kill: {out.getvalue()}")
    open_storage(sqlite_url(made / "queue.sqlite3")).engine.dispose()
    gc.collect()
    gc.freeze()  # what is never looked at again stays shared with the children
    return made


def kill(count: int, seed: int = 0, folder: Path = FOLDER, budget_s: float = math.inf) -> list[dict[str, Any]]:
    """Rounds until there were so many kills or the time is up, those of earlier calls included; a row for each.

    The command of a round is the one that had the fewest kills so far.
    """
    began, rows = time.monotonic(), [row for row in read_lines(folder / "rounds.jsonl") if row["seed"] == seed]
    kills = _kills(rows)
    if kills.total() >= count:
        return rows
    with working_folder() as place:
        made, uncut = make_ready(place), {}
        while kills.total() < count and time.monotonic() - began < budget_s:
            name = min(KILLED, key=lambda each: kills[each])
            one = Round(name, place / "place", made)
            if name not in uncut:
                uncut[name] = one.undisturbed()
            one.play(uncut[name], random.Random(f"{seed} {len(rows)}"), count - kills.total())
            rows.append({"seed": seed, "command": name, "kills": dict(one.kills), "finds": one.finds})
            append_line(folder / "rounds.jsonl", rows[-1])
            kills = _kills(rows)
            print(f"{name}: {one.kills.total()} kills, {count - kills.total()} to go", *one.finds, sep="\n  ",
                  file=sys.stderr, flush=True)  # fmt: skip
    return rows


def _kills(rows: Iterable[dict[str, Any]]) -> Counter[str]:
    """Kills of each command."""
    found: Counter[str] = Counter()
    for row in rows:
        found[row["command"]] += sum(row["kills"].values())
    return found


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The answer: kills by command and by kind, and every find."""
    kinds: Counter[str] = Counter()
    for row in rows:
        kinds.update(row["kills"])
    by_command, finds = _kills(rows), [f"{row['command']}: {find}" for row in rows for find in row["finds"]]
    return [
        *(f"{number:>6,}  {name}" for name, number in by_command.items()),
        f"{by_command.total():,} kills in {len(rows):,} commands ({kinds['operation']:,} at a file operation,"
        f" {kinds['moment']:,} at a moment, {kinds['worker']:,} of one worker, {kinds['signal']:,} by a signal)",
        f"{len(finds)} finds: lost, uncaught or different",
        *finds,
    ]


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("count", type=int, nargs="?", default=100)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--folder", type=Path, default=FOLDER)
    asked.add_argument("--budget", type=parse_duration, default=math.inf)
    given = asked.parse_args()
    found = kill(given.count, given.seed, given.folder.absolute(), given.budget)
    print("\n".join(lines(found)))
    sys.exit(any(row["finds"] for row in found))
