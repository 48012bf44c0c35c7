"""What a line of the data may be, by the kind of evaluation. Columns that are not known are ignored."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from millrace.evaluating.data.example import Array, Example, Medium
from millrace.evaluating.data.media import Folder
from millrace.evaluating.kinds import Kind


def _word(value: object) -> object:
    """Labels and ids may be numbers or truth values in JSON: as JSON writes them."""
    return json.dumps(value) if isinstance(value, bool | int) else value


Word = Annotated[str, StringConstraints(min_length=1, max_length=1000), BeforeValidator(_word)]
Text = Annotated[str, Field(min_length=1)]
Relevance = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True)

    id: Word | None = None


class Labelled(Record):
    text: str | None = None
    image: Text | None = None
    audio: Text | None = None
    label: Word

    @model_validator(mode="after")
    def _one_input(self) -> "Labelled":
        if sum(value is not None for value in (self.text, self.image, self.audio)) != 1:
            raise ValueError("one of text, image, audio or file is needed")
        return self

    def example(self, name: str, folder: Folder) -> Example:
        media: Mapping[Medium, str | None] = {"image": self.image, "audio": self.audio}
        for medium, path in media.items():
            if path is not None:
                return Example(id=name, file=folder.file(path), medium=medium, truth=self.label)
        return Example(id=name, text=self.text or "", truth=self.label)


class Tensors(Record):
    inputs: Annotated[dict[Text, Any], Field(min_length=1)]
    label: Word

    def example(self, name: str, folder: Folder) -> Example:
        return Example(
            id=name, arrays={key: _array(key, value) for key, value in self.inputs.items()}, truth=self.label
        )


class Prompted(Record):
    prompt: Text
    reference: str

    def example(self, name: str, folder: Folder) -> Example:
        return Example(id=name, text=self.prompt, truth=self.reference)


class Plain(Record):
    text: Text

    def example(self, name: str, folder: Folder) -> Example:
        return Example(id=name, text=self.text)


class Query(Record):
    query: Text
    relevant: Annotated[dict[Word, Relevance], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _equally(cls, given: Any) -> Any:
        """A list says that all in it are as relevant."""
        if isinstance(given, dict) and isinstance(given.get("relevant"), list):
            return given | {"relevant": {str(_word(one)): 1.0 for one in given["relevant"]}}
        return given

    def example(self, name: str, folder: Folder) -> Example:
        return Example(id=name, text=self.query, relevant=self.relevant)


class Document(Record):
    id: Word
    text: Text

    def example(self, name: str, folder: Folder) -> Example:
        return Example(id=name, text=self.text)


class Spoken(Record):
    audio: Text
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

    def example(self, name: str, folder: Folder) -> Example:
        return Example(id=name, file=folder.file(self.audio), medium="audio", truth=self.text)


Known = Labelled | Tensors | Prompted | Plain | Query | Document | Spoken
RECORDS: Mapping[Kind, type[Known]] = {
    "classify": Labelled,
    "infer": Tensors,
    "generate": Prompted,
    "perplexity": Plain,
    "embed": Document,
    "transcribe": Spoken,
}


def to_example(kind: Kind, given: Mapping[str, Any], default_id: str, folder: Folder) -> Example:
    """Raises ValueError with what is wrong with the record."""
    record = Query if kind == "embed" and "query" in given else RECORDS[kind]
    try:
        found = record.model_validate(given)
    except ValidationError as error:
        raise ValueError(_words(error)) from None
    name = found.id or (f"query-{default_id}" if isinstance(found, Query) else default_id)
    return found.example(name, folder)


def _words(error: ValidationError) -> str:
    """The first thing that is wrong, after the column's name."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"]).removeprefix("Value error, ")


def _array(name: str, value: Any) -> Array:
    try:
        array = np.array(value)
    except ValueError:
        raise ValueError(f"inputs.{name}: lists beside each other must have equal lengths") from None
    if array.dtype.kind not in "biufU":
        raise ValueError(f"inputs.{name}: must hold numbers, truth values or texts")
    return array
