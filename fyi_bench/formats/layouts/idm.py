"""IDM's acc_<x>.pkl and any other pickle: refused, because a pickle is a program."""

from __future__ import annotations

from fyi_bench.errors import DataError
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.input_files import InputFiles
from fyi_bench.formats.layouts.dc import DC

_PICKLE = "pickle"


@FORMATS.register("idm")
class IDM(DC):
    """IDM: acc_*.pkl (refused: a pickle is a program), res_*.pt (in DC's layout)"""

    rank, write = 10, Format.write

    def looks(self, files: InputFiles) -> str:
        return "a pickle" if files.kind == _PICKLE else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """DataError for a pickle; the content for a file of tensors."""
        if files.kind != _PICKLE:
            return super().read(files, options)
        raise DataError(
            f"{files.path} is a pickle: opening one runs whatever program is in it, so it was not opened.\n"
            "If you trust its maker, load it in a Python of its own and save plain tensors: torch.save("
            "[images.cpu(), labels.cpu()], 'data.pt'); then import data.pt (with factor=2 if IDM packed 2x2)."
        )
