"""Texts → a graph's inputs: model.yaml's `text` → `TextFields`, and with it tokenizer.json → `TextFrontEnd`.

    text:
      max_tokens: 256
      prefix: "query: "

Normalisation, lower-casing included, is the tokenizer's business. What is left out is taken from the tokenizer's files.

A graph that is told which tokens are padding runs a text at one of a few lengths, so that texts of different requests
share runs: `batching.buckets` of that dimension, else 16, 32, 48, 64, 80, 96, 112, 128, 160, 192, …: multiples of 16,
and from 64 on four to each doubling, so that no longer text is padded by more than a quarter, and 512 tokens make 16
lengths. Any other graph runs a text at the length that it has, and those of equal length share runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from millrace.engine import EngineContext
from services.worker.batch import config
from services.worker.batch.graph import Array, Feed, Port, Ports
from services.worker.batch.processor import Rejected
from services.worker.repository.model_file import Frozen, InsidePath, problems
from services.worker.tasks import TOKENIZER_FILE, takes_one, tokenizer_files
from services.worker.tasks.tokenizer_files import HIGHEST_TOKEN_ID, LONGEST

MOST_CHARACTERS = 1 << 20
"""Of one text: 2 to 7 s of a tokenizer."""
STEP, STEPS_OF_DOUBLING = 16, 4
"""Of the lengths at which texts run."""
INTEGERS = ("INT64", "INT32")
IntArray = npt.NDArray[np.int64]


class TextFields(Frozen):
    """`text` of model.yaml."""

    tokenizer: InsidePath = TOKENIZER_FILE
    max_tokens: int | None = Field(default=None, ge=1, le=LONGEST, description="of a text, special ones included")
    max_texts: int = Field(default=1_024, ge=1, le=65_536, description="of one request")
    truncate: bool = Field(default=False, description="whether a longer text is cut where its request cannot say so")
    prefix: str = Field(default="", description="what stands before every text")
    pad_id: int | None = Field(default=None, ge=0, le=HIGHEST_TOKEN_ID, description="None: the tokenizer's own")
    input_ids: str = "input_ids"
    attention_mask: str = Field(default="attention_mask", description="input that is 1 for a token, 0 for padding")
    token_type_ids: str = "token_type_ids"
    position_ids: str = "position_ids"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """One text."""

    ids: IntArray
    type_ids: IntArray

    def __len__(self) -> int:
        return len(self.ids)


def read_fields(config: Mapping[str, Any]) -> TextFields:
    """Of model.yaml's content. Raises ValueError, naming the key."""
    try:
        return TextFields.model_validate(config["text"] or {})
    except ValidationError as error:
        raise ValueError(f"text.{problems(error).replace('; ', '; text.')}") from None


