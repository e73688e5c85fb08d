"""What is stored as JSON: it validates and serializes itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Self

from retrain.errors import RetrainError
from retrain.lazy import pydantic
from retrain.workspace import read_json, write_json


class Record:
    """What is stored as JSON. A key that it does not know is refused: another version wrote it."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def content(self) -> dict[str, Any]:
        """What `read` takes: plain values."""
        content: dict[str, Any] = _adapter(type(self)).dump_python(self, mode="json")
        return content

    @classmethod
    def read(cls, content: Any) -> Self:
        """Raises pydantic's ValidationError, a ValueError. Nothing in it is interpolated."""
        # Halves of characters can come from a command line, and pydantic takes none.
        text = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
        record: Self = _adapter(cls).validate_json(text, strict=True)
        return record

    def save(self, path: Path) -> None:
        write_json(path, self.content())

    @classmethod
    def load(cls, path: Path, made_by: str) -> Self:
        """Raises RetrainError naming the stage when the file is missing, damaged or does not
        fit."""
        content = read_json(path, made_by)
        try:
            return cls.read(content)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise RetrainError(
                f"{path} does not fit this version of the project "
                f"({f'`{where}`: ' if where else ''}{first['msg']}).",
                hint=f"Run `dvc repro -f -s {made_by}` to make it again.",
            ) from error


_ADAPTERS: dict[type[Record], pydantic.TypeAdapter[Any]] = {}


def _adapter(kind: type[Record]) -> pydantic.TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = pydantic.TypeAdapter(kind)
    return _ADAPTERS[kind]
