"""Accuracy of regression with the kernel of an infinitely wide network instead of a network: KIP's own evaluation."""

from __future__ import annotations

import torch

from distill.decode import decoded
from distill.image_set import ImageSet
from distill.kernels import centred, kernel, ridge_answers
from distill.spaces import Space
from fyi_bench.errors import UsageError

KERNEL = "kernel"  # the model of a protocol that tests by regression; `kernel:fc2` names one
AT_ONCE = 1024  # test images
RIDGE = 1e-6


def is_kernel(model: str) -> bool:
    """Whether a model's name stands for a kernel."""
    return model.partition(":")[0] == KERNEL


def targets(train_set: ImageSet) -> torch.Tensor:
    """float64 [N, C]: what a set's labels say as regression targets; of hard ones, one-hot minus 1 / C."""
    labels = train_set.labels.double()
    if labels.ndim == 1:
        return centred(train_set.labels, train_set.num_classes)
    if train_set.label_kind == "targets":
        return labels
    return (labels.softmax(1) if train_set.label_kind == "logits" else labels) - 1 / train_set.num_classes


def regressed(train_set: ImageSet, test_set: ImageSet, model: str, space: Space) -> tuple[float, float]:
    """(test accuracy, mean squared error on the set itself) of kernel regression on a set.

    The kernel is the one `model` names or, as its ridge, that of the set's recipe (fc1 where it has none); hard labels
    are one-hot minus 1 / C. UsageError for a convolutional kernel beyond memory.
    """
    train_set = decoded(train_set)
    made = train_set.provenance.get("recipe", {})
    name = model.partition(":")[2] or str(made.get("ntk", "fc1"))
    support, labels = train_set.to_space(space).images, targets(train_set)
    if len(train_set.classes) < 2:
        raise UsageError("Regression on one class tells nothing.\nTest a set of several classes.")
    own, ridge, right = kernel(name, support), float(made.get("ridge", RIDGE)), 0
    for index in torch.arange(len(test_set)).split(AT_ONCE):
        answers = ridge_answers(kernel(name, test_set.batch(index, space), support), own, labels, ridge)
        right += int((answers.argmax(1) == test_set.hard_labels[index]).sum())
    error = (ridge_answers(own, own, labels, ridge) - labels).square().mean()
    return right / len(test_set), float(error)
