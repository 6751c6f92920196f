"""Teachers: who gives the labels that networks are trained on, as runs refer to them and as workers find them.

Networks trained here (run type `teacher`), published weights, or stored labels of every step (FKD).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import DataError, StoreError
from fyi_bench.files import digest_of, sha256_file
from fyi_bench.run.run_type import Need, Passes, Worker
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from torch import nn

    from distill.image_set import ImageSet
    from downstream.teaching import Teaching
    from fyi_bench.data import RealDataset
    from fyi_bench.store.run_dir import RunDir

NETWORK_FILE = "network.safetensors"
_SPARE_BYTES = 2**20  # that a file of weights may have beside them


@dataclass(frozen=True)
class Teachers:
    """Who labels what a network is trained on. inputs, notes: of the runs that use them. runs: that train them here.

    models: their architectures; none where labels are stored. nbytes: of what has to be kept for the labels; 0 where
    it is known when they are trained.
    """

    inputs: Mapping[str, Any]
    notes: Mapping[str, Any]
    models: Sequence[str] = ()
    runs: Sequence[RunSpec] = ()
    nbytes: int = 0

    @classmethod
    def of_runs(cls, runs: Sequence[RunSpec]) -> Teachers:
        """Networks trained here."""
        inputs = {"teachers": [{"cell": run.digest} for run in runs]}
        return cls(inputs, {}, [run.inputs["protocol"]["eval_model"] for run in runs], runs)

    @classmethod
    def of_files(cls, paths: Sequence[Path], models: Sequence[str]) -> Teachers:
        """Weights that are files, each of its architecture. Raises DataError for one that cannot be read."""
        found = []
        for path, model in zip(paths, models, strict=True):
            try:
                found.append({"weights": sha256_file(path), "model": model})
            except OSError as error:
                raise DataError(f"{path} cannot be read ({error.strerror}).\nName the file with --teacher.") from error
        nbytes = sum(path.stat().st_size for path in paths)
        notes = {"teacher_files": [str(path.resolve()) for path in paths]}
        return cls({"teachers": found}, notes, models, nbytes=nbytes)

    @classmethod
    def of_labels(cls, folder: Path) -> Teachers:
        """Stored labels of every step (FKD)."""
        from fyi_bench.formats.fkd import FKDLabels

        labels = FKDLabels.open(folder)
        files = sorted(labels.folder.glob("epoch_*/batch_*.tar"))
        digest = digest_of([[str(path.relative_to(labels.folder)), sha256_file(path)] for path in files])
        return cls({"stored": digest}, {"stored": str(labels.folder.resolve())}, nbytes=labels.nbytes)


def teaching_of(spec: RunSpec, data: RealDataset, worker: Worker) -> Teaching | None:
    """What a run's labels come from, ready to be asked; None for most runs."""
    from downstream.teaching import Teaching

    if "stored" in spec.inputs:
        from fyi_bench.formats.fkd import FKDLabels

        return Teaching(stored=FKDLabels.open(spec.notes["stored"]))
    if "teachers" not in spec.inputs:
        return None
    files = spec.notes.get("teacher_files", [""] * len(spec.inputs["teachers"]))
    networks = [
        frozen_network(each, file, data.train, worker)
        for each, file in zip(spec.inputs["teachers"], files, strict=True)
    ]
    return Teaching(tuple(networks), space=data.space)


def teacher_needs(spec: RunSpec) -> list[Need]:
    """The networks trained here that label for a run."""
    return [("teacher", each["cell"]) for each in spec.inputs.get("teachers", ()) if "cell" in each]


def teacher_passes(spec: RunSpec, data: RealDataset, images: float) -> list[Passes]:
    """Passes of a run's teachers over so many images."""
    return [
        Passes(model, data.train.shape, data.num_classes, forward=images)
        for model in spec.notes.get("teacher_models", ())
    ]


def keep_network(run: RunDir, network: nn.Module) -> int:
    """Keep the weights of a trained network as an artefact of its run; how many bytes they have."""
    from distill.tensor_file import save_tensors

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_tensors(run.path(NETWORK_FILE), weights, {"cell": run.spec.digest})
    return sum(tensor.nbytes for tensor in weights.values())


