"""The replication: a verdict for each published number, and pages that are what the command makes of `results/`."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from scipy import stats

from commands import run
from distill.recipes import recipe
from downstream.protocol import protocol
from fyi_bench.errors import DataError
from fyi_bench.present.missing import Missing
from fyi_bench.present.published import published
from fyi_bench.present.replication import head, page, picture, places, renew
from fyi_bench.present.replication.cost import Pace, pace_of, work_of_set
from fyi_bench.present.replication.procedures import FYI_CODE, PROTOCOLS, flip_differences, measured
from fyi_bench.present.tables import table
from fyi_bench.present.tables.groups import OUTSIDE, UNDECIDED, WITHIN
from fyi_bench.run.types.accuracy import accuracy_run
from fyi_bench.run.types.distill import distill_run
from fyi_bench.run.types.unequalness import unequalness_run
from fyi_bench.store.excerpt import place_in, runs_of_protocol
from fyi_bench.store.merge import merge
from fyi_bench.store.store import Store
from fyi_bench.store.verify import verify
from sample_store import add_set, fill, tiny_dataset
from search_space import space720
from search_space.architectures import forward_flops

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Store(ROOT / "results")


@pytest.mark.long
def test_the_documents_are_what_the_command_makes_of_the_results():
    assert verify(RESULTS) == []
    assert (ROOT / "docs" / "replication.md").read_text(encoding="utf-8") == page(RESULTS)
    assert f"\n{head(RESULTS)}\n" in (ROOT / "README.md").read_text(encoding="utf-8")
    kept = (ROOT / "docs" / "dsa-1ipc.png").read_bytes()
    made, there = (Image.open(io.BytesIO(content)) for content in (picture(RESULTS), kept))
    assert made.tobytes() == there.tobytes()


def test_results_are_fit_to_be_published():
    files = [path for path in RESULTS.root.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20 * 2**20
    assert [place for folder in RESULTS.run_dirs() if (place := place_in(folder))] == []
    known = [runs_of_protocol(RESULTS, protocol, on_the_way=True) for protocol in PROTOCOLS]
    assert {info.digest for info in RESULTS.ls()} == set().union(*known)


def test_an_excerpt_has_sets_by_the_recipe_and_their_beginnings(tmp_path):
    store = Store(tmp_path)
    for changes in ({}, {"iterations": "50"}, {"iterations": "50", "lr_img": "0.2"}, {"lr_img": "0.3"}):
        add_set(store, "dsa", "fyi", 1, **changes)
    add_set(store, "dsa", "fyi", 10, iterations="50")  # no whole one is there
    made = {run.digest: run.inputs for run in store.ls()}
    whole = runs_of_protocol(store, "paper")
    assert [made[digest]["config"]["iterations"] for digest in whole] == [1000]
    short = runs_of_protocol(store, "paper", on_the_way=True) - whole
    assert [(made[d]["ipc"], made[d]["config"]["iterations"], made[d]["config"]["lr_img"]) for d in short] == [
        (1, 50, 0.1)
    ]
    assert runs_of_protocol(store, "quick") == set()


def place_of(store: Store, method: str = "dsa", flip: str = "none", ipc: int = 10) -> places.PaperNumber:
    found = places.ledger(store).places
    [one] = [p for p in found if p.first.method == method and p.first.flip == flip and p.first.ipc == ipc
             and p.first.dataset == "cifar10" and p.first.arch == "convnet3"]  # fmt: skip
    return one


# published for DSA at 10 images of CIFAR-10: 52.1 ± 0.5
@pytest.mark.parametrize(
    ("means", "verdict"),
    [
        ((0.520, 0.522, 0.524), WITHIN),
        ((0.500, 0.520, 0.540), WITHIN),
        ((0.5262, 0.5265, 0.5268), WITHIN),  # 0.55 points above: at the edge, with what rounding allows
        ((0.529, 0.530, 0.531), OUTSIDE),
        ((0.512, 0.513, 0.514), OUTSIDE),
        ((0.526, 0.530, 0.534), UNDECIDED),  # the interval reaches in
        ((0.521, 0.521), UNDECIDED),
        ((0.9,), UNDECIDED),
        ((), places.NOT_RUN),
    ],
)
def test_the_verdict_keeps_the_written_rule(tmp_path, means, verdict):
    store = Store(tmp_path)
    fill(store, "dsa", "none", {seed: (mean - 0.001, mean + 0.001) for seed, mean in enumerate(means)})
    assert place_of(store).verdict == verdict


def test_spread_between_sets_and_between_networks_are_told_apart(tmp_path):
    store = Store(tmp_path)
    fill(store, "dsa", "none", {0: (0.50, 0.52), 1: (0.53, 0.55), 2: (0.54, 0.60)})
    half = stats.t.ppf(0.975, 2) * 0.03 / math.sqrt(3)
    networks = (2 * 0.01**2 + 2 * 0.01**2 + 2 * 0.03**2) / 3
    wanted = [f"54.0 [{54 - 100 * half:.1f}, {54 + 100 * half:.1f}]", "3 × 2, seeds 0, 1, 2"]
    wanted += [f"{100 * math.sqrt(variance):.1f}" for variance in (0.03**2 - networks / 2, networks)]
    line = next(line for line in page(store).splitlines() if line.startswith("| DSA, 10 IPC"))
    told = [re.sub(r" \[[\d,]+\]$", "", text.strip()) for text in line.split("|")[6:11]]
    assert told == [*wanted, "+1.9"]


def test_the_floor_stands_beside_what_was_measured_alike(tmp_path):
    """DC's sets and DSA's are measured differently, so each has its floor; one without numbers is left out."""
    store = Store(tmp_path)
    for method, floor in (("dc", 0.14), ("dsa", 0.16), ("idc", 0.9)):
        draws = {seed: (floor - 0.01 * seed, floor + 0.03 * seed) for seed in range(5)}
        fill(store, "random", "none", draws, ipc=1, measured_as=method, precision="bf16")
    for method, flip in (("dc", "none"), ("dsa", "none"), ("dsa", "fyi")):
        fill(store, method, flip, {0: (0.28, 0.30)}, ipc=1)
    floors = places.ledger(store).floors
    told = [({one.first.method for one in floor.of}, len(floor.of), round(floor.ours.mean, 6)) for floor in floors]
    assert told == [({"dc"}, 1, 0.16), ({"dsa"}, 2, 0.18)]
    half = stats.t.ppf(0.975, 4) * stats.tstd([0.16, 0.17, 0.18, 0.19, 0.20]) / math.sqrt(5)
    wanted = f"18.0 [{18 - 100 * half:.1f}, {18 + 100 * half:.1f}]"
    for text, name in ((head(store), "measured as DSA"), (page(store), "as DSA, 1 IPC")):
        [line] = [one for one in text.splitlines() if one.startswith(f"| Random real images, {name} ")]
        assert re.search(rf"\| {re.escape(wanted)} \[[\d,]+\] +\| 5 × 2, seeds 0, 1, 2, 3, 4 ", line)
    section = page(store).partition("## CIFAR-10\n")[2].splitlines()[3:]
    assert [line.startswith("| Random real images, as") for line in section[:3]] == [True, True, False]


def test_the_head_says_of_how_many_sets_its_unequalness_is(tmp_path):
    store = Store(tmp_path)
    for method, flip, scores in (
        ("dsa", "none", (40, 60)),
        ("dsa", "fyi", (400,)),
        ("random", "none", (300, 400, 350)),
    ):
        for seed, score in enumerate(scores):
            made = distill_run(tiny_dataset(), method, flip, 1, seed, recipe(method, "cifar10", 1))
            fill(store, method, flip, {seed: (0.3,)}, ipc=1)
            with store.run(unequalness_run({"cell": made.digest}, 10, 0)) as run:
                run.finish({"mean": float(score)})
    text = " ".join(head(store).split())
    assert "50 without FYI (2 sets), 400 with it (1 set) and 350 for random real images (3 draws)" in text


@pytest.mark.long
def test_an_excerpt_gives_the_tables_and_the_page_of_its_store(tmp_path):
    whole, excerpt = Store(tmp_path / "whole"), Store(tmp_path / "excerpt")
    for flip, shift in (("none", 0.0), ("fyi", 0.02)):
        fill(whole, "dsa", flip, dict.fromkeys(range(3), (0.51 + shift, 0.52 + shift)))
        fill(whole, "dm", flip, {0: (0.3, 0.4)}, protocol="quick")
        add_set(whole, "dsa", flip, ipc=1)
        fill(whole, "dsa", flip, {0: (0.28 + shift, 0.29 + shift)}, ipc=1)
    merge(excerpt, whole.root, "paper")
    assert page(excerpt) == page(whole)
    assert table("1", excerpt, "paper").to("csv") == table("1", whole, "paper").to("csv")
    assert picture(excerpt) == picture(whole)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- replication: begin -->\nold\n<!-- replication: end -->\nafter\n")
    renew(excerpt, readme)
    assert readme.read_text() == (
        f"before\n<!-- replication: begin -->\n{head(whole)}\n<!-- replication: end -->\nafter\n"
    )


def test_sets_by_both_procedures_stand_side_by_side(tmp_path):
    store = Store(tmp_path)
    data, rules = tiny_dataset(), protocol(FYI_CODE, "accuracy", "dsa")
    fill(store, "dsa", "fyi", {0: (0.29, 0.31), 1: (0.30, 0.34)}, ipc=1)
    fill(store, "dsa", "none", {0: (0.28,)}, ipc=1)
    fill(store, "dsa", "random", {0: (0.27,)}, ipc=1)  # of Table A alone
    for seed, value in ((0, 0.32), (1, 0.34)):
        made = distill_run(data, "dsa", "fyi", 1, seed, recipe("dsa", "cifar10", 1))
        with store.run(accuracy_run(data, {"cell": made.digest}, 100, rules, seed)) as run:
            run.finish({"value": value})
    of_code = distill_run(data, "dsa", "fyi", 1, 7, recipe("dsa", "cifar10", 1, FYI_CODE))
    with store.run(of_code) as run:
        run.finish({"set": "set.safetensors", "set_digest": "1234"})
    with store.run(unequalness_run({"digest": "1234"}, 10, 0)) as run:  # no accuracy: the score of a card
        run.finish({"mean": 1.0})
    with store.run(accuracy_run(data, {"digest": "1234"}, 100, rules, 7)) as run:  # a set that was given as a file
        run.finish({"value": 0.36})
    found = [(one.first.flip, one.condensed_by, one.measured_by, dict(one.sets)) for one in measured(store)]
    assert found == [
        ("none", "paper", "paper", {0: [0.28]}),
        ("random", "paper", "paper", {0: [0.27]}),
        ("fyi", "paper", "paper", {0: [0.29, 0.31], 1: [0.30, 0.34]}),
        ("fyi", "paper", FYI_CODE, {0: [0.32], 1: [0.34]}),
        ("fyi", FYI_CODE, FYI_CODE, {7: [0.36]}),
    ]
    changes = [
        (f.first.flip, f.measured_by, p.measured_by, round(c["mean"], 6), c["n"])
        for f, p, c in flip_differences(measured(store))
    ]
    assert changes == [
        ("random", "paper", "paper", -0.01, 1),
        ("fyi", "paper", "paper", 0.02, 1),
        ("fyi", FYI_CODE, "paper", 0.04, 1),
    ]
    lines = [line for line in page(store).splitlines() if line.startswith("| DSA + FYI, CIFAR-10 1 IPC ")]
    assert [line.split("|")[5].split("[")[0].strip() for line in lines][:3] == ["31.0", "33.0", "36.0"]


@pytest.mark.long
def test_published_numbers_that_contradict_each_other_are_marked():
    found = {(p.first.method, p.first.dataset, p.first.ipc): p for p in places.ledger(RESULTS).places
             if p.first.flip == "none"}  # fmt: skip
    assert found["ftd", "tinyimagenet", 10].contradicts
    assert not found["dsa", "cifar10", 1].contradicts
    line = next(line for line in page(RESULTS).splitlines() if line.startswith("| FTD, Tiny-ImageNet 10 IPC"))
    assert "| 1.9 " in line
    assert "| yes" in line


def test_a_hole_is_estimated_by_what_was_measured_on_one_machine():
    made = {"dataset": "cifar10", "ipc": 1, "method": "dm", "flip": "none"}
    config = {
        "model": "convnet3", "iterations": 100, "lr_img": 1.0, "momentum_img": 0.5, "init": "real",
        "augment": "none", "dispatcher": "dsa", "batch_real": 256,
    }  # fmt: skip
    fyi, longer = made | {"flip": "fyi", "config": config}, made | {"config": config | {"iterations": 200}}
    base = work_of_set(made | {"config": config})
    assert work_of_set(longer) == 2 * base
    # 2,560 real images forward, 10 synthetic with first derivatives, counted thrice; FYI doubles the latter
    assert work_of_set(fyi) / base == pytest.approx((2560 + 3 * 20) / (2560 + 3 * 10))
    records = [
        {
            "kind": "distill",
            "wall_s": seconds,
            "environment": {"device_name": machine},
            "config": made | {"config": config},
        }
        for seconds, machine in ((10.0, "a"), (30.0, "a"), (20.0, "a"), (1.0, "b"))
    ]
    pace = pace_of(records)
    assert (pace.machine, pace.sets) == ("a", {"dm": 20.0 / base})
    assert pace.networks is None
    wanted = published("1", method="dm", dataset="cifar10", ipc=1, flip="none")[0]
    assert pace.seconds(wanted, 3) is None  # networks are unknown
    known = replace(pace, networks=1e-12)
    assert known.seconds(wanted, 3) == pytest.approx(3 * known.seconds(wanted, 1))
    # a method that was not measured is held against those that were
    by_dm, by_both = (
        replace(known, sets=sets).seconds(replace(wanted, method="dsa"), 1)
        for sets in ({"dm": 1e-12}, {"dm": 1e-12, "dc": 3e-12})
    )
    tested = replace(known, sets={"dm": 1e-30}).seconds(replace(wanted, method="dsa"), 1)
    assert by_both - tested == pytest.approx(2 * (by_dm - tested))
    assert known.seconds(replace(wanted, method="kip"), 1) is None  # its kernels are no passes of a network


def test_a_store_that_is_not_there_gives_no_page(tmp_path):
    out = tmp_path / "page.md"
    done = run("replication", "--store", str(tmp_path / "nosuch"), "--out", str(out), check=2)
    assert done.stderr.startswith(f"fyi-bench: There is no store in {tmp_path / 'nosuch'}.")
    assert not out.exists()


def test_estimates_of_searches_and_figures_follow_from_images_epochs_and_iterations():
    pace = Pace("a", {"mtt": 1e-30, "dsa": 1e-12}, networks=1e-12)
    [wanted] = published("B", method="mtt", flip="fyi", metric="spearman_all")
    flops = sum(forward_flops(point.architecture, 3, 32, 10) for point in space720.SPACE)
    # 200 epochs on 50 images a class, and on nine tenths of the train images, a tenth of the networks twice; all tested
    one = flops * (3 * 200 * 500 + 10_000) * 1e-12
    assert pace.seconds(wanted, 3) - pace.seconds(wanted, 2) == pytest.approx(one)
    real = 1.1 * flops * (3 * 200 * 45_000 + 10_000) * 1e-12
    assert pace.seconds(wanted, 1) == pytest.approx(one + real)

    whole = Missing("distill", "dsa", "fyi", "mnist-mirrored", 1, (), "paper", options=("--arch", "none"))
    begun = replace(whole, options=("--set", "iterations=50", "--arch", "none"))
    length = recipe("dsa", "mnist-mirrored", 1).values["iterations"]
    assert pace.of_command(begun) / pace.of_command(whole) == pytest.approx(50 / length)
    each = [pace.of_set("dsa", flip, "mnist-mirrored", 1) for flip in ("none", "fyi")]
    assert pace.of_command(whole) == pytest.approx(sum(each))
    assert pace.of_command(replace(whole, method="kip")) is None


def test_numbers_of_ours_carry_seeds_and_marks_that_are_told_below(tmp_path):
    store = Store(tmp_path)
    fill(store, "dc", "none", {0: [0.28]}, ipc=1)
    fill(store, "dc", "fyi", {0: [0.3], 1: [0.31]}, ipc=1)
    remark = next(one for one in recipe("dc", "cifar10", 1).remarks("fyi") if "how DC with FYI starts" in one)
    for text in (page(store), head(store)):
        [number] = re.findall(rf"\[(\d+)\] {re.escape(remark)}", text)
        [few] = re.findall(r"\[(\d+)\] 2 of \d+ networks", text)
        plain, flipped = (
            next(line for line in text.splitlines() if re.match(rf"\| {name},? ?(1 IPC)? +\|", line))
            for name in ("DC", r"DC \+ FYI")
        )
        marks = re.findall(r"\[([\d,]+)\] +\|", flipped)[0].split(",")
        assert {number, few} <= {*marks}
        assert number not in re.findall(r"\[([\d,]+)\] +\|", plain)[0].split(",")
        assert "2 × 1, seeds 0, 1 " in flipped
        assert "1 × 1, seed 0 " in plain


def test_a_readme_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none.md is no file with the lines"):
        renew(RESULTS, tmp_path / "none.md")
