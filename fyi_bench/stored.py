"""Commands about what a store holds: numbers as data, runs one by one, merging, checking, removing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fyi_bench.config import Option
from fyi_bench.errors import StoreError
from fyi_bench.present.words import (
    HOLE,
    arm_title,
    bytes_words,
    columns,
    count_words,
    page_width,
    seconds_words,
    short,
    text_table,
)
from fyi_bench.registry import pick
from fyi_bench.tools import StoreFolder, tool

if TYPE_CHECKING:
    from pandas import DataFrame

Where = Annotated[
    tuple[str, ...], Option("Only rows where this holds: method=dm, ipc>=10, flip!=none; of several all.")
]  # fmt: skip


def _runs_lines(
    frame: Any,
    format: Annotated[str, Option("table, csv, latex (booktabs), markdown or json.")] = "table",
) -> list[str]:
    from fyi_bench.present.arms import FORMS, rows_of_frame, told

    pick("format", format, FORMS)
    return [told(rows_of_frame(frame), format)]


@tool("runs", _runs_lines, examples=("fyi-bench runs", "fyi-bench runs --where method=dm ipc=10 --format csv",
                                     "fyi-bench runs --where measure=accuracy --format latex"))  # fmt: skip
def runs(where: Where = (), *, store: StoreFolder = None) -> DataFrame:
    """Every number in the store, one per row, as text, CSV, LaTeX, JSON or (in Python) a DataFrame."""
    from fyi_bench.present.arms import COLUMNS, arms_of, frame_of, select
    from fyi_bench.store.store import Store

    return frame_of(select(arms_of(Store(store)), where, COLUMNS))


@tool("store ls", examples=("fyi-bench store ls", "fyi-bench store ls --where method=dm state=done"))
def store_ls(where: Where = (), store: StoreFolder = None) -> Iterator[str]:
    """Finished, partial and diverged runs: type, digest, what it is, value or state, date, size."""
    from fyi_bench.present.arms import select
    from fyi_bench.run.holdings import COLUMNS, Holdings
    from fyi_bench.store.store import Store

    held = Holdings.of(Store(store))
    rows = select([held.row(run) for run in held.runs.values()], where, COLUMNS)
    if not rows:
        yield f"{'No run is as asked' if held.runs else 'Nothing is stored'} in the store {held.store.root}."
        return
    shared, header, lines = _listed(held, rows)
    if shared:
        yield from (shared, "")
    yield from text_table(header, lines)
    yield from ("", f"{count_words(len(rows), 'run')}, {bytes_words(sum(row['size'] for row in rows))}")


def _listed(held: Any, rows: Sequence[Mapping[str, Any]]) -> tuple[str, list[str], list[list[str]]]:
    """Header and lines of a listing as narrow as it goes: what all rows share stands above."""

    def state(row: Mapping[str, Any]) -> str:
        run = held.runs[row["digest"]]
        at = f" at {run.step}" if run.step is not None and run.state != "done" else ""
        if row["state"] != "done":
            return row["state"] + at
        value = row["value"]
        return HOLE if value is None else f"{100 * value:.1f}" if 0 <= value <= 1 else f"{value:.4g}"

    def arm(row: Mapping[str, Any]) -> str:
        return arm_title({"method": row["method"], "flip": row["flip"] or "none"}) if row["method"] else HOLE

    shown: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "digest": lambda row: row["digest"], "type": lambda row: row["type"], "data set": lambda row: row["dataset"],
        "arm": arm, "ipc": lambda row: row["ipc"], "on": lambda row: row["architecture"],
        "seed": lambda row: row["seed"], "value": state, "date": lambda row: (row["date"] or "")[:10],
        "size": lambda row: bytes_words(row["size"]),
    }  # fmt: skip
    texts = {
        name: [HOLE if (text := of(row)) in (None, "") else str(text) for row in rows] for name, of in shown.items()
    }
    shared = {n: c[0] for n, c in texts.items() if n not in ("digest", "value", "size") and len(set(c)) == 1}
    names = [name for name in texts if name not in shared]
    while len(names) > 3 and sum(2 + max(map(len, [n, *texts[n]])) for n in names) > page_width():
        # a beginning of the digest is enough for `store show`; the rest is told there
        spare = next((n for n in ("seed", "date", "on") if n in names), "")
        if len(texts["digest"][0]) > 8:
            texts["digest"] = [digest[:8] for digest in texts["digest"]]
        elif spare:
            names.remove(spare)
        else:
            break
    lines = [list(line) for line in zip(*(texts[name] for name in names))]
    return " · ".join(f"{name} {text}" for name, text in shared.items() if text != HOLE), names, lines


DigestArgument = Annotated[str, Option("Its digest, or the beginning of it.", argument="DIGEST")]
Agreed = Annotated[bool, Option("Do it; without this, only say what would be done.")]


@tool("store show", examples=("fyi-bench store show 0123abcd",))
def store_show(digest: DigestArgument, store: StoreFolder = None) -> Iterator[str]:
    """One run: what it is, its value, machine, inputs and files, what it is made of, and what uses it."""
    from fyi_bench.run.holdings import Holdings
    from fyi_bench.store.record import read_record
    from fyi_bench.store.store import Store

    held = Holdings.of(Store(store))
    run = held.find(digest)
    row = held.row(run)
    at = f" at step {run.step}" if run.step is not None and run.state != "done" else ""
    facts: list[tuple[str, Any]] = [
        ("run", f"{run.kind} {run.digest}"), ("state", run.state + at + (f": {run.detail}" if run.detail else "")),
        ("value", None if row["value"] is None else short(row["value"], 6)), ("folder", run.folder),
        ("size", bytes_words(run.bytes)),
    ]  # fmt: skip
    if run.state == "done":
        record = read_record(run.folder / "record.json")
        machine = record.get("environment", {})
        facts += [("date", record.get("date")), ("time", seconds_words(record.get("wall_s")))]
        facts += [("machine", machine.get("device_name")), ("files", ", ".join(record.get("artefacts", {})))]
    facts += [("made of", one) for one in held.needs[run.digest]]
    facts += [("used by", user) for user in held.users(run.digest)]
    yield from columns([(name, fact) for name, fact in facts if fact not in (None, "")])
    yield from ("", "inputs")
    yield from columns([(f"  {key}", text) for key, text in _flat(run.inputs)])


def _flat(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """('protocol.epochs', '300') of nested inputs; lists in short."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _flat(entry, f"{where}.{key}" if where else str(key))
    else:
        text = str(value)
        yield where, text if len(text) <= 200 else f"{text[:200]} …"


