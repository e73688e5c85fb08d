"""See `retrain.models.scaled`."""

from retrain.models.scaled import *  # noqa: F403
