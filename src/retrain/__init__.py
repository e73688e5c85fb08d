"""Retraining of scikit-learn models: when (policy), how (strategy), whether (gate)."""

__version__ = "0.2.0"
