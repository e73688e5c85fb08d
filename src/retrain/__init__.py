"""Retraining of scikit-learn models: when (policy), how (strategy), whether (gate)."""

__version__ = "0.1.0"
