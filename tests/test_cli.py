"""The command line as a user meets it: help, plans, results, records, errors and exit codes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import termios

import pytest

from commands import ROOT, arguments, run, run_apart
from distill.image_set import ImageSet
from fyi_bench.catalogue import find_task, parameters_of, tasks
from fyi_bench.cli import gather
from fyi_bench.tools import TOOLS

COMMON = {"task", "dataset", "protocol", "device", "precision", "threads", "seeds", "wall_s", "peak_memory_mib"}
COMMON |= {"versions", "digest", "arms"}


def record_of(path):
    return json.loads(path.read_text())


def test_help_lists_every_command():
    text = run("--help").stdout
    for name in (
        "distill",
        "continual",
        "evaluate",
        "cross-arch",
        "inspect",
        "import",
        "export",
        "demo",
        "store",
        "data",
    ):
        assert name in text


def test_version():
    import fyi_bench

    assert fyi_bench.__version__ in run("--version").stdout


def test_several_architectures_after_one_option():
    def gathered(command: str, *words: str) -> list[str]:
        return gather(words, parameters_of(find_task(command).load()))

    several = gathered("cross-arch", "--arch", "convnet3", "vgg11", "--ipc", "50")
    assert several == ["--ipc", "50", "--arch", "convnet3", "--arch", "vgg11", "--"]
    assert gathered("evaluate", "--arch", "mlp", "a/set.pt") == ["--arch", "mlp", "--", "a/set.pt"]
    assert gathered("evaluate", "a/set.pt", "--arch", "mlp,vgg11") == ["--arch", "mlp,vgg11", "--", "a/set.pt"]


COMMANDS = [[*name.split()] for name in (*tasks(), *(tool.name for tool in TOOLS.values())) if name]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_help_has_its_options_and_ends_with_examples(words):
    text = run(*words, "--help").stdout
    assert text.startswith(f"Usage: fyi-bench {' '.join(words)}")
    examples = text.partition("\nExamples:\n")[2].splitlines()
    if "  # " in "".join(examples):  # what the long ones take
        assert examples.pop().startswith("  Times are those of")
    assert 1 <= len(examples) <= 3
    assert all(line.startswith(f"  fyi-bench {' '.join(words)}") for line in examples)


def test_common_and_advanced_options_have_panels_of_their_own():
    text = run("distill", "--help").stdout
    own, common, advanced = (text.index(f"\n{title}:") for title in ("Options", "Common options", "Advanced options"))
    assert own < text.index("--ipc") < common < text.index("--dataset") < text.index("--dry-run") < advanced
    assert advanced < text.index("--storage")


def test_what_is_to_be_said_of_a_file_has_a_panel_of_its_own():
    text = run("cross-arch", "--help").stdout
    of_file, common = text.index("\nA set in a file:"), text.index("\nCommon options:")
    assert text.index("--arch") < of_file < text.index("--factor") < text.index("--max-bytes") < common
    assert "8,589,934,592" in text


def test_a_stop_begins_a_line_on_a_terminal():
    """It shows ^C where the line begins."""
    code = (
        "import os, signal, sys; from fyi_bench.run.deadline import Deadline\n"
        "with Deadline().signals(): os.write(2, b'^C'); os.kill(os.getpid(), signal.SIGINT)\n"
        "import fyi_bench.cli as cli\n"
        "def stop(*given, **named): os.write(2, b'^C'); raise KeyboardInterrupt\n"
        "cli.typer.main.get_command = stop\n"
        "sys.exit(cli.main(['ls']))"
    )
    mine, theirs = os.openpty()
    done = subprocess.run([sys.executable, "-c", code], stderr=theirs, check=False, cwd=ROOT)
    os.close(theirs)
    lines = os.read(mine, 10_000).decode().splitlines()
    os.close(mine)
    assert done.returncode == 130
    assert [line for line in lines if line] == [
        "^C", "Stopping at the next safe point; Ctrl-C again stops at once.",
        "^C", "fyi-bench: interrupted; everything done is kept, run the same command to go on.",
    ]  # fmt: skip


def test_the_plan_fits_a_terminal_and_stays_whole_for_other_programs(tmp_path):
    words = [
        sys.executable, "-m", "fyi_bench", "continual", "--dataset", "shapes10", "--steps", "2", "--dry-run", "--store",
        str(tmp_path),
    ]  # fmt: skip
    mine, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 50))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    subprocess.run(words, stdout=theirs, check=True, cwd=ROOT, env=environment)
    os.close(theirs)
    shown = os.read(mine, 10_000).decode().splitlines()
    os.close(mine)
    told = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    sentences = [line for line in shown if str(tmp_path) not in line]
    assert max(map(len, sentences)) <= 50 < max(map(len, told.splitlines()))
    assert " ".join(told.split())[:200] == " ".join(" ".join(shown).split())[:200]


def test_no_help_imports_anything_heavy():
    """One process asks for every help; what it has imported then is what each of them needs."""
    code = (
        "import sys; from fyi_bench.cli import main\n"
        f"for words in {COMMANDS!r}: main([*words, '--help'])\n"
        "print([name for name in sys.modules if name in "
        "('torch', 'numpy', 'scipy', 'optuna', 'matplotlib', 'avalanche', 'rich')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr == "[]\n"


def test_it_runs_as_a_module_and_completes_words():
    done = run_apart("inspect", "--formt", "x", check=2)
    assert done.stderr == "fyi-bench: Unknown option '--formt'. Did you mean '--format'?\n"
    assert "--install-completion" in run("--help").stdout
    done = run_apart(_FYI_BENCH_COMPLETE="complete_bash", COMP_WORDS="fyi-bench insp", COMP_CWORD="1", check=None)
    assert done.stdout.split() == ["inspect"]


def test_the_line_to_repeat_can_be_pasted(tmp_path):
    words = arguments(
        "distill", "--method", "random", "--ipc", "1", "--only", "--arch", "none", store=tmp_path / "my store",
        batch_real=None,
    )  # fmt: skip
    line = next(line for line in run(*words).stdout.splitlines() if line.startswith("repeat"))
    assert shlex.split(line)[1:] == ["fyi-bench", *words]


def test_the_set_may_stand_after_the_architectures(tmp_path):
    done = run("evaluate", "--arch", "mlp", str(tmp_path / "myset"), "--store", str(tmp_path), check=5)
    assert "myset" in done.stderr


def test_ls_alone_lists_what_can_be_listed():
    text = run("ls").stdout
    for name in ("methods", "archs", "datasets", "protocols", "recipes", "runs"):
        assert f"fyi-bench ls {name} " in text


def test_an_unexpected_error_is_two_lines_without_debug(tmp_path, monkeypatch):
    monkeypatch.setattr("fyi_bench.store.store.Store.ls", lambda self: 1 / 0)
    done = run("store", "ls", "--store", str(tmp_path), check=1)
    assert done.stderr.startswith("fyi-bench: unexpected ZeroDivisionError")
    assert len(done.stderr.splitlines()) == 2
    with pytest.raises(ZeroDivisionError):
        run("store", "ls", "--store", str(tmp_path), "--debug")


def test_distill_from_plan_to_record(tmp_path):
    words = arguments("distill", "--method", "dm", "--ipc", "1", "--fyi", store=tmp_path / "store")
    plan = run(*words, "--dry-run").stdout
    assert plan.startswith("protocol quick")
    assert "about" in plan
    assert not (tmp_path / "store" / "distill").exists()
    done = run(*words, "--json", str(tmp_path / "record.json"))
    record = record_of(tmp_path / "record.json")
    assert set(record) >= COMMON
    assert [(a["method"], a["flip"]) for a in record["arms"]] == [("dm", "none"), ("dm", "fyi"), ("random", "none")]
    for arm in record["arms"]:
        assert 0 <= arm["architectures"][0]["mean"] <= 1
        assert arm["unequalness"]["mean"] > 0
        assert arm["iterations"] == (0 if arm["method"] == "random" else 6)
    assert record["protocol"]["name"].startswith("quick+")
    assert record["difference"]["pairs"] == 1
    assert "dm+fyi" in done.stdout
    assert "repeat   fyi-bench distill" in done.stdout
    again = run(*words, "--json", str(tmp_path / "again.json"))
    assert "done already" in again.stdout
    assert record_of(tmp_path / "again.json")["arms"] == record["arms"]


def test_names_are_read_in_any_case_and_kept_as_they_are_known(tmp_path):
    def words(method: str, flip: str, network: str, dataset: str, protocol: str) -> list[str]:
        asked = ("distill", "--method", method, "--flip", flip, "--only", "--ipc", "1", "--arch", network)
        more = {"model": network, "eval_model": network}
        return [*arguments(*asked, store=tmp_path, dataset=dataset, **more), "--protocol", protocol]

    run(*words("dm", "fyi", "convnet-w8", "shapes10", "quick"), "--json", str(tmp_path / "known.json"))
    done = run(*words("DM", "FYI", "ConvNet_W8", "Shapes-10", "Quick"), "--json", str(tmp_path / "any.json"))
    assert "done already" in done.stdout
    known, other = record_of(tmp_path / "known.json"), record_of(tmp_path / "any.json")
    for key in ("arms", "digest", "dataset", "protocol"):
        assert other[key] == known[key]


NAMED = {
    "ResNet-18": "resnet18", "ResNet18BN_AP": "resnet18bnap", "ConvNet3": "convnet3", "ConvNet-3": "convnet3",
    "ConvNet_W64-Batch": "convnet-w64-batch", "torchvision:ResNet50": "torchvision:resnet50", "none": "none",
    "Small:ResNet-18": "small:resnet18", "NASBench201:|None~0|": "nasbench201:|None~0|", "nonet": "nonet",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_architectures_are_named_in_any_case(name):
    from search_space.architectures import find, spelled

    assert spelled(name) == NAMED[name]
    if name not in ("none", "nonet") and "~" not in name:
        assert find(name).summary == find(NAMED[name]).summary


def test_data_sets_tables_and_listings_are_named_in_any_case(tmp_path):
    assert run("data", "classes", "Fashion-MNIST").stdout == run("data", "classes", "fashionmnist").stdout
    assert run("unequalness", "Shapes_10", "--networks", "1").stdout.startswith("shapes10:")
    assert "Table B" in run("table", "b", "--store", str(tmp_path)).stdout
    assert run("ls", "Flips").stdout == run("ls", "flips").stdout


def test_only_leaves_out_the_comparison(tmp_path):
    words = arguments(
        "distill", "--method", "random", "--ipc", "1", "--only", "--arch", "none", store=tmp_path, batch_real=None
    )
    run(*words, "--json", str(tmp_path / "r.json"))
    record = record_of(tmp_path / "r.json")
    assert [a["method"] for a in record["arms"]] == ["random"]
    assert "architectures" not in record["arms"][0]


@pytest.mark.long
def test_continual_record_and_plot(tmp_path):
    asked = ("continual", "--steps", "2", "--method", "dm", "--fyi", "--ipc", "1", "--against", "random")
    words = arguments(*asked, "--seeds", "1", store=tmp_path / "store")
    done = run(*words, "--json", str(tmp_path / "record.json"))
    record = record_of(tmp_path / "record.json")
    assert record["steps"] == 2
    assert sorted(record["class_orders"][0]) == list(range(10))
    for arm in record["arms"]:
        assert [row["classes_seen"] for row in arm["accuracy"]] == [5, 10]
        assert [row["images"] for row in arm["accuracy"]] == [5, 10]
    assert {"mean", "low", "high", "pairs"} <= set(record["difference"])
    plots = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("plot")]
    assert {path.rsplit(".")[-1] for path in plots} == {"png", "svg"}
    page = run("report", "--store", str(tmp_path / "store")).stdout.split()[-1]
    assert page.endswith(".html")


@pytest.mark.long
def test_workers_do_not_change_results(tmp_path):
    values = []
    for workers in (1, 2):
        words = arguments("distill", "--method", "dm", "--ipc", "1", store=tmp_path / str(workers), workers=workers)
        run(*words, "--threads", "1", "--json", str(tmp_path / f"{workers}.json"))
        arms = record_of(tmp_path / f"{workers}.json")["arms"]
        values.append([(a["set_digest"], a["architectures"][0]["values"]) for a in arms])
    assert values[0] == values[1]


def test_evaluate_and_inspect_a_file(tmp_path):
    words = ("distill", "--method", "random", "--ipc", "1", "--only", "--arch", "none")
    run(*arguments(*words, store=tmp_path / "s", batch_real=None))
    path = next((tmp_path / "s" / "distill").glob("*/set.safetensors"))
    assert "10 of 32x32" in run("inspect", str(path)).stdout
    words = arguments("evaluate", str(path), store=tmp_path / "s", model=None, iterations=None, batch_real=None)
    run(*words, "--json", str(tmp_path / "r.json"))
    assert record_of(tmp_path / "r.json")["arms"][0]["architectures"][0]["name"] == "convnet-w8"


@pytest.mark.parametrize("what", ["methods", "archs", "datasets", "protocols", "flips"])
def test_listings(what):
    assert len(run("ls", what).stdout.splitlines()) >= 2


WRONG = [
    (("distil",), 2, "Unknown command 'distil'. Did you mean 'distill'?"),
    (("distill", "--metod", "dm"), 2, "Unknown option '--metod'. Did you mean '--method'?"),
    (("distill", "--ipc", "many"), 2, "--ipc takes a whole number, not 'many'"),
    (("distill", "dm"), 2, "unexpected extra argument"),
    (("evaluate",), 2, "SET"),
    (("distill", "--method", "dmm"), 2, "Unknown method 'dmm'. Did you mean 'dm'?"),
    (("distill", "--flip", "mirror"), 2, "Unknown flip 'mirror'."),
    (("distill", "--fyi", "--flip", "vertical"), 2, "contradict each other"),
    (("distill", "--set", "lr_imgg=1"), 2, "Unknown key 'lr_imgg'. Did you mean 'lr_img'?"),
    (("distill", "--set", "lr_img"), 2, "is not key=value"),
    (("distill", "--set", "iterations=some"), 2, "iterations"),
    (("distill", "--protocol", "qick"), 2, "Did you mean 'quick'?"),
    (("distill", "--budget", "soon"), 2, "no length of time"),
    (("distill", "--device", "tpu"), 2, "Unknown device 'tpu'"),
    (("distill", "--ipc", "501"), 2, "the smallest class has 500 real images"),
    (("distill", "--arch", "convnet-w0"), 2, ""),
    (("continual", "--steps", "3"), 2, "3 steps do not divide 10 classes"),
    (("distill", "--workers", "0"), 2, "--workers must be 1 or more"),
    (("distill", "--seed", "-1"), 2, "--seed must be 0 or more"),
    (("evaluate", "nowhere.safetensors"), 5, "nowhere.safetensors"),
]


@pytest.mark.parametrize(("words", "code", "text"), WRONG, ids=[" ".join(w) for w, _, _ in WRONG])
def test_wrong_input_is_one_clear_message(words, code, text, tmp_path):
    done = run(*words, "--dataset", "shapes10", "--store", str(tmp_path), "--dry-run", check=code)
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


def test_a_worker_makes_no_queue_of_a_mistyped_one(tmp_path):
    file = tmp_path / "mistyped.sqlite3"
    done = run("worker", "--storage", f"sqlite:///{file}", "--store", str(tmp_path / "runs"), check=5)
    assert f"There is no queue in {file}" in done.stderr
    assert not file.exists()


def test_unknown_data_set(tmp_path):
    done = run("distill", "--dataset", "cifar1O", "--store", str(tmp_path), check=2)
    assert "Did you mean 'cifar10'?" in done.stderr


def test_wrong_data_folder(tmp_path):
    done = run(
        "distill", "--dataset", "cifar10", "--store", str(tmp_path / "s"), "--data-root", str(tmp_path), check=5,
        FYI_BENCH_CACHE=str(tmp_path / "cache"),
    )  # fmt: skip
    assert "cifar10" in done.stderr
    assert "--data-root" in done.stderr


@pytest.mark.parametrize(("step", "next_step"), [("1e38", "1e+37"), ("1e30", "1e+29"), ("1e7", "1e+06")])
def test_absurd_learning_rate_diverges_and_keeps_the_last_good_set(tmp_path, step, next_step):
    """Images and loss may stay finite: what counts is how large they were at the start."""
    words = arguments("distill", "--method", "dm", "--ipc", "1", "--only", "--arch", "none", store=tmp_path)
    done = run(*words, "--set", f"lr_img={step}", "--set", "iterations=12", check=4)
    assert "diverged at iteration" in done.stderr
    assert f"--set lr_img={next_step}" in done.stderr
    (kept,) = (tmp_path / "distill").glob("*/last-good.safetensors")
    assert ImageSet.load(kept).images.abs().max() < 10
    assert "diverged" in run("store", "ls", "--store", str(tmp_path)).stdout


def test_a_number_no_float32_can_hold_is_refused(tmp_path):
    words = arguments("distill", "--method", "dm", "--ipc", "1", "--only", "--arch", "none", store=tmp_path)
    assert "lr_img is 1e+300" in run(*words, "--set", "lr_img=1e300", check=2).stderr


def test_store_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    words = arguments(
        "distill", "--method", "random", "--ipc", "1", "--only", store=tmp_path / "file" / "store", batch_real=None
    )
    assert "Could not" in run(*words, check=5).stderr
