"""Mistakes that a user can mend: shown without a traceback, exit code 1."""

from retrain.masking import mask


class RetrainError(Exception):
    """Base of the family. Shown as `error: <message>` and, on a line of its own, `hint: <hint>`.

    Messages quote what libraries, stores and files say, so all are masked, wherever they are shown
    or stored.

    Parameters
    ----------
    message
        What is wrong: the value, and the file, row or key that it comes from.
    hint
        The way out: the command to run or the key to change. Empty where the message says all.
    """

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(mask(message))
        self.message, self.hint = mask(message), mask(hint)

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


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


def first_line(error: BaseException) -> str:
    """The first line of a library's message, without credentials, or the type of its error."""
    lines = mask(str(error)).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__
