"""Every command that the pages and the help show can be typed: its words, options and kinds of values exist."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from fyi_bench.catalogue import build_options, built_in_tasks, find_task, parameters_of
from fyi_bench.cli import Commands, app
from fyi_bench.parameters import bind
from fyi_bench.tools import TOOLS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# words that stand for what a reader puts there
STAND_INS = {"N": "1", "$ipc": "1", "$method": "dm", "NAME": "dm", "FILE…": "a.pt"}
ELSEWHERE = ("growth", "bench")  # a plug-in's; one that is told to be gone


def shown_on(page: Path) -> list[str]:
    """Command lines of a page: in code blocks, and in running text those with an argument."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    inline = re.findall(r"`(fyi-bench [\w-]+ [^`\n]+)`", text)
    return [*inline, *(line.strip() for line in text.splitlines() if re.match(r" *fyi-bench ", line))]


def typed(line: str) -> list[str]:
    """The words of a line as somebody would type them: optional parts too, the first of several choices."""
    line = re.sub(r"(\w+)(\|\w+)+", r"\1", line.replace("[", "").replace("]", ""))
    return [STAND_INS.get(word, word) for word in shlex.split(line, comments=True)[1:]]


def parse(words: list[str]) -> None:
    """Read a command line as the program does, up to calling anything. Raises what the program would say."""
    command = typer.main.get_command(app)
    context = command.make_context("fyi-bench", list(words), obj=words)
    rest = list(words)
    while isinstance(command, Commands):
        name, command, rest = command.resolve_command(context, rest)
        if isinstance(command, Commands) and not rest:
            return  # 'store', named as a group
    given = command.make_context(name, rest, parent=context).params
    given = bind(
        name, command.parameters, (), {key: value for key, value in given.items() if value not in (None, [], ())}
    )
    if entry := find_task(" ".join(words[:1])):
        task = entry.load()
        own = {each.name for each in parameters_of(task)}
        build_options(task, {key: value for key, value in given.items() if key in own})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_can_be_typed(page):
    for line in shown_on(page):
        words = typed(line)
        if words[0] not in ELSEWHERE and "--help" not in words and "numpy-rows" not in words:
            if words[:2] == ["store", "merge"] and len(words) == 2:
                continue  # the command's name in running text
            parse(words)


def test_pages_show_commands():
    assert sum(len(shown_on(page)) for page in PAGES) > 40


def test_examples_of_the_help_can_be_typed():
    examples = [line for entry in built_in_tasks().values() for line in entry.load().examples]
    examples += [line for tool in TOOLS.values() for line in tool.examples]
    assert len(examples) > 40
    for line in examples:
        parse(typed(line))


def blocks_of(page: Path) -> list[str]:
    """The Python of a page, block by block; a notebook's cells are one."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        return re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    return ["\n".join(line for cell in cells for line in cell.splitlines() if not line.startswith("%"))]


@pytest.mark.parametrize("page", [*PAGES, *(ROOT / "docs").glob("*.ipynb")], ids=lambda page: page.name)
def test_avalanche_is_taken_from_here_first(page):
    """`import avalanche` by itself fails beside some builds of torchvision, also after `import fyi_bench`."""
    for block in blocks_of(page):
        known = False
        for line in ast.walk(ast.parse(block)):
            if isinstance(line, ast.ImportFrom) and line.module == "fyi_bench":
                known |= any(name.name == "avalanche" for name in line.names)
            named = [line.module or ""] if isinstance(line, ast.ImportFrom) else []
            named += [name.name for name in line.names] if isinstance(line, ast.Import) else []
            assert known or not any(name.partition(".")[0] == "avalanche" for name in named)


@pytest.mark.parametrize("page", [*PAGES, *(ROOT / "docs").glob("*.ipynb")], ids=lambda page: page.name)
def test_nothing_is_installed_by_a_name_that_no_index_knows(page):
    """Where fyi-bench is there already `pip install 'fyi-bench[hub]'` adds the rest; no index has the bare name."""
    assert not re.search(r"pip install fyi-bench\b", page.read_text(encoding="utf-8"))
