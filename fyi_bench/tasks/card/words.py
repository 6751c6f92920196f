"""A card for people: tables and notes that the terminal, the page and the Markdown file are made of."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fyi_bench.present.page import TableView
from fyi_bench.present.words import (
    HOLE,
    arm_title,
    bits_in_parts,
    bits_words,
    bounds,
    bytes_words,
    count_words,
    is_number,
    mean_and_std,
    percent,
    protocol_words,
    seconds_words,
    short,
    signed_points,
    text_table,
)
from fyi_bench.tasks.card.judge import RULE

Record = Mapping[str, Any]
WIDTH = 80
_STATISTICS = {
    "spearman_all": "Spearman, all",
    "spearman_top50": "Spearman, really better half",
    "kendall_all": "Kendall, all",
    "top10_recall": "recall of the 10 best",
    "regret": "regret, points",
}


def title_of(record: Record) -> str:
    """'dm+fyi: 10 images per class of cifar10'."""
    arm = record["arms"][0]
    images = f"{count_words(arm['ipc'], 'image')} per class" if arm["ipc"] else f"{record['images']:,} images"
    return f"{arm_title(arm)}: {images} of {record['dataset']}"


def tables_of(record: Record) -> list[TableView]:
    """Every part that was measured as a table; the answers come first."""
    return [_answers_table(record), *_tables_of_parts(record).values()]


def _tables_of_parts(record: Record) -> dict[str, TableView]:
    parts = record["parts"]
    made = {
        "accuracy": _accuracy_table,
        "cross-arch": _architectures_table,
        "continual": _continual_table,
        "nas": _nas_table,
        "symmetry": _symmetry_table,
        "cost": lambda part: _cost_table(part, record["arms"][0]),
    }
    return {name: make(parts[name]) for name, make in made.items() if name in parts}


def side_by_side(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of one table of several cards: a row for each answer and number, a column for each card."""
    columns = [dict(_told(record)) for record in records]
    labels = dict.fromkeys(label for column in columns for label in column)
    titles = [title_of(record) for record in records]
    header = [
        f"{title} ({record['digest'][:8]})" if titles.count(title) > 1 else title
        for title, record in zip(titles, records)
    ]
    return ["", *header], [[label, *(column.get(label, HOLE) for column in columns)] for label in labels]


def _told(record: Record) -> Iterator[tuple[str, str]]:
    for one in record["answers"]:
        yield one["question"], ": ".join(filter(None, (one["answer"], one["why"])))
    for part, table in _tables_of_parts(record).items():
        several = len(table.header) > 2
        for first, *values in table.rows:
            named = [f"{title} {value}".strip() if several else value
                     for title, value in zip(table.header[1:], values) if value != HOLE]  # fmt: skip
            yield f"{part}: {first}", "; ".join(named)
    yield "verdict", record["verdict"]


def headline_of(record: Record) -> str:
    """The verdict, and the numbers of the answers that were measured."""
    short_names = {"better than random real images": "above random", "better than herding": "above herding"}
    told = [
        f"{name} {one['why']}" for one in record["answers"] if one["why"] and (name := short_names.get(one["question"]))
    ]
    told += [one["why"] for one in record["answers"] if one["part"] == "nas" and one["why"]]
    numbers = "; ".join(told)
    return f"{record['words']} {numbers[0].upper()}{numbers[1:]}." if told else record["words"]


def notes_of(record: Record) -> list[str]:
    """What was left out, and why."""
    reasons: dict[str, list[str]] = {}
    for name, reason in record["left_out"].items():
        reasons.setdefault(reason, []).append(name)
    return [f"Not measured: {', '.join(names)} ({reason})." for reason, names in reasons.items()]


def card_words(record: Record) -> str:
    """The card for a terminal of 80 columns."""
    arm, head = record["arms"][0], f"protocol {protocol_words(record['protocol'])} · {record['device']}"
    lines = [title_of(record), *_wrapped(f"{head} · set {arm['set_digest']}"), "", *_wrapped(record["words"]), ""]
    for one in record["answers"]:
        lines.append(f"  {one['answer']:<14}{one['question']}")
        lines += [f"{'':16}{line}" for line in textwrap.wrap(one["why"], WIDTH - 16)]
    for table in tables_of(record)[1:]:
        lines += ["", *_wrapped(table.caption), *text_table(table.header, table.rows)]
    lines += ["", *(line for note in notes_of(record) for line in _wrapped(note))]
    return "\n".join(lines).rstrip("\n")


