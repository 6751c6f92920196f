"""IDM's acc_<x>.pkl and any other pickle: refused, because a pickle is a program.

IDM's res_*.pt files are in DC's layout.
"""

from __future__ import annotations

from fyi_bench.errors import DataError
from fyi_bench.formats.base import Format, Options, Raw, register
from fyi_bench.formats.layouts.dc import read_experiments
from fyi_bench.formats.source import Source

_PICKLE = "pickle"


def recognise(source: Source) -> str:
    return "a pickle" if source.kind == _PICKLE else ""


def read(source: Source, options: Options) -> Raw:
    """DataError for a pickle; the content for a file of tensors."""
    if source.kind != _PICKLE:
        raw = read_experiments(source, options)
        raw.method = "idm"
        return raw
    raise DataError(
        f"{source.path} is a pickle: opening one runs whatever program is in it, so it was not opened.\n"
        "If you trust its maker, load it in a Python of its own and save plain tensors: "
        "torch.save([images.cpu(), labels.cpu()], 'data.pt'); then import data.pt (with factor=2 if IDM packed 2x2)."
    )


_TITLE = "IDM: acc_*.pkl (refused: a pickle is a program), res_*.pt"
register(Format("idm", _TITLE, recognise, read, rank=10, takes=("experiment",)))
