"""See `retrain.models.corrected`."""

from retrain.models.corrected import *  # noqa: F403