def markdown_of(record: Record) -> str:
    """The card as Markdown, for a README or the page of a data set."""
    lines = [f"## {title_of(record)}", "", f"**{record['words']}**", ""]
    for table in tables_of(record):
        lines += [table.caption, "", *_markdown(table), ""]
    lines += [f"- {note}" for note in (*notes_of(record), *_rule_lines())]
    arm = record["arms"][0]
    made = f"protocol {protocol_words(record['protocol'])}, seed {record['seeds'][0]}, set `{arm['set_digest']}`"
    lines += ["", f"Measured by fyi-bench {record['versions']['fyi-bench']}: {made}, card `{record['digest']}`.", ""]
    lines += [f"    {one['command']}" for one in record["sources"] if one["command"]]
    return "\n".join(lines) + "\n"


def fill_section(record: Record, section: Any, store: Any) -> None:
    """The card as a section of a page."""
    from fyi_bench.present.figures.dots import accuracy_drawing

    tones = {"a faithful proxy": "better", "not a proxy": "worse"}
    section.title, section.headline = title_of(record), headline_of(record)
    section.tone = tones.get(record["verdict"], "unknown")
    section.tables += tables_of(record)
    section.notes += notes_of(record)
    drawn = _arms(record)
    if drawn:
        section.figure(
            "Accuracy", "A dot is one network; the bar is the mean.", "accuracy",
            lambda name, width: accuracy_drawing({"arms": drawn}, name, width),
        )  # fmt: skip
    section.table(
        "How the verdict is reached.", ["", "rule"], [[str(k), rule] for k, rule in enumerate(RULE, 1)], prose=True
    )
    sources = [
        [one["task"], protocol_words(one["protocol"]), one["digest"], one["command"]] for one in record["sources"]
    ]
    section.table("The runs behind it.", ["task", "protocol", "digest", "command"], sources, prose=True)
    section.sets(record, store)


def _arms(record: Record) -> list[dict[str, Any]]:
    """Floors, set and ceiling as arms of a figure."""
    parts, title = record["parts"], arm_title(record["arms"][0])
    held = [
        *([parts["accuracy"]] if "accuracy" in parts else []),
        *parts.get("cross-arch", {}).get("architectures", []),
    ]
    called = {"random": "random", "herding": "herding", "hard": f"{title}, hard", "set": title, "full": "all real"}
    arms = []
    for what, name in called.items():
        entries = [{"name": one["name"], **one[what]} for one in held if what in one]
        flip = "fyi" if what == "set" else "none"  # the colour of the set in question
        arms += [{"method": name, "name": name, "flip": flip, "architectures": entries}] if entries else []
    return arms


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH)


def _markdown(table: TableView) -> Iterator[str]:
    rule = "---" if table.prose else "---:"
    for row in (table.header, ["---", *[rule] * (len(table.header) - 1)], *table.rows):
        yield "| " + " | ".join(text.replace("|", "\\|") for text in row) + " |"


def _rule_lines() -> Sequence[str]:
    return [f"Rule: {line}" for line in RULE]


def _answers_table(record: Record) -> TableView:
    rows = [[one["question"], one["answer"], one["why"] or HOLE] for one in record["answers"]]
    return TableView("Is this set a faithful proxy for the real data?", ["", "answer", "measured"], rows, prose=True)


def _points(difference: Record | None) -> str:
    if difference is None or not is_number(difference["mean"]):
        return HOLE
    return signed_points(difference["mean"]) + bounds(difference, signed_points)


def _accuracy_table(part: Record) -> TableView:
    full = part["full"]
    called = {
        "random": ("random real images", f"{part['random']['draws']} draws" if "random" in part else ""),
        "herding": ("real images by herding", "1 set"),
        "set": ("the set" if "hard" not in part else "the set, its own labels", ""),
        "hard": ("the set, hard labels", ""),
        "full": (f"all {full['images']:,} real images", count_words(full["epochs"], "epoch")),
    }
    rows = [
        [name, mean_and_std(part[what]), str(len(part[what]["values"])), more or HOLE]
        for what, (name, more) in called.items() if what in part
    ]  # fmt: skip
    caption = f"Accuracy of {part['name']}, from the floors to the ceiling; the set above random: "
    caption += f"{_points(part.get('above_random'))}, above herding: {_points(part.get('above_herding'))} points."
    return TableView(f"{caption}{_gap(part)}", ["trained on", "accuracy, %", "networks", ""], rows)