@tool("store rm", examples=("fyi-bench store rm 0123abcd", "fyi-bench store rm 0123abcd 89ab --yes"))
def store_rm(
    digests: Annotated[tuple[str, ...], Option("Digests, or beginnings of them.", argument="DIGEST…")],
    *,
    yes: Agreed = False,
    store: StoreFolder = None,
) -> Iterator[str]:
    """Remove runs, and say which answers use them and would compute them anew."""
    from fyi_bench.run.holdings import Holdings, remove_run
    from fyi_bench.store.store import Store

    held = Holdings.of(Store(store))
    chosen = list({run.digest: run for run in map(held.find, digests)}.values())
    for run in chosen:
        users = held.users(run.digest)
        used = f", used by {', '.join(users[:3])}{' …' if len(users) > 3 else ''}" if users else ""
        if yes:
            remove_run(run)
        yield f"{'removed' if yes else 'would remove'}  {run.kind} {run.digest}, {bytes_words(run.bytes)}{used}"
    if not yes:
        yield "Nothing is removed yet: add --yes."


@tool("store gc", examples=("fyi-bench store gc", "fyi-bench store gc --unfinished --yes"))
def store_gc(
    unfinished: Annotated[bool, Option("Also runs that stopped on the way, with their checkpoints.")] = False,
    yes: Agreed = False,
    store: StoreFolder = None,
) -> Iterator[str]:
    """Remove what nothing uses: runs of no answer and no open queue, pictures without a record."""
    from fyi_bench.run.holdings import Holdings, remove_folder, remove_run
    from fyi_bench.store.lock import in_use
    from fyi_bench.store.store import Store

    opened, word = Store(store), "removed" if yes else "would remove"
    with in_use(opened.root, alone=True) as alone:
        held = Holdings.of(opened)
        runs, reason = held.unreferred() if alone else ([], "a command is at work here: finished runs are kept")
        runs = [*runs, *(held.unfinished() if unfinished else [])]
        folders = list(held.leftovers())
        for run in runs:
            if yes:
                remove_run(run)
            yield f"{word}  {run.kind} {run.digest} ({run.state}), {bytes_words(run.bytes)}"
        for folder in folders:
            if yes:
                remove_folder(folder)
            yield f"{word}  {folder}"
    if reason:
        yield f"{reason[0].upper()}{reason[1:]}."
    if not runs and not folders:
        yield "There is nothing to remove."
    elif not yes:
        freed = bytes_words(sum(run.bytes for run in runs))
        yield f"Nothing is removed yet: add --yes to free {freed}."


@tool("store merge", examples=("fyi-bench store merge OTHER",
                                "fyi-bench store merge runs --excerpt paper --store results"))  # fmt: skip
def store_merge(
    folder: Annotated[Path, Option("Another store.", argument="DIR")],
    excerpt: Annotated[
        str | None,
        Option("Only finished runs of this protocol; large sets and real images by digest alone, to publish them."),
    ] = None,
    store: StoreFolder = None,
) -> Iterator[str]:
    """Bring finished runs of another machine's store into this one."""
    from fyi_bench.store.merge import merge
    from fyi_bench.store.store import Store

    if excerpt is not None:
        from downstream.protocol import protocol_data

        protocol_data(excerpt.partition("+")[0])  # an unknown name gets a suggestion
    yield from merge(Store(store), folder, excerpt).lines()


@tool("store verify", examples=("fyi-bench store verify",))
def store_verify(store: StoreFolder = None) -> Iterator[str]:
    """Check every record and file of the store against its checksum."""
    from fyi_bench.store.run_dir import absent_names
    from fyi_bench.store.store import Store
    from fyi_bench.store.verify import verify

    opened = Store(store)
    opened.must_exist()
    faults = verify(opened)
    yield from map(str, faults)
    if faults:
        raise StoreError(f"{len(faults)} file(s) are not what their records say.\nSee the lines above.")
    absent = sum(len(absent_names(folder)) for folder in opened.run_dirs())
    yield "Everything is whole." + (f" {absent} file(s) are known by their digests alone." if absent else "")
