"""Named tensors and JSON metadata in a .safetensors file, with checksums of every tensor and of the metadata.

The checksums are ours, since neither this layout nor torch's notices a flipped byte. Only data is read, never code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fyi_bench.errors import DataError
from fyi_bench.files import digest_of, is_utf8, write_bytes

METADATA_KEY = "fyi_bench"
_SEAL, _LAYOUT = "header_digest", "layout"  # files of earlier versions have neither


def save_tensors(path: str | Path, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> Path:
    """Write tensors and JSON metadata atomically; equal input gives equal bytes.

    Raises StoreError when the file cannot be written, RuntimeError for tensors that share memory.
    """
    return write_bytes(path, packed(tensors, metadata))


def packed(tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> bytes:
    """The bytes of such a file, seals included. Raises RuntimeError for tensors that share memory."""
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    digests = {name: sha256_of(tensor) for name, tensor in flat.items()}
    whole = {**metadata, "sha256": digests, _LAYOUT: _layout(flat)}
    whole = json.loads(json.dumps(whole, allow_nan=False))  # as it will be read: the digest is over that
    # one entry: the library orders several by a hash that differs between processes
    text = json.dumps({**whole, _SEAL: digest_of(whole)}, sort_keys=True)
    return save(flat, {METADATA_KEY: text})


def load_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read tensors and metadata, checking layout and checksums.

    Raises DataError naming the file, what is wrong with it and what to do. Files of other writers have
    no metadata of ours; theirs is returned as it is.
    """
    with open_tensors(path) as file:
        metadata = metadata_of(path, file)
        # a copy: the library's tensors are the mapped file itself, which another process may replace
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  it is no mapping
    digests, layout = metadata.get("sha256", {}), metadata.pop(_LAYOUT, None)
    if layout not in (None, _layout(tensors)):
        raise DataError(
            f"{path} is damaged: its tensors have other names, types or shapes than were written.\n"
            "Copy or make the file again."
        )
    for name, tensor in tensors.items():
        if name in digests and sha256_of(tensor) != digests[name]:
            raise DataError(
                f"{path} is damaged: the bytes of '{name}' do not match their checksum.\nCopy or make the file again."
            )
    return tensors, metadata


@contextlib.contextmanager
def open_tensors(path: str | Path) -> Iterator[safe_open]:
    """The file, opened to read single tensors or their metadata. Raises DataError where it is no whole one."""
    if not is_utf8(Path(path)):
        raise DataError(f"{path} has a name, or a folder with one, that is not UTF-8.\nRename it.")
    try:
        if Path(path).exists() and not Path(path).is_file():
            what = "a folder" if Path(path).is_dir() else "no regular file"
            raise DataError(f"{path} is {what}, not a .safetensors file.\nName the file.")
        with safe_open(path, "pt") as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.\nCheck the path; `fyi-bench store ls` lists stored sets.") from None
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path} is not a readable .safetensors file ({error}).\n"
            "It is truncated or another format: copy it again, or use `fyi-bench import`."
        ) from error


def metadata_of(path: str | Path, file: safe_open) -> dict[str, Any]:
    """Our metadata, or that of another writer as it is. Raises DataError where it makes no sense or was changed."""
    raw = file.metadata() or {}
    try:
        if METADATA_KEY not in raw:
            return dict(raw)
        found = json.loads(raw[METADATA_KEY])
        if not isinstance(found, dict) or not isinstance(found.get("sha256", {}), dict):
            raise ValueError("not a table")
        if found.pop(_SEAL, None) != (digest_of(found) if _LAYOUT in found else None):
            raise ValueError("it does not match its checksum")
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is damaged: its header cannot be read ({error}).\nCopy or make the file again."
        ) from error
    return found


def _layout(tensors: dict[str, torch.Tensor]) -> dict[str, list[Any]]:
    """Type and shape of each tensor, which the checksums of their bytes leave out."""
    return {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()}


def sha256_of(tensor: torch.Tensor) -> str:
    """sha256 of a contiguous CPU tensor's bytes, hex."""
    return hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().data).hexdigest()
