"""How: preprocessing, estimators, strategies, and the metrics that describe them."""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)  # see `retrain`