def _gap(part: Record) -> str:
    """How far the set goes from random images to all of them."""
    judged = part.get("hard") or part["set"]
    if "random" not in part or not part["random"]["mean"] <= judged["mean"] <= part["full"]["mean"]:
        return ""  # no part of that way
    share = (judged["mean"] - part["random"]["mean"]) / (part["full"]["mean"] - part["random"]["mean"])
    return f" It goes {percent(share, 0)} % of the way from random images to all of them."


def _architectures_table(part: Record) -> TableView:
    found = part["architectures"]
    columns = {"set": "the set, %", "hard": "hard labels, %", "random": "random, %"}
    columns = {what: name for what, name in columns.items() if any(what in one for one in found)}
    rows = [
        [one["name"], *(mean_and_std(one[what]) for what in columns), _points(one.get("above_random"))] for one in found
    ]
    means = [one["set"]["mean"] for one in found]
    spread = f", from {percent(min(means))} to {percent(max(means))} %" if len(means) > 1 else ""
    return TableView(f"Other architectures{spread}.", ["", *columns.values(), "above random, points"], rows)


def arms_of_parts(record: Record) -> list[dict[str, Any]]:
    """The set, its floors, bounds and ceilings as arms, each with what was measured of it."""
    parts, own = record["parts"], record["arms"][0]
    floors = {name: {"method": name, "flip": "none", "ipc": own["ipc"]} for name in ("random", "herding")}
    ceilings = {name: {"method": name, "flip": "none", "ipc": None} for name in ("full", "joint")}
    arms: dict[str, dict[str, Any]] = {"set": {**own}, "hard": {**own, "name": "hard labels"}, **floors, **ceilings}
    for held in (parts.get("accuracy"), *parts.get("cross-arch", {}).get("architectures", ())):
        for what in arms.keys() & (held or {}).keys():
            arms[what].setdefault("architectures", []).append({**held[what], "name": held["name"]})
    steps = parts.get("continual", {})
    for what, entry in {"set": steps.get("set"), **steps.get("bounds", {})}.items():
        arms[what] |= {"average": entry} if entry else {}
    arms["set"] |= {key: entry for key, entry in parts.get("nas", {}).items() if key in _STATISTICS}
    return [arm for what, arm in arms.items() if what == "set" or arm.keys() & {"architectures", "average"}]


def _continual_table(part: Record) -> TableView:
    called = {"joint": "all real images of the classes so far", "random": "random real images"}
    rows = [["the set", mean_and_std(part["set"])]]
    for name, entry in part["bounds"].items():
        orders = entry.get("orders", part["orders"])
        said = "" if orders == part["orders"] else f", {count_words(orders, 'class order')}"
        rows.append([called.get(name, name) + said, mean_and_std(entry)])
    above = _points(part.get("above_random"))
    caption = f"Classes in {count_words(part['steps'], 'step')}, {count_words(part['orders'], 'class order')}: accuracy"
    caption += f" on the classes so far, averaged over steps; the set above random: {above} points."
    return TableView(caption, ["memory", "accuracy, %"], rows)


def _nas_table(part: Record) -> TableView:
    from fyi_bench.tasks.nas.faithful import with_interval

    real = part["reference"]
    rows = [[name, with_interval(part[key], percent if key == "regret" else None)] for key, name in _STATISTICS.items()]
    if part["ceiling"]:
        what = f"Spearman of real data, another seed ({part['ceiling_evaluated']} of them)"
        rows.append([what, with_interval(part["ceiling"])])
    caption = (
        f"{part['evaluated']} architectures ranked by the set against {count_words(real['epochs'], 'epoch')} on"
        f" {real['images']:,} real images, 95 % intervals."
    )
    return TableView(" ".join([caption, *part["words"]]), ["", "agreement"], rows)


def _symmetry_table(part: Record) -> TableView:
    called = {"set": "the set", "random": "random real images"}
    rows = [[name, short(part[what]["mean"], 3)] for what, name in called.items() if what in part]
    return TableView("Unequalness of a set and its mirror image (0: symmetric).", ["", "unequalness"], rows)


def _cost_table(part: Record, arm: Record) -> TableView:
    spent = sum(part["measuring_s"].values())
    rows = [
        ["images", f"{part['images']:,}"],
        ["stored", f"{bytes_words(part['set_bytes'])}, {percent(part['share_of_real_bytes'], 2)} % of the real data"],
        ["bits a class", bits_words(part["bits_per_class"])],
        *([["of these, in kbit", each]] if (each := bits_in_parts(arm.get("bits_per_class", {}))) else []),
        ["condensing", seconds_words(part.get("distill_s"))],
        ["measuring, runs added up", seconds_words(spent)],
    ]
    return TableView("What it takes.", ["", "cost"], rows, prose=True)