class TextFrontEnd:
    """Makes a graph's inputs. It may be used on several threads at once."""

    def __init__(self, fields: TextFields, context: EngineContext, ports: Ports) -> None:
        """Raises ValueError, naming the key, where fields, files and graph do not fit together."""
        self._tokenizer = tokenizer_files.read(context.folder / fields.tokenizer)
        self._stated = tokenizer_files.read_stated(context.folder, self._tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._fields = fields
        self._pad_id = self._stated.pad_id if fields.pad_id is None else fields.pad_id
        self._inputs = _inputs(fields, ports)
        self._special_tokens: int = self._tokenizer.num_special_tokens_to_add(False)
        self._dim = next(port.dims[1] for port, _ in self._inputs)
        self._batching = config.read(context, 1)
        self.pads = self._dim in self._batching.buckets or any(make is _mask for _, make in self._inputs)
        """Whether texts of different lengths may share a run."""
        self.max_tokens = self._most_tokens()

    def tokens(self, text: str, field: str, *, truncate: bool, advice: str) -> Tokens:
        """Raises Rejected, naming the field; `advice` to who sends a text that is too long."""
        if len(text) > MOST_CHARACTERS:
            raise Rejected(field, f"has more than {MOST_CHARACTERS} characters")
        text = self._fields.prefix + (text.lower() if self._stated.lower else text)
        try:
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # what tokenizers raises has no class of its own, a panic not even Exception
            raise Rejected(field, f"cannot be tokenised: {error}") from None
        count = len(encoding.ids) + self._special_tokens
        if count > self.max_tokens:
            if not truncate:
                raise Rejected(field, f"has {count} tokens, and the model takes {self.max_tokens}: {advice}")
            encoding.truncate(self.max_tokens - self._special_tokens)
        encoding = self._tokenizer.post_process(encoding)
        if not encoding.ids:
            raise Rejected(field, "has no tokens")
        return Tokens(ids=np.array(encoding.ids, np.int64), type_ids=np.array(encoding.type_ids, np.int64))

    def length(self, tokens: int) -> int:
        """At which a text of so many runs."""
        if isinstance(self._dim, int):
            return self._dim
        if not self.pads:
            return tokens
        own = self._dim in self._batching.buckets
        return min(self._batching.padded(self._dim, tokens) if own else _length(tokens), self.max_tokens)

    def feed(self, rows: Sequence[Tokens]) -> Feed:
        """One row of each input for each text, padded on the right to the length of the longest one."""
        length = self.length(max(map(len, rows)))
        return {port.name: make(rows, length, self._pad_id).astype(port.dtype) for port, make in self._inputs}

    def _most_tokens(self) -> int:
        """Raises ValueError."""
        fixed = self._dim if isinstance(self._dim, int) else None
        stated = self._fields.max_tokens or self._stated.max_tokens or fixed
        if stated is None:
            raise ValueError("text.max_tokens: must be given, as no file says how long a text may be")
        most = min(stated, fixed or stated)
        if most <= self._special_tokens:
            raise ValueError(f"text.max_tokens: {most} leave none beside {self._special_tokens} special ones")
        return most


Make = Callable[[Sequence[Tokens], int, int], Array]
"""Texts, the length of each row, and the token to pad with → [rows, length]."""


def _ids(rows: Sequence[Tokens], length: int, pad_id: int) -> Array:
    return _padded([row.ids for row in rows], length, pad_id)


def _mask(rows: Sequence[Tokens], length: int, pad_id: int) -> Array:
    return np.arange(length) < np.array([[len(row)] for row in rows])


def _type_ids(rows: Sequence[Tokens], length: int, pad_id: int) -> Array:
    return _padded([row.type_ids for row in rows], length, 0)


def _positions(rows: Sequence[Tokens], length: int, pad_id: int) -> Array:
    return np.tile(np.arange(length), (len(rows), 1))


def _padded(rows: Sequence[IntArray], length: int, value: int) -> Array:
    filled = np.full((len(rows), length), value, np.int64)
    for target, row in zip(filled, rows, strict=True):
        target[: len(row)] = row
    return filled


def _inputs(fields: TextFields, ports: Ports) -> list[tuple[Port, Make]]:
    """Raises ValueError."""
    makes: dict[str, Make] = {
        fields.input_ids: _ids,
        fields.attention_mask: _mask,
        fields.token_type_ids: _type_ids,
        fields.position_ids: _positions,
    }
    for port in ports.inputs:
        if port.name not in makes:
            raise ValueError(f"text: the graph takes {port.name} too, which nothing here makes")
        if port.datatype not in INTEGERS or len(port.dims) != 2 or not takes_one(port):
            raise ValueError(f"text: {port.name} is {port.datatype} {list(port.dims)}, not integers [rows, tokens]")
    if all(port.name != fields.input_ids for port in ports.inputs):
        raise ValueError(f"text.input_ids: the graph has no input {fields.input_ids}")
    return [(port, makes[port.name]) for port in ports.inputs]


def _length(tokens: int) -> int:
    """The next of the lengths above."""
    doubling = 1 << (tokens - 1).bit_length()
    step = max(STEP, doubling // (2 * STEPS_OF_DOUBLING))
    return -(-tokens // step) * step
