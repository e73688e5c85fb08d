"""Mistakes that a user can mend: shown as one paragraph without a traceback, exit code 1."""

from retrain.masking import mask


class RetrainError(Exception):
    """Base of the family. The message says what is wrong, where, and the way out.

    Messages quote what libraries, stores and files say, so every one is masked, wherever it is shown or stored.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(mask(message))


class ConfigError(RetrainError):
    """A key, value or choice under `conf/` or on the command line that can't be used."""


class DataError(RetrainError):
    """A source, batch or snapshot that can't be used as it is."""


class ModelError(RetrainError):
    """A model that can't be built, fitted, stored or loaded."""


class StoreError(RetrainError):
    """The tracking store does not answer, or does not hold what it should."""


class PromotionError(RetrainError):
    """A comparison or promotion that must not go on."""
