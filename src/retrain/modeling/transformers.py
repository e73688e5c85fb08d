"""See `retrain.models.transformers`."""

from retrain.models.transformers import *  # noqa: F403
