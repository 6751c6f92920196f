"""A data set repository of the Hugging Face Hub: parquet shards for everybody, our own file for all facts, a card."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distill.image_set import ImageSet
from fyi_bench.errors import DataError
from fyi_bench.files import write_text
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.export import as_held
from fyi_bench.formats.input_files import FOLDER, InputFiles
from fyi_bench.formats.layouts.own import Own
from fyi_bench.formats.layouts.parquet import Parquet, write_rows

CARD, OWN_FILE = "README.md", "set.safetensors"
ROWS = 10_000  # of a shard
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_NO_RESULTS = "None were given. `fyi-bench card` measures them, `export --card FILE` puts them here."
_TOLD = ("method", "flip", "dataset", "ipc", "seed", "iterations", "data_digest")


@FORMATS.register("hub")
class Hub(Format):
    """Hugging Face repository: data/train-*.parquet, set.safetensors and a dataset card"""

    rank, tiles, soft, whole = 0, True, True, True

    def looks(self, files: InputFiles) -> str:
        ours = files.kind == FOLDER and files.has(CARD, OWN_FILE) and any(files.folder.glob("data/train-*.parquet"))
        return f"a repository with {OWN_FILE}" if ours else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """The set with all its facts, from our own file in the repository."""
        return Own().read(files, options)

    def write(self, image_set: ImageSet, path: Path) -> list[Path]:
        """Pictures and labels as `datasets.load_dataset` reads them, the exact set beside them, and what it is."""
        try:
            shown, lost = as_held(image_set, Parquet(), None)
        except DataError as error:
            raise DataError(f"The pixels cannot be computed here, and a Hub's readers expect them.\n{error}") from error
        soft = as_held(image_set, Own(), None)[0].decoded() if image_set.labels.ndim == 2 else None
        rows = soft.labels if soft is not None and len(soft) == len(shown) else None
        parts = [slice(start, start + ROWS) for start in range(0, len(shown), ROWS)]
        shards = [
            write_rows(shown, part, path / "data" / f"train-{k:05d}-of-{len(parts):05d}.parquet", rows)
            for k, part in enumerate(parts)
        ]
        card = "\n".join(_card(image_set, len(shown), lost, rows is not None))
        return [*shards, image_set.save(path / OWN_FILE, preview=False), write_text(path / CARD, card)]


def with_results(folder: Path, results: str) -> Path:
    """Put results, as Markdown, into the dataset card of a folder."""
    page = folder / CARD
    return write_text(page, page.read_text(encoding="utf-8").replace(_NO_RESULTS, results.strip()))


def push_folder(
    folder: Path, repository: str, *, private: bool = False, token: str | None = None, endpoint: str | None = None
) -> str:
    """Upload a folder that was written here to a data set repository, which is made where it is not there; its address.

    token: of the user; None: the one that the Hub's client knows (HF_TOKEN, `hf auth login`). Raises DataError for a
    folder that is none, and where the Hub refuses or is not reached; the token is never shown.
    """
    if not (folder / CARD).is_file() or not any(folder.glob("data/train-*.parquet")):
        raise DataError(
            f"{folder} is no exported repository.\nWrite one: fyi-bench export SET --format hub --out FOLDER"
        )
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
    except ImportError as error:
        raise DataError("push needs the package huggingface_hub.\npip install 'fyi-bench[hub]'") from error
    api = HfApi(endpoint=endpoint, token=token)
    try:
        address = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository, repo_type="dataset", folder_path=folder, commit_message="A condensed set, by fyi-bench"
        )
    except Exception as error:  # its transport's own errors have no common type
        cause = (str(error) or type(error).__name__).splitlines()[0][:160]
        answer = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, HFValidationError):
            remedy = "Name it OWNER/NAME"
        elif isinstance(error, LocalTokenNotFoundError) or answer in (401, 403):
            remedy = "Log in with `hf auth login`, or set HF_TOKEN"
        else:
            remedy = "See that the Hub can be reached and is well"
        raise DataError(f"The Hub did not take {repository} ({cause}).\n{remedy}; then push again.") from error
    return str(address)


def _card(s: ImageSet, count: int, lost: list[str], soft: bool) -> Iterator[str]:
    """The lines of the dataset card: what the Hub reads, then what people read."""
    told, title = s.provenance, _title(s)
    size = next((name for most, name in _SIZES if count < most), "n>1M")
    yield from (
        "---",
        f"pretty_name: {_quoted(title)}",
        "task_categories:",
        "- image-classification",
        "size_categories:",
    )
    yield from (f"- {size}", "tags:", "- dataset-distillation", "- dataset-condensation", "- fyi-bench", "configs:")
    yield from (
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        "    path: data/train-*.parquet",
        "---",
        "",
    )
    yield from (f"# {title}", "", f"{count:,} condensed images of {s.num_classes} classes.", "")
    yield from (
        "```python",
        "from datasets import load_dataset",
        "",
        'images = load_dataset("OWNER/NAME", split="train")',
        "```",
        "",
    )
    columns = "`image`, `label`" + (f", `soft_label` ({s.label_kind})" if soft else "")
    yield f"Columns: {columns}. Pictures have 8 bits a channel; `{OWN_FILE}` holds the set exactly, with its space"
    yield from ("and provenance, and is what fyi-bench reads:", "", "    fyi-bench evaluate hf:OWNER/NAME", "")
    yield from (f"- {note}" for note in lost)
    yield from ("", "## Provenance", "", "| | |", "| --- | --- |")
    yield from (f"| {name} | {_cell(value)} |" for name, value in _facts(s, told).items())
    yield from ("", "## Results", "", _NO_RESULTS, "")


def _title(s: ImageSet) -> str:
    told = s.provenance
    made = str(told.get("name") or told.get("method", "a condensed set"))
    flip = f"+{told['flip']}" if told.get("flip") not in (None, "none") and not told.get("name") else ""
    of = f" of {told['dataset']}" if told.get("dataset") else ""
    images = f", {s.ipc} image{'s' * (s.ipc > 1)} per class" if s.ipc else ""
    return f"{made}{flip}{images}{of}"


def _facts(s: ImageSet, told: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a set, unknown methods said to be so."""
    known = {"method": "unknown", **{key: told[key] for key in _TOLD if told.get(key) not in (None, "")}}
    known |= {"space": s.space.kind, "labels": "hard" if s.labels.ndim == 1 else f"soft ({s.label_kind})"}
    known |= {"bytes": s.nbytes, "digest": s.digest}
    known |= {f"recipe: {key}": value for key, value in told.get("recipe", {}).items()}
    return known | {f"numerics of {key}": value for key, value in told.get("numerics", {}).items()}


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _quoted(text: str) -> str:
    """A YAML string."""
    return json.dumps(text, ensure_ascii=False)
