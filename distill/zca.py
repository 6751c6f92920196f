"""ZCA whitening as the space images live in: one for MTT, FTD and their successors on CIFAR, FRePo's, and KIP's.

MTT's (the others say at their classes how they differ): kornia's whitening with eps 0.1 on pixels in [0, 1] without
channel normalisation, fitted on all train images: x' = (x - mean) T with T = U diag((s + 0.1)^-1/2) U^T, where
U diag(s) U^T is the covariance of the flattened images with N - 1 in the denominator. Adding 0.1 to eigenvalues
shrinks, it does not only guard.

A space is keyed by the data it was fitted to, eps and the version of this procedure, never by the bytes of the
matrix: an eigendecomposition differs in its last bits between machines, and a set would be bound to one of them. The
covariance here is exact (integer arithmetic inside float64), so what is left of the difference is about 1e-13. The
matrix, 75 MB for 32 px, is kept once in the cache folder, not in every set.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from distill.spaces import NormalizedSpace, Space, stretched
from distill.tensor_file import load_tensors, save_tensors
from fyi_bench.errors import DataError, StoreError, UsageError
from fyi_bench.files import digest_of

# raised whenever the same images would give another matrix
NUMERICS = 1

EPS = 0.1
MAX_FEATURES = 3 * 64 * 64  # beyond it the matrix alone takes gigabytes
ENVIRONMENT = "FYI_BENCH_CACHE"
_CHUNK = 2048
_log = logging.getLogger("distill.zca")


class Whitening:
    """Mean [F] and matrix [F, F] in float64; images are flattened to F = ch·H·W."""

    def __init__(self, mean: torch.Tensor, matrix: torch.Tensor):
        self.mean, self.matrix = mean.double(), matrix.double()
        self._ready: dict[tuple, tuple[torch.Tensor, torch.Tensor]] = {}

    def apply(self, pixels: torch.Tensor) -> torch.Tensor:
        """[..., ch, H, W] in [0, 1] -> whitened, same shape and type."""
        mean, matrix = self._like(pixels, "matrix")
        return ((pixels.flatten(-3) - mean) @ matrix).view(pixels.shape)

    def undo(self, images: torch.Tensor) -> torch.Tensor:
        """The exact inverse of `apply`."""
        mean, inverse = self._like(images, "inverse")
        return (images.flatten(-3) @ inverse + mean).view(images.shape)

    @functools.cached_property
    def inverse(self) -> torch.Tensor:
        """float64 [F, F]; the matrix is well conditioned because of eps."""
        if not torch.equal(self.matrix, self.matrix.T):
            return torch.linalg.inv(self.matrix)
        return torch.cholesky_inverse(torch.linalg.cholesky(self.matrix))

    def _like(self, images: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        key = (name, images.dtype, images.device)
        if key not in self._ready:
            mean, matrix = (t.to(images.device, images.dtype) for t in (self.mean, getattr(self, name)))
            self._ready[key] = mean, matrix
        return self._ready[key]


# spaces fitted or loaded by this process, so that a matrix is read once and an unwritable cache is no obstacle
_known: dict[str, Whitening] = {}


@dataclass(frozen=True, eq=False)
class ZCASpace(Space):
    """Whitened images of a data set; not usable before its matrix was fitted on this machine (`fit`).

    dataset, data: name and digest of the train images it is fitted to; shape: (ch, H, W) of an image.
    """

    dataset: str
    data: str
    shape: tuple[int, int, int]
    eps: float = EPS
    version: int = NUMERICS
    kind = "zca"

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Float pixels [..., ch, H, W] in [0, 1] -> whitened. DataError where no matrix is found."""
        return self._checked(pixels).apply(pixels)

    def decode(self, images: torch.Tensor) -> torch.Tensor:
        """Whitened images -> pixels, not clipped. DataError where no matrix is found."""
        return self._checked(images).undo(images)

    def describe(self) -> dict[str, Any]:
        facts = {"dataset": self.dataset, "data": self.data, "shape": list(self.shape), "eps": self.eps}
        return {"kind": self.kind, **facts, "version": self.version}

    @classmethod
    def rebuild(cls, description: dict[str, Any]) -> ZCASpace:
        d = description
        return cls(d["dataset"], d["data"], tuple(d["shape"]), d["eps"], d["version"])

    def measure(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean [F], matrix [F, F]) in float64 of all train images, uint8 or float pixels in [0, 1]."""
        return whitening_matrix(images, self.eps)

    @property
    def digest(self) -> str:
        """16 hex digits of what the matrix is a function of; names its file. The name of the data is not part of it."""
        return digest_of({k: v for k, v in self.describe().items() if k != "dataset"})

    @property
    def path(self) -> Path:
        """Where the matrix is kept."""
        return matrix_folder() / f"{self.digest}.safetensors"

    @property
    def fitted(self) -> bool:
        """Whether the matrix is at hand on this machine."""
        return self.digest in _known or self.path.exists()

    def whitening(self) -> Whitening:
        """The matrix, from this process or from its file. Raises DataError where it is in neither."""
        if self.digest not in _known:
            if not self.path.exists():
                raise DataError(
                    f"The ZCA matrix of {self.dataset} (train images {self.data}) is not on this machine.\n"
                    f"Fit it to the data: python -m fyi_bench.data.whitening {self.dataset}"
                )
            tensors, _ = load_tensors(self.path)
            _known[self.digest] = Whitening(tensors["mean"], tensors["matrix"])
        return _known[self.digest]

    def _checked(self, images: torch.Tensor) -> Whitening:
        if tuple(images.shape[-3:]) != tuple(self.shape):
            raise DataError(f"Images are {list(images.shape[-3:])}, the ZCA space is of {list(self.shape)}.")
        return self.whitening()


@dataclass(frozen=True, eq=False)
class RelativeZCASpace(ZCASpace):
    """FRePo's: of channel-normalised images, with `eps` times the mean eigenvalue added to each.

    mean, std: the channels'. Of fewer images than numbers in one, the surplus directions stay as they are.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    kind = "zca-relative"
    of_normalized: ClassVar[bool] = True

    def measure(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, covariance = moments(images)
        count, std = len(images), _each_pixel(self.std, self.shape)
        covariance = covariance * ((count - 1) / count) / torch.outer(std, std)  # N in the denominator, as published
        return mean, _inverse_root(covariance, self.eps, count) / std.unsqueeze(1)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def rebuild(cls, description: dict[str, Any]) -> RelativeZCASpace:
        d = description
        same = d["dataset"], d["data"], tuple(d["shape"]), d["eps"], d["version"]
        return cls(*same, tuple(d["mean"]), tuple(d["std"]))


@dataclass(frozen=True, eq=False)
class ImageZCASpace(RelativeZCASpace):
    """KIP's, and RTP's: each channel-normalised image loses its mean and is made of length 1 before it is whitened.

    That cannot be undone: images of this space are trained on and looked at, not converted.
    """

    kind = "zca-image"

    def measure(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The matrix is of second moments: no mean image is taken off."""
        features = math.prod(self.shape)
        products = torch.zeros(features, features, dtype=torch.float64)
        for chunk in images.split(_CHUNK):
            unit = self._unit(chunk.double() / (255 if chunk.dtype == torch.uint8 else 1)).flatten(1)
            products.addmm_(unit.T, unit)
        return torch.zeros(features, dtype=torch.float64), self._root(products / len(images), len(images))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._checked(pixels).apply(self._unit(pixels))

    def decode(self, images: torch.Tensor) -> torch.Tensor:
        """Always DataError: length and mean of an image are lost."""
        raise DataError(
            "Images whitened as KIP's have lost their brightness and contrast: there is no way back to pixels.\n"
            "Make the set with --set zca=false to convert it."
        )

    def picture(self, images: torch.Tensor) -> torch.Tensor:
        return stretched(self._checked(images).undo(images))

    def _root(self, moments: torch.Tensor, images: int) -> torch.Tensor:
        return _inverse_root(moments, self.eps, images)

    def _unit(self, pixels: torch.Tensor) -> torch.Tensor:
        seen = NormalizedSpace(self.mean, self.std).encode(pixels) if self.mean else pixels
        centred = seen - seen.mean((-3, -2, -1), keepdim=True)
        return centred / centred.square().sum((-3, -2, -1), keepdim=True).sqrt().clamp(min=1e-12)


@dataclass(frozen=True, eq=False)
class PixelImageZCASpace(ImageZCASpace):
    """RTP's: as KIP's, but of pixels, and of few images the surplus directions are whitened as the others."""

    kind = "zca-image-pixels"
    of_normalized = False

    def _root(self, moments: torch.Tensor, images: int) -> torch.Tensor:
        return _inverse_root(moments, self.eps, len(moments))


def matrix_folder() -> Path:
    """Folder of fitted matrices: `zca` below FYI_BENCH_CACHE, else below ~/.cache/fyi-bench."""
    return Path(os.environ.get(ENVIRONMENT) or "~/.cache/fyi-bench").expanduser() / "zca"


class Images(Protocol):
    """Images in a space, as an ImageSet is."""

    @property
    def images(self) -> torch.Tensor: ...

    @property
    def space(self) -> Space: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...


def fit(space: ZCASpace, real: Images) -> ZCASpace:
    """Make `space` usable: find its matrix, or fit it to all images of `real` (uint8 or float pixels) and keep it.

    Takes some 10 s for 50,000 images of 32 px. The caller vouches that `real` is what `space.data` names. Where the
    folder cannot be written, the matrix lives as long as this process. Raises UsageError for images too large.
    """
    if space.fitted:
        try:
            space.whitening()
            return space
        except DataError as error:
            _log.warning("%s It is fitted again.", str(error).splitlines()[0])
            space.path.unlink(missing_ok=True)
    if real.space.kind != "pixel" or real.shape != tuple(space.shape):
        raise DataError("ZCA is fitted to pixels of the images' own size.\nGive it the train images as they are.")
    features = real.images[0].numel()
    if features > MAX_FEATURES:
        raise UsageError(
            f"ZCA of {features} numbers an image needs a {features} x {features} matrix.\nUse --set zca=false."
        )
    _log.info("fitting the ZCA matrix of %s, once", space.dataset)
    mean, matrix = space.measure(real.images)
    _keep(space, mean, matrix)
    return space


def whitening_matrix(images: torch.Tensor, eps: float = EPS) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean [F], T [F, F]) in float64 of images [N, ch, H, W], uint8 or float pixels in [0, 1]."""
    mean, covariance = moments(images)
    values, vectors = torch.linalg.eigh(covariance)
    return mean, (vectors * (values.clamp_min(0) + eps).rsqrt()) @ vectors.T


def _inverse_root(moments: torch.Tensor, eps: float, images: int) -> torch.Tensor:
    """Inverse root of moments [F, F], `eps` times the mean eigenvalue added; surplus roots of few images are 1."""
    values, vectors = torch.linalg.eigh(moments)
    roots = (values.clamp_min(0) + eps * values.mean()).rsqrt()
    roots[: max(0, len(values) - images)] = 1.0  # eigenvalues ascend
    return (vectors * roots) @ vectors.T


def _each_pixel(values: tuple[float, ...], shape: tuple[int, int, int]) -> torch.Tensor:
    """float64 [F]: a channel's value for each of its pixels."""
    return torch.tensor(values, dtype=torch.float64).repeat_interleave(shape[1] * shape[2])


def moments(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean [F], covariance [F, F] with N - 1) in float64 of images [N, ch, H, W] as pixels in [0, 1].

    For uint8 images every sum is an integer below 2^53 up to 370,000 images, so order and machine do not matter.
    """
    count, features = len(images), images[0].numel()
    total = torch.zeros(features, dtype=torch.float64)
    products = torch.zeros(features, features, dtype=torch.float64)
    for chunk in images.split(_CHUNK):
        x = chunk.flatten(1).double()
        total += x.sum(0)
        products.addmm_(x.T, x)
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    covariance = products.mul_(count).sub_(torch.outer(total, total)).div_(count * (count - 1) * scale**2)
    return total / (count * scale), covariance


def _keep(space: ZCASpace, mean: torch.Tensor, matrix: torch.Tensor) -> None:
    """Store the matrix; if another process was first, its bits count."""
    if not space.path.exists():
        try:
            save_tensors(space.path, {"mean": mean, "matrix": matrix}, {"space": space.describe()})
        except StoreError as error:
            _log.warning("%s\nThe ZCA matrix was not kept; it is fitted again next time.", str(error).splitlines()[0])
            _known[space.digest] = Whitening(mean, matrix)
    space.whitening()
