"""A JSON object, read field by field: each of the kind that is wanted, null as good as absent.

Everything here raises InvalidRequest, naming the field.
"""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from millrace.errors import InvalidRequest, Violation

MOST_VALUES = 1 << 19
"""In one body. Parsed, a value takes up to 100 bytes however short it is."""
SEPARATORS = (b",", b"[", b"{")
UINT32, UINT64 = (1 << 32) - 1, (1 << 64) - 1


class Fields:
    """The fields of an object at `path` in the body."""

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self._values, self._path = values, path

    def get(self, name: str) -> Any:
        """Whatever stands there; None where nothing does."""
        return self._values.get(name)

    def refuse(self, name: str, description: str) -> NoReturn:
        raise InvalidRequest([Violation(self._at(name), description)])

    def text(self, name: str) -> str | None:
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            self.refuse(name, "must be a string")
        return value

    def required(self, name: str) -> str:
        return self.text(name) or self.refuse(name, "is required")

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, "must be true or false")
        return bool(value)

    def number(self, name: str) -> float | None:
        value = self.get(name)
        if value is None:
            return None
        return _as_number(value) if _is_number(value) else self.refuse(name, "must be a number")

    def whole(self, name: str, least: int = 0, most: int = UINT32) -> int | None:
        value = self.get(name)
        if value is None:
            return None
        if not _is_whole(value, least, most):
            self.refuse(name, f"must be a whole number in [{least}, {most}]")
        return int(value)

    def items(self, name: str) -> list[Any]:
        """An array's values; none where there is no array."""
        value = self.get(name)
        if value is not None and not isinstance(value, list):
            self.refuse(name, "must be an array")
        return value or []

    def texts(self, name: str) -> list[str]:
        """An array of strings, or one string alone."""
        value = self.get(name)
        texts = [value] if isinstance(value, str) else self.items(name)
        if not all(isinstance(text, str) for text in texts):
            self.refuse(name, "must be a string, or an array of strings")
        return texts

    def tokens(self, name: str) -> list[int]:
        tokens = self.items(name)
        if not are_tokens(tokens):
            self.refuse(name, f"must be an array of whole numbers in [0, {UINT32}]")
        return tokens

    def inner(self, name: str) -> "Fields | None":
        value = self.get(name)
        if value is None:
            return None
        return Fields(value, self._at(name)) if isinstance(value, dict) else self.refuse(name, "must be an object")

    def objects(self, name: str) -> list["Fields"]:
        values = self.items(name)
        if not all(isinstance(value, dict) for value in values):
            self.refuse(name, "must be an array of objects")
        return [Fields(value, f"{self._at(name)}[{index}]") for index, value in enumerate(values)]

    def weights(self, name: str) -> dict[int, float]:
        """An object from token ids, which JSON writes as strings, to numbers."""
        value = self.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(_is_token(key) and _is_number(value[key]) for key in value):
            self.refuse(name, "must be an object from token ids to numbers")
        return {int(key): _as_number(weight) for key, weight in value.items()}

    def _at(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name


def parse_object(raw: bytes) -> Fields:
    """Refuses what is no JSON object, and what would take far more memory and time than its bytes."""
    if sum(raw.count(separator) for separator in SEPARATORS) > MOST_VALUES:
        raise InvalidRequest([Violation("", "the body has too many values")])
    try:
        values = json.loads(raw.decode(), parse_constant=_refuse_constant)
        if b"\\ud" in raw.lower():
            to_json(values).encode()
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise InvalidRequest([Violation("", f"the body is not valid JSON: {reason}")]) from None
    if not isinstance(values, dict):
        raise InvalidRequest([Violation("", "the body must be a JSON object")])
    return Fields(values)


def to_json(value: object) -> str:
    """As short as it can be written; a text may hold any character."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def are_tokens(values: list[Any]) -> bool:
    return all(_is_whole(value, 0, UINT32) for value in values)


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_number(value: float) -> float:
    """An integer may be too large for it."""
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _is_token(key: str) -> bool:
    return key.isascii() and key.isdecimal() and len(key) <= 10 and int(key) <= UINT32


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
