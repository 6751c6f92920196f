"""The parts of Avalanche in use, imported together; where it is missing, importing this module says how to get it.

Avalanche imports torchvision, which cannot be imported beside every build of torch: `search_space.torchvision_compat`
comes first. It is `fyi_bench.avalanche` for programs that import Avalanche before anything of ours.
"""

from __future__ import annotations

import warnings

from fyi_bench.errors import DataError

try:
    import search_space.torchvision_compat  # noqa: F401

    with warnings.catch_warnings():  # its dependency qpsolvers warns of solvers that nothing here uses
        warnings.simplefilter("ignore")
        import avalanche
        import avalanche.training
    from avalanche.benchmarks import nc_benchmark
    from avalanche.benchmarks.utils import AvalancheDataset, TransformGroups, as_classification_dataset
    from avalanche.benchmarks.utils.data_attribute import DataAttribute, TaskLabels, TensorDataAttribute
    from avalanche.benchmarks.utils.flat_data import FlatData
    from avalanche.benchmarks.utils.utils import concat_datasets
    from avalanche.core import SupervisedPlugin
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.logging import BaseLogger
    from avalanche.models import MultiTaskModule
    from avalanche.training import DER, ICaRL, Naive
    from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
    from avalanche.training.storage_policy import ClassBalancedBuffer, ExemplarsBuffer, ExperienceBalancedBuffer
    from avalanche.training.supervised.der import ClassBalancedBufferWithLogits
    from avalanche.training.templates import SupervisedTemplate
except ImportError as error:
    raise DataError(
        f"Continual learning needs Avalanche, which cannot be imported ({error}).\n"
        "Install it: pip install 'avalanche-lib==0.6.0'."
    ) from error

__all__ = [
    "DER",
    "AvalancheDataset",
    "BaseLogger",
    "ClassBalancedBuffer",
    "ClassBalancedBufferWithLogits",
    "DataAttribute",
    "EvaluationPlugin",
    "ExemplarsBuffer",
    "ExperienceBalancedBuffer",
    "FlatData",
    "ICaRL",
    "MultiTaskModule",
    "Naive",
    "ReplayPlugin",
    "SupervisedPlugin",
    "SupervisedTemplate",
    "TaskLabels",
    "TensorDataAttribute",
    "TransformGroups",
    "accuracy_metrics",
    "as_classification_dataset",
    "avalanche",
    "concat_datasets",
    "nc_benchmark",
]


def evaluator() -> EvaluationPlugin:
    """Avalanche's accuracy over a stream, without its printing."""
    return EvaluationPlugin(accuracy_metrics(stream=True), loggers=[BaseLogger()])
