"""Our own .safetensors sets, and .safetensors files of others with tensors called images and labels."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.image_set import ImageSet
from distill.spaces import PixelSpace
from distill.tensor_file import METADATA_KEY, load_tensors, open_tensors
from fyi_bench.errors import DataError
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.input_files import FOLDER, InputFiles
from fyi_bench.formats.layouts.tensors import from_mapping
from fyi_bench.formats.opening import DAMAGED, check_size

_SUFFIX = ".safetensors"
_RUN_SET = "set.safetensors"  # in the folder of a run


def _name(files: InputFiles) -> str:
    if files.kind == FOLDER:
        return _RUN_SET if files.has(_RUN_SET) else files.only(rf".*\{_SUFFIX}")
    return files.name if files.kind == "safetensors" else ""


def _stated(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the metadata of another writer, texts all of them, states in JSON: its classes, say."""
    found = {}
    for name, text in facts.items():
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            found[name] = json.loads(text)
    return {name: value for name, value in found.items() if isinstance(value, list | dict)}


@FORMATS.register("fyi-bench")
class Own(Format):
    """this project's sets, and .safetensors of others with images and labels"""

    rank, suffix, tiles, soft, whole = 1, _SUFFIX, True, True, True

    def looks(self, files: InputFiles) -> str:
        return "a .safetensors file" if _name(files) else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """The set with all its facts, checksums compared; a file of others has its facts guessed."""
        name = files.need(_name(files), "a .safetensors file, nor a folder with one")
        path = files.used(files.folder / name)
        check_size(path, path.stat().st_size, options.max_bytes)
        with open_tensors(path) as file:
            ours = METADATA_KEY in (file.metadata() or {})
        try:
            if ours:
                return Raw(finished=ImageSet.load(path))
            tensors, facts = load_tensors(path)
            return from_mapping(files, {**_stated(facts), **tensors})
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # changed bytes in its description
            raise DataError(f"The description in {path} is damaged ({type(error).__name__}).\n{DAMAGED}") from error

    def write(self, image_set: ImageSet, path: Path) -> list[Path]:
        """The file, and a preview where the pixels can be computed here."""
        try:
            image_set.batch(slice(0, 1), PixelSpace())
        except DataError:  # whitened by a matrix that is not on this machine: the set is kept all the same
            return [image_set.save(path, preview=False)]
        return [image_set.save(path), path.with_name("preview.png")]
