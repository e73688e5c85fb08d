"""How: preprocessing, estimators, strategies, and the metrics that describe them."""
