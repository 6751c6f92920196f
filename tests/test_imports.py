"""The house: imports point one way, the command line starts without torch, nothing forbidden is written."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = ["search_space", "distill", "downstream", "fyi_bench"]
# modules of the harness that lower rooms may use: they import nothing but the standard library and each other
FOUNDATION = {"errors", "rng", "registry", "files"}
SOURCES = [path for package in ORDER for path in sorted((ROOT / package).rglob("*.py"))]
HEAVY = ("torch", "numpy", "scipy", "pandas", "optuna", "avalanche", "matplotlib", "torchvision")


@functools.cache
def imported(path: Path) -> list[tuple[str, int]]:
    """(module, line) of every import in a file, wherever it stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    for module, line in imported(path):
        target, *rest = module.split(".")
        if target not in ORDER or ORDER.index(target) <= ORDER.index(room):
            continue
        assert target == "fyi_bench", f"{path.name}:{line} imports {module}"
        assert rest, f"{path.name}:{line} imports the whole harness"
        assert rest[0] in FOUNDATION, f"{path.name}:{line} imports {module}"


@pytest.mark.parametrize("name", sorted(FOUNDATION))
def test_foundation_imports_nothing_above(name):
    for module, line in imported(ROOT / "fyi_bench" / f"{name}.py"):
        package, *rest = module.split(".")
        assert package not in ORDER[:-1], f"line {line}: {module}"
        assert package != "fyi_bench" or rest[0] in FOUNDATION, f"line {line}: {module}"


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(chr(10).join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import fyi_bench", "import fyi_bench.cli", "import fyi_bench.session"])
def test_start_without_heavy_imports(statement):
    loaded = modules_after(statement)
    assert not loaded & set(HEAVY)


@pytest.mark.long
def test_core_runs_where_only_torch_and_friends_are_installed():
    """The science, its runs and the script for a lent GPU need torch, torchvision, numpy, scipy and Pillow alone.

    safetensors too, for which the script brings a stand-in.
    """
    absent = [
        "optuna",
        "avalanche",
        "pandas",
        "pyarrow",
        "pydantic",
        "typer",
        "rich",
        "matplotlib",
        "jinja2",
    ]
    block = "; ".join(f"sys.modules['{name}'] = None" for name in absent)
    statement = (
        f"{block}; sys.path[:0] = ['benchmarks/stand_ins', 'tests'];"
        " import distill.engine, distill.methods, downstream.training, downstream.accuracy;"
        " import benchmarks.gpu_day.check, benchmarks.gpu_day.packed, benchmarks.gpu_day.runs, benchmarks.run;"
        " distill.methods.METHODS.names(); import fyi_bench.run.run_type; fyi_bench.run.run_type.RUN_TYPES.names();"
        " fyi_bench.run.run_type.ensure"
    )
    assert "torch" in modules_after(statement)


FORBIDDEN = {
    "global or clock-made randomness": (
        "torch.manual_seed(", "np.random.seed", "np.random.rand(", "np.random.permutation", "np.random.choice",
        "random.seed(", "time.time(",
    ),
    "loading that can run code": ("weights_only=False", "pickle.load", "allow_pickle=True", "yaml.load(", "dill."),
    "silent failure": ("except:", "except Exception: pass"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_nothing_forbidden_is_written(kind):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for text in FORBIDDEN[kind]
        if text in line and not line.lstrip().startswith("#") and "torch.Generator().manual_seed" not in line
    ]
    assert found == []


def test_files_stay_readable():
    long = [str(p.relative_to(ROOT)) for p in SOURCES if len(p.read_text().splitlines()) > 400]
    assert long == []


def module_graph() -> dict[str, set[str]]:
    """Module -> modules of ours that it imports, wherever in it, for types too; a package means its `__init__`."""
    names = {}
    for path in SOURCES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        names[name.removesuffix(".__init__")] = path
    graph = {}
    for name, path in names.items():
        found = set()
        for target, _ in imported(path):
            parent = target.rpartition(".")[0]
            found |= {target} if target in names else {parent} & names.keys()
        graph[name] = found - {name}
    return graph


def test_no_module_imports_itself_by_way_of_others():
    """Files can be read one after another: nothing is needed, not even for a type, that needs this in turn."""
    graph, order = module_graph(), []
    left = dict(graph)
    while left:
        free = [name for name, needs in left.items() if not needs & left.keys()]
        assert free, f"a circle is among {sorted(left)}"
        order += free
        left = {name: needs for name, needs in left.items() if name not in free}
    assert len(order) == len(graph)
