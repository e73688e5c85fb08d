"""See `retrain.models.strategy`."""

from retrain.models.strategy import FitResult, ParentModel, TrainingSet, from_scratch

__all__ = ["FitResult", "ParentModel", "TrainingSet", "from_scratch"]
