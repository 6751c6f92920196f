"""The benchmark itself: what is chosen, how rounds become ratios, that it goes on after a stop. Nothing is timed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch

import search_space
from benchmarks import growth, host, kernels, measure, run
from benchmarks.__main__ import parser, run_parts
from benchmarks.case import PEAK, Case, cases, real_images
from benchmarks.goals import CPU, H200
from benchmarks.growth import BASE, METHODS, points, powers
from benchmarks.growth_plot import growth_drawing
from benchmarks.ledger import Ledger, key_of
from benchmarks.measure import Crew, Machine, SideFailed, rounds, side_specs
from benchmarks.report import best_of, markdown, peaks_of, row_of
from benchmarks.run import Request, machine_of
from benchmarks.side import Ended, Pacer
from benchmarks.startup import show
from benchmarks.twins.network import plain_network
from fyi_bench import rng
from fyi_bench.errors import BudgetExhausted, UnknownNameError, UsageError
from fyi_bench.run.deadline import Deadline
from search_space.native import library
from search_space.winograd import SOURCE

HERE = Machine("cpu", 1, Path("nowhere"))
TINY = Case("retrain", ipc=1, classes=2, model="convnet-w8", size=8)


def request(store, **changes) -> Request:
    return Request(**{"machine": HERE, "store": store, **changes})


def side(seconds: float, peak: float = 110.0) -> dict:
    return {
        "seconds": seconds,
        "cpu_seconds": seconds / 2,
        "peak_mib": peak,
        "before_mib": 100.0,
        "flops": 6.0,
        "unit": "step",
        "data": "real",
    }


def rounds_of(*times: tuple[float, float, float]) -> list[dict]:
    names = ("ours fp32", "twin", "twin tuned")
    return [{name: side(t) for name, t in zip(names, row, strict=True)} for row in times]


# what is chosen ----------------------------------------------------------------------------------------------------


def test_the_whole_run_covers_every_job_and_both_data_sets():
    table = cases("cpu")
    jobs = "dc dsa dm idc mtt mtt-unroll expert retrain retrain-vgg11 retrain-resnet18 nas"
    assert {c.job for c in table} == set(jobs.split())
    assert {c.dataset for c in table} == {"cifar10", "cifar100"}
    assert {c.ipc for c in table if c.job == "dm"} == {1, 10, 50}
    short = cases("cpu", quick=True)
    assert 0 < len(short) < len(table)
    assert all(c in table for c in short)


def test_a_gpu_gets_all_classes_and_the_published_loops():
    on_gpu = next(c for c in cases("cuda") if (c.job, c.dataset) == ("dsa", "cifar100"))
    assert (on_gpu.classes, dict(on_gpu.changes)) == (100, {})


def test_every_goal_belongs_to_a_case():
    assert H200.keys() <= {(c.job, c.dataset, c.ipc) for c in cases("cuda")}
    assert CPU.keys() <= {c.job for c in cases("cpu")}


def test_cases_are_chosen_by_job_data_set_and_images(tmp_path):
    chosen = request(tmp_path, only=("dsa", "dm"), datasets=("cifar10",), ipcs=(10,)).chosen()
    assert [(c.job, c.dataset, c.ipc) for c in chosen] == [("dsa", "cifar10", 10), ("dm", "cifar10", 10)]


def test_unknown_names_are_answered_with_a_suggestion(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'dsa'"):
        request(tmp_path, only=("dsaa",)).chosen()
    with pytest.raises(UsageError, match="Images a class of these jobs"):
        request(tmp_path, only=("dm",), ipcs=(7,)).chosen()
    with pytest.raises(UnknownNameError, match="part of the benchmark"):
        run_parts(["jobz"], request(tmp_path), Deadline(), print, None)
    with pytest.raises(UnknownNameError, match="device"):
        machine_of("tpu", None, None)


def test_several_words_after_an_option_belong_to_it():
    given = parser().parse_args(["jobs", "--only", "dm", "dsa", "--ipc", "1,10", "--quick", "--only", "idc"])
    assert (given.parts, given.only, given.ipc, given.quick) == (["jobs"], ["dm", "dsa", "idc"], [1, 10], True)


def test_a_generated_set_stands_in_where_there_is_no_real_one(tmp_path):
    images, _, name = real_images(Case("dm", classes=3, size=16), tmp_path)
    assert name == "shapes10"
    assert images.shape == (3, 16, 16)
    assert images.classes == [0, 1, 2]


def test_without_a_gpu_it_is_skipped_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said, file = [], tmp_path / "record.json"
    run_parts(["jobs"], request(tmp_path, machine=Machine("cuda", 1, None)), Deadline(), said.append, file)
    assert said == ["skipped: there is no CUDA device here; leave out --device cuda to measure the CPU"]
    assert "no CUDA device" in json.loads(file.read_text())["skipped"]


# one side ----------------------------------------------------------------------------------------------------------


def test_a_side_does_as_many_units_as_it_is_told():
    told, done = [], 0
    pacer = Pacer(io.StringIO("1\n3\n"), told.append, lambda: None)
    while not pacer.requested():
        done += 1
    with pytest.raises(Ended):
        pacer.check()
    assert done == 4
    assert [facts["units"] for facts in told] == [1, 3]
    assert all(facts["seconds"] > 0 for facts in told)


@pytest.mark.parametrize("words", ["w8-d2-instance-relu-avg", "w8-d3-batch-sigmoid-max", "w8-d1-layer-leakyrelu-nopool",
                                   "w8-d2-group-swish-avg", "w8-d2-nonorm-relu-max"])  # fmt: skip
def test_the_plain_network_is_the_same_function(words):
    import search_space
    from fyi_bench import rng

    ours = search_space.build(f"convnet-{words}", 3, 16, 4, rng.stream(3, "net")).double()
    plain = plain_network(f"convnet-{words}", (3, 16, 16), 4, rng.stream(3, "net")).double()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)
    x = torch.randn(5, 3, 16, 16, generator=rng.stream(3, "x"), dtype=torch.float64)
    torch.testing.assert_close(ours(x), plain(x), rtol=1e-10, atol=1e-12)


# from rounds to rows -----------------------------------------------------------------------------------------------


def test_a_row_has_the_median_ratio_of_the_rounds_and_its_spread():
    case = Case("dm", ipc=10)
    row = row_of(case, HERE, "fp32", rounds_of((1, 4, 2), (2, 10, 4), (1, 6, 3)), {"fp32": 12.0})
    against = row["against"]
    assert (against["default"]["ratio"], against["default"]["low"], against["default"]["high"]) == (5, 4, 6)
    assert against["tuned"]["ratio"] == 2
    assert (against["default"]["met"], against["tuned"]["met"]) == (True, False)
    assert row["seconds"] == 1
    assert row["work_mib"] == 10
    assert row["share_of_peak"] == 0.5
    assert against["default"]["share_of_peak"] == pytest.approx(1 / 12)


def test_a_job_without_a_goal_has_no_verdict():
    row = row_of(Case("another job"), HERE, "fp32", rounds_of((1, 1, 1)), {})
    assert row["against"]["default"]["met"] is None
    assert row["share_of_peak"] is None


def test_whole_runs_are_judged_on_a_gpu():
    row = row_of(Case("dm", ipc=50), Machine("cuda", 1, None), "fp32", [{"ours fp32": side(0.002)}], {})
    assert row["whole_run"]["seconds"] == pytest.approx(40)
    assert row["whole_run"]["met"] is True


def test_the_table_shows_wins_and_losses_alike():
    case, found = Case("dsa", ipc=1), rounds_of((1, 5, 1), (1, 5, 0.5), (1, 5, 0.5))
    rows = [row_of(case, HERE, "fp32", found, {"fp32": 12.0})]
    record = {"rows": rows, "goals": best_of(rows), "missing": ["dm cifar10 ipc 1"], "failed": {"x": "out of memory"},
              "device": "cpu", "threads": 1, "peak_flops": {"fp32": 12e9}, "source_digest": "00", "versions":
              {"torch": "2"}, "environment": {"device_name": "a processor"}}  # fmt: skip
    text = markdown(record)
    assert "5.00 (5.00-5.00), goal 3.4 met" in text
    assert "0.50 (0.50-1.00), goal 2.5 missed" in text
    assert "goal dsa, cifar10 ipc 1: 3.4 / 2.5 (default / tuned), reached 5.00 (fp32) / 0.50 (fp32): missed" in text
    assert "not measured yet: dm cifar10 ipc 1" in text
    assert "failed: x: out of memory" in text
    assert "dsa cifar10 ipc 1 fp32 got 50 % of its thread; x by processor time: 5.00 default, 0.50 tuned" in text


def test_the_peak_is_that_of_the_fastest_round():
    found = [{"ours fp32": side(2.0), "ours bf16": side(0.5)}, {"ours fp32": side(3.0), "ours bf16": side(1.0)}]
    assert peaks_of(found, ("fp32", "bf16")) == {"fp32": 3.0, "bf16": 12.0}


# a run in processes ------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_side_that_fails_says_why():
    specs = side_specs(Case("no-such-job"), HERE, ("fp32",), twins=False)
    with pytest.raises(SideFailed, match="no-such-job"):
        list(rounds(specs, 0, 1))


def test_networks_go_side_by_side_too_where_there_are_cores():
    two = Machine("cpu", 2, None)
    assert TINY.workers("cpu", 2) == (1, 2)
    assert TINY.workers("cpu", 1) == TINY.workers("cuda", 2) == Case("dm").workers("cpu", 2) == (1,)
    specs = side_specs(TINY, two, ("fp32",), twins=True)
    sharing = {name: (spec["workers"], spec["threads"]) for name, spec in specs.items()}
    assert sharing == {"ours fp32": (1, 2), "ours fp32 x2": (2, 1), "twin": (1, 2), "twin tuned": (1, 2)}


def test_processes_of_a_side_share_its_units():
    class Member:
        def __init__(self, seconds: float):
            self.seconds, self.told = seconds, []

        def send(self, units: int) -> None:
            self.told.append(units)

        def answer(self) -> dict:
            return side(self.seconds)

    members = [Member(1.0), Member(3.0)]
    found = Crew(members).order(5)
    assert [member.told for member in members] == [[3], [3]]
    assert (found["seconds"], found["cpu_seconds"]) == (1.5, 1.0)  # six units in nine seconds of wall, six of work
    assert (found["peak_mib"], found["before_mib"]) == (220.0, 200.0)


@pytest.mark.long
def test_a_run_measures_every_side_and_is_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "SAMPLE_SECONDS", 0.05)  # what it measures is not looked at here
    monkeypatch.setattr(run, "cases", lambda device, quick=False: [TINY])
    asked = request(tmp_path, repeats=2, precisions=("fp32",), machine=Machine("cpu", 2, tmp_path))
    said = []
    record = run.main(asked, Deadline(), said.append)
    assert record["failed"] == {}
    rows = [(row["job"], row["rounds"], row["data"], row["workers"]) for row in record["rows"]]
    assert rows == [("retrain", 2, "shapes10", 1), ("retrain", 2, "shapes10", 2)]
    assert set(record["rows"][0]["against"]) == {"default", "tuned"}
    assert record["peak_flops"]["fp32"] > 0
    assert record["missing"] == []
    assert said[0].startswith("retrain cifar10 ipc 1 fp32")
    assert json.loads((tmp_path / "bench" / "bench.json").read_text())["rows"]
    assert "| retrain" in (tmp_path / "bench" / "bench.md").read_text()
    monkeypatch.setattr(run, "rounds", lambda *given, **more: pytest.fail("measured again"))
    assert run.main(asked, Deadline(), said.append)["rows"] == record["rows"]


def test_a_run_out_of_time_keeps_its_rounds(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "cases", lambda device, quick=False: [TINY])
    asked, stop = request(tmp_path, repeats=3, precisions=("fp32",)), Deadline(3600)

    def two_rounds(specs, first, count, before_each):
        for number in range(first, count):
            if number == 2 and len(specs) > 1:
                stop.seconds = 1e-9
            before_each()
            yield {name: side(1.0) for name in specs}

    monkeypatch.setattr(run, "rounds", two_rounds)
    with pytest.raises(BudgetExhausted):
        run.main(asked, stop, lambda line: None)
    specs = side_specs(TINY, HERE, ("fp32",), twins=True)
    assert len(Ledger(tmp_path).rounds(key_of(TINY, HERE, specs))) == 2
    assert len(Ledger(tmp_path).rounds(key_of(Case(PEAK), HERE, ["ours fp32"]))) == 3
    assert run.main(asked, Deadline(), lambda line: None)["rows"][0]["rounds"] == 3


def test_fresh_measures_again(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.add("k", TINY, {"ours fp32": side(1.0)})
    ledger.void(["k", "never measured"])
    assert ledger.rounds("k") == Ledger(tmp_path).rounds("k") == []


# single operations and the host's share ------------------------------------------------------------------------------


def _once(plain, ours, *how) -> float:
    plain()
    ours()
    return 2.0


@pytest.mark.skipif(library(SOURCE) is None, reason="no C++ compiler")
def test_single_operations_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "_ratio", _once)
    monkeypatch.setattr(kernels, "_CONVOLUTIONS", ((2, 16, 8),))
    monkeypatch.setattr(kernels, "_MAPS", ((16, 8),))
    said: list[str] = []
    record = kernels.main(request(tmp_path, only=("winograd", "pooling")), Deadline(), said.append)
    assert said[3].startswith("    2 images, 16 maps of 8 px, tiles of 4: forward 2.0, gradient by the input 2.0")
    assert record["lines"]["pooling"][1] == "    16 maps of  8 px: 2.0"
    with pytest.raises(UnknownNameError, match="kernel"):
        kernels.main(request(tmp_path, only=("winograt",)), Deadline(), said.append)


def test_the_ways_through_a_trajectory_have_their_memory_measured():
    for gradient in ("adjoint", "unroll", "tesla"):
        mib, seconds = kernels._match(gradient, steps=2, width=8, images=10)
        assert mib >= 0
        assert seconds > 0


def test_networks_stacked_in_one_pass_answer_as_each_by_itself():
    networks = [search_space.build("convnet-w8", 3, 32, 10, rng.stream(key, "network")) for key in range(3)]
    images = [torch.randn(5, 3, 32, 32, generator=rng.stream(key, "images")) for key in range(3)]
    together, weights = kernels.in_one_pass(networks)
    logits = together(images)
    torch.testing.assert_close(
        logits, torch.stack([n(x) for n, x in zip(networks, images, strict=True)]), atol=1e-5, rtol=1e-5
    )
    assert sum(w.numel() for w in weights) == sum(p.numel() for n in networks for p in n.parameters())


def test_the_hosts_share_is_measured_without_a_device(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "IMAGES", 600)
    monkeypatch.setattr(host, "SECONDS", 0.0)
    said: list[str] = []
    record = host.main(request(tmp_path, only=("dm",)), Deadline(), said.append)
    assert [(row["job"], row["ipc"]) for row in record["rows"]] == [("dm", 50)]
    assert record["rows"][0]["host_ms"] > 0
    assert said[1].endswith("; 3.00")


# start-up and growth -----------------------------------------------------------------------------------------------


def test_start_up_is_shown_with_its_goals():
    text = show({"seconds": 0.3, "cpu_seconds": 0.25, "low": 0.2, "high": 0.4, "goal": 0.5, "met": True})
    assert text == "0.30 s (0.20-0.40), 0.25 s of processor time, goal under 0.5 s: met"
    assert show({"goal": 5.0, "skipped": "No cifar10 data"}) == "skipped: No cifar10 data"


def test_growth_changes_one_thing_at_a_time():
    for point in points():
        kept = {"images per class": point.case.ipc == point.value, "classes": point.case.classes == point.value,
                "image side": point.case.size == point.value, "workers": point.workers == point.value,
                "network width": point.case.model == f"convnet3-w{point.value}",
                "student steps": point.case.changes["syn_steps"] == point.value}  # fmt: skip
        assert kept[point.axis]
        base = {**BASE.describe(), "job": point.job}
        changed = [key for key, value in point.case.describe().items() if value != base[key]]
        assert len(changed) <= 1
    with pytest.raises(UnknownNameError, match="growing job"):
        points(["nas"])


def test_powers_are_slopes_between_the_last_two_values():
    line = [{"axis": "classes", "job": "dm", "value": v, "seconds": s, "work_mib": m}
            for v, s, m in ((1, 9.0, 1.0), (2, 1.0, 4.0), (8, 16.0, 4.0))]  # fmt: skip
    assert powers(line) == [{"axis": "classes", "job": "dm", "seconds": pytest.approx(2.0), "work_mib": 0.0}]


def test_growth_is_recorded_and_plotted(tmp_path, monkeypatch):
    def one(point, machine, count, stop):
        for _ in range(count):
            yield {"ours fp32": side(0.01 * point.case.classes, 100 + point.case.classes)}

    monkeypatch.setattr("benchmarks.growth._rounds", one)
    said: list[str] = []
    record = growth.main(request(tmp_path, repeats=1, only=("dm", "mtt")), Deadline(), said.append)
    assert record["missing"] == 0
    assert {p["job"] for p in record["points"]} == {"dm", "mtt"} <= set(METHODS)
    assert (tmp_path / "bench" / "growth.png").read_bytes().startswith(b"\x89PNG")
    text = said[-1]
    assert "| classes | dm | 2: 0.02 (2), 5: 0.05 (5), 10: 0.1 (10), 20: 0.2 (20) | x^1.0 | x^1.0 |" in text
    svg = growth_drawing(record).svg
    assert all(word in svg for word in ("images per class", "network width", "student steps", "workers"))