def weights_into(network: nn.Module, path: Path, head: bool, remedy: str, called: str = "") -> nn.Module:
    """The network with the weights of a file: ours, or what torchvision publishes for it. DataError for any other.

    head: the classifier's too; without, it stays as it is, and the file's may be of other classes. remedy: what to do
    where they do not fit. called: what the network is, for the message.
    """
    from distill.tensor_file import load_tensors
    from fyi_bench.formats.opening import load_torch

    own = network.state_dict()
    try:
        if path.suffix == ".safetensors":
            found: Any = load_tensors(path)[0]
        else:
            found = load_torch(path, 2 * sum(tensor.nbytes for tensor in own.values()) + _SPARE_BYTES)
            for key in ("state_dict", "model", "net"):
                found = found[key] if isinstance(found.get(key), Mapping) else found
        named = {name.removeprefix("module."): tensor for name, tensor in found.items()}
        if not own.keys() <= named.keys():  # torchvision's names: the linear layer is where ours is `classifier`
            inner = {name: f"body.{name}" for name in named if f"body.{name}" in own}
            last = [name for name in named if name not in inner]
            named = {inner.get(name, f"classifier.{name.rpartition('.')[2]}"): named[name] for name in (*inner, *last)}
        if not head:
            named |= {name: tensor for name, tensor in own.items() if name.startswith("classifier.")}
        network.load_state_dict(named)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).\n{remedy}") from error
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        called = called or f"this network ({type(network).__name__})"
        raise DataError(f"{path} does not hold the weights of {called}.\n{remedy}") from error
    return network


def frozen_network(
    reference: Mapping[str, Any], file: str, like: ImageSet, worker: Worker, size: int = 0, head: bool = True
) -> nn.Module:
    """A network whose weights stay as they are, for images and classes like those of a set, on the worker's device.

    reference: {'cell': a run `teacher`, or of 'kind': …}, {'weights': sha256 of the file, 'model': its architecture},
    {'seed': of random weights, 'model': …}, or {'state': …, 'code': …} of a user's own module (`probe_module.key_of`).
    size: side of the images it sees, where another. head: see `weights_into`.
    """
    key = ("network", like.shape, like.num_classes, size, *sorted(reference.items()))
    return worker.keep(key, lambda: _network(reference, file, like, worker, size, head))


def _network(
    reference: Mapping[str, Any], file: str, like: ImageSet, worker: Worker, size: int, head: bool
) -> nn.Module:
    import search_space
    from fyi_bench import rng

    if "state" in reference:
        return _brought(reference, file).to(worker.device)
    remedy = "State its architecture with --set teacher_model=NAME." if head else "Name the network with --probe NAME."
    path, model = Path(file), reference.get("model", "")
    if "cell" in reference:
        kind, record = reference.get("kind", "teacher"), worker.store.get(reference["cell"])
        if record is None:
            raise StoreError(f"The run {kind} {reference['cell']} is not finished.\nRun it first.")
        model = record["config"]["protocol"]["eval_model"]
        path = Path(worker.store.artefact(kind, reference["cell"], NETWORK_FILE))
    elif "weights" in reference and sha256_file(path) != reference["weights"]:
        raise DataError(f"{path} is not the file that was planned with.\nRun the command again.")
    generator = rng.stream(reference.get("seed", 0), "teacher")
    network = search_space.build(model, like.shape[0], size or like.shape[1], like.num_classes, generator)
    return (network if "seed" in reference else weights_into(network, path, head, remedy)).to(worker.device)


BROUGHT: dict[str, nn.Module] = {}  # modules given in Python, by the digest of their reference: of this process alone


def _brought(reference: Mapping[str, Any], file: str) -> nn.Module:
    """A user's own module: that of a file, made again and compared, or one that was given in this process."""
    from downstream.probe_module import file_and_name, key_of, module_of_file

    if named := file_and_name(file):
        path, name = named
        module = module_of_file(path, name, reference["seed"])
        if key_of(module, path) != {key: reference[key] for key in ("state", "code")}:
            raise DataError(
                f"{file} gives another network than it was planned with.\n"
                "Have it load its weights, or draw them with PyTorch's default generator alone; then run again."
            )
        return module
    found = BROUGHT.get(digest_of(dict(reference)))
    if found is None:
        raise DataError(
            "A module given in Python is known to its own process alone.\n"
            "Give workers=1, or write its function into a file: probe='FILE.py:NAME'."
        )
    return found
