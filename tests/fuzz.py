"""Mutated files for every reader: `python tests/fuzz.py 100000` prints how many were read, refused, slow or uncaught.

A reader may take a file or refuse it in the project's own words; anything else is a find, and is kept in
`tests/corpus`, which every run begins with. Mutations are drawn from a seed, so a run can be repeated.
"""

from __future__ import annotations

import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from distill.expert_file import Trajectory
from distill.image_set import ImageSet
from distill.spaces import NormalizedSpace, PixelSpace
from fyi_bench.data.pictures import decode_images
from fyi_bench.errors import FyiBenchError
from fyi_bench.formats import load_set
from fyi_bench.formats.inspection import format_report, inspect_set
from fyi_bench.store.checkpoint import Checkpoints
from fyi_bench.store.commands import read_command
from fyi_bench.store.jsonl import read_lines
from fyi_bench.store.record import read_record, write_sealed
from fyi_bench.store.run_dir import read_config

CORPUS = Path(__file__).with_name("corpus")
SLOW_S, MOST_MIB = 2.0, 1024
INTERESTING = (
    b"\x00",
    b"\xff",
    b"[" * 3000,
    b"{" * 500,
    b"1e999",
    b"-1",
    b"9" * 25,
    b"null",
    b"\x80\x04",
    b"NaN",
    b'""',
)


def _checkpoint(path: Path) -> Any:
    return Checkpoints(path.parent, "0123456789abcdef").read(int(path.name.split("-")[1].split(".")[0]))


def _inspected(path: Path) -> str:
    return format_report(inspect_set(path, duplicates=False))


# what reads a seed's file, by the name of the seed
READERS: dict[str, Callable[[Path], Any]] = {
    "set.safetensors": ImageSet.load, "normal.safetensors": _inspected, "unsealed.safetensors": ImageSet.load,
    "ckpt-7.safetensors": _checkpoint, "trajectory.safetensors": lambda path: Trajectory.open(path).at(1),
    "record.json": read_record, "command.json": read_command, "config.json": lambda path: read_config(path.parent),
    "rows.jsonl": read_lines, "a.png": lambda path: decode_images([path], str),
    "a.jpg": lambda path: decode_images([path], str),
    "data.pt": load_set, "data.npz": load_set, "data.npy": load_set, "data.parquet": load_set,
}  # fmt: skip


def seeds(folder: Path) -> dict[str, bytes]:
    """Whole files, one for each reader."""
    import json

    from safetensors.torch import save

    draw = torch.Generator().manual_seed(0)
    images, labels = torch.rand((6, 3, 8, 8), generator=draw), torch.arange(6) % 3
    own = ImageSet(images, labels, PixelSpace(), 3, ("a", "b", "c"), lr=0.01, provenance={"method": "dm", "ipc": 2})
    own.save(folder / "set.safetensors", preview=False)
    normal = ImageSet(images, labels, NormalizedSpace((0.5,) * 3, (0.2,) * 3), 3)
    normal.save(folder / "normal.safetensors", preview=False)
    facts = {"schema": 1, "space": {"kind": "normalized", "mean": [0.5] * 3, "std": [0.2] * 3}, "num_classes": 3}
    facts |= {"class_names": ["a", "b", "c"], "factor": 1, "decode_type": "single", "lr": 0.1, "provenance": {"a": 1}}
    header = {"fyi_bench": json.dumps(facts)}
    (folder / "unsealed.safetensors").write_bytes(save({"images": images, "labels": labels}, header))
    Checkpoints(folder, "0123456789abcdef").save(7, {"x": images}, {"wall_s": 1.0, "user": {}})
    Trajectory(torch.rand((3, 5), generator=draw)).save(folder / "trajectory.safetensors")
    record = {"schema": 1, "task": "distill", "digest": "0" * 16, "arms": [{"method": "dm", "flip": "none", "ipc": 1}]}
    write_sealed(folder / "record.json", {**record, "date": "2026"})
    (folder / "command.json").write_text(json.dumps(record))
    (folder / "config.json").write_text(json.dumps({"schema": 1, "inputs": {"seed": 0, "a": [1, 2]}, "notes": {}}))
    (folder / "rows.jsonl").write_text('{"a": 1}\n{"b": [1, 2, "nan"]}\n')
    picture = Image.fromarray((images[0].permute(1, 2, 0).numpy() * 255).astype("uint8"))
    picture.save(folder / "a.png")
    picture.save(folder / "a.jpg")
    torch.save([images, labels], folder / "data.pt")
    np.savez(folder / "data.npz", images=images.numpy(), labels=labels.numpy())
    np.save(folder / "data.npy", images.numpy())
    from fyi_bench.formats import export_set

    export_set(own, folder / "data.parquet", "parquet")
    return {name: (folder / name).read_bytes() for name in READERS}


def mutate(content: bytes, draw: random.Random) -> bytes:
    """The file with one to four things changed: bytes, numbers, parts cut, doubled or put in."""
    found = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(found) + 1) if draw.random() < 0.5 else draw.randrange(min(len(found), 600) + 1)
        match draw.randrange(6):
            case 0 if at < len(found):
                found[at] ^= 1 << draw.randrange(8)
            case 1:
                found[at : at + draw.choice((1, 4, 8))] = draw.randbytes(draw.choice((1, 4, 8)))
            case 2:
                del found[at : at + draw.randrange(1, 64)]
            case 3:
                found[at:at] = draw.choice(INTERESTING)
            case 4:
                found[at:at] = found[at : at + draw.randrange(1, 64)]
            case _:
                digits = [i for i in range(at, min(len(found), at + 200)) if 48 <= found[i] <= 57]
                if digits:
                    found[digits[0]] = 48 + draw.randrange(10)
    return bytes(found)


def tried(path: Path, name: str) -> str:
    """'read', 'refused', or the find: 'slow …', 'uncaught …'."""
    began = time.process_time()  # a busy machine is no fault of a reader
    try:
        READERS[name](path)
        ended = "read"
    except FyiBenchError as error:
        ended = "refused" if len(str(error).splitlines()) <= 3 else f"uncaught long words: {str(error)[:60]}"
    except Exception as error:
        ended = f"uncaught {type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"
    spent = time.process_time() - began
    return f"slow {spent:.1f} s" if spent > SLOW_S and not ended.startswith("uncaught") else ended


def fuzz(count: int, seed: int = 0, keep: bool = True) -> Counter[str]:
    """Try the corpus, then so many mutations; how each ended, by reader."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        whole, draw = seeds(Path(place)), random.Random(seed)
        for path in sorted(CORPUS.glob("*/*")) if CORPUS.is_dir() else []:
            found[_noted(tried(path, path.parent.name), path.parent.name)] += 1
        names = list(whole)
        for number in range(count):
            name = names[number % len(names)]
            path = Path(place) / "tried" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(mutate(whole[name], draw))
            ended = tried(path, name)
            found[_noted(ended, name)] += 1
            if keep and ended not in ("read", "refused"):
                kept = CORPUS / name / f"{seed}-{number}.bin"
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(path.read_bytes())
    return found


def _noted(ended: str, name: str) -> str:
    return ended if ended in ("read", "refused") else f"{name}: {ended}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    start = time.monotonic()
    results = fuzz(asked, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for ending, times in results.most_common():
        print(f"{times:>9,}  {ending}")
    print(
        f"{asked:,} mutated files of {len(READERS)} kinds in {time.monotonic() - start:.0f} s, at most {peak:.0f} MiB"
    )
    sys.exit(any(ending not in ("read", "refused") for ending in results) or peak > MOST_MIB)
