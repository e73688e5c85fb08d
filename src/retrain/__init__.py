"""Retraining of scikit-learn models: when (policy), how (strategy), whether (gate).

What a project of your own builds on, `from retrain import ...`: the base classes `Source`,
`Strategy`, `Policy`, `Check` and `Metric`, and what their methods take and return. Each name is
imported when it is first used.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrain import ranges
    from retrain.config import Config, DataConfig, Task
    from retrain.data.manifest import Batch
    from retrain.data.source import Source
    from retrain.data.table_source import Table
    from retrain.errors import ConfigError, DataError, ModelError, RetrainError
    from retrain.gate.check import Check, CheckResult, Outcome
    from retrain.gate.comparison import Comparison
    from retrain.gate.estimates import Estimate
    from retrain.models import encodings
    from retrain.models.block_sums import sum_by_block
    from retrain.models.from_scratch import FitResult
    from retrain.models.metric import Metric, RowLoss
    from retrain.models.parent import ParentModel
    from retrain.models.strategy import Strategy
    from retrain.models.training_set import TrainingSet
    from retrain.monitoring.gain import RetrainingGain
    from retrain.monitoring.policy import Policy, PolicyContext
    from retrain.types import Decision, Score

# What of the engine lies beside a stored model and was imported first leaves the rest to be found.
__path__ = pkgutil.extend_path(__path__, __name__)
__version__ = "0.2.0"

_HOME = {
    "config": ("Config", "DataConfig", "Task"),
    "data.manifest": ("Batch",),
    "data.source": ("Source",),
    "data.table_source": ("Table",),
    "errors": ("ConfigError", "DataError", "ModelError", "RetrainError"),
    "gate.check": ("Check", "CheckResult", "Outcome"),
    "gate.comparison": ("Comparison",),
    "gate.estimates": ("Estimate",),
    "models.block_sums": ("sum_by_block",),
    "models.metric": ("Metric", "RowLoss"),
    "models.parent": ("ParentModel",),
    "models.from_scratch": ("FitResult",),
    "models.strategy": ("Strategy",),
    "models.training_set": ("TrainingSet",),
    "monitoring.policy": ("Policy", "PolicyContext"),
    "monitoring.gain": ("RetrainingGain",),
    "types": ("Decision", "Score"),
}
_MODULES = {"encodings": "retrain.models.encodings", "ranges": "retrain.ranges"}
MODULE_OF = _MODULES | {
    name: f"retrain.{module}" for module, names in _HOME.items() for name in names
}

__all__ = [
    "Batch",
    "Check",
    "CheckResult",
    "Comparison",
    "Config",
    "ConfigError",
    "DataConfig",
    "DataError",
    "Decision",
    "Estimate",
    "FitResult",
    "Metric",
    "ModelError",
    "Outcome",
    "ParentModel",
    "Policy",
    "PolicyContext",
    "RetrainError",
    "RetrainingGain",
    "RowLoss",
    "Score",
    "Source",
    "Strategy",
    "Table",
    "Task",
    "TrainingSet",
    "encodings",
    "ranges",
    "sum_by_block",
]


def __getattr__(name: str) -> Any:
    """A public name, imported now."""
    if name not in MODULE_OF:
        raise AttributeError(f"module 'retrain' has no attribute {name!r}")
    module = importlib.import_module(MODULE_OF[name])
    value = module if name in _MODULES else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
