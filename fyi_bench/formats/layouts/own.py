"""Our own .safetensors sets, and .safetensors files of others with tensors called images and labels."""

from __future__ import annotations

from distill.image_set import ImageSet
from distill.tensor_file import load_tensors, read_header
from fyi_bench.errors import DataError
from fyi_bench.formats.base import Format, Options, Raw, register
from fyi_bench.formats.common import DAMAGED, check_size
from fyi_bench.formats.layouts._shared import need, one_file
from fyi_bench.formats.layouts.tensors import from_mapping
from fyi_bench.formats.source import FOLDER, Source

_KIND = "safetensors"
SET_FILE = "set.safetensors"  # in the folder of a run


def _name(source: Source) -> str:
    if source.kind == FOLDER:
        return SET_FILE if source.has(SET_FILE) else one_file(source, r".*\.safetensors")
    return source.name if source.kind == _KIND else ""


def recognise(source: Source) -> str:
    return "a .safetensors file" if _name(source) else ""


def read(source: Source, options: Options) -> Raw:
    """The set with all its facts, checksums compared; a file of others has its facts guessed."""
    name = _name(source)
    need(bool(name), source, "a .safetensors file, nor a folder with one")
    path = source.used(source.folder / name)
    check_size(path, path.stat().st_size, options.max_bytes)
    header, _, _ = read_header(path)
    try:
        if "fyi_bench" in header.get("__metadata__", {}):
            return Raw(finished=ImageSet.load(path))
        return from_mapping(source, load_tensors(path)[0])
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # changed bytes in its description
        raise DataError(f"The description in {path} is damaged ({type(error).__name__}).\n{DAMAGED}") from error


register(
    Format("fyi-bench", "this project's sets, and .safetensors of others with images and labels", recognise, read, 1)
)
