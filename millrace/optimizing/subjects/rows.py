"""Rows of tensors: given, made of texts, or random."""

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from millrace.evaluating.data.rows import FORMATS
from millrace.evaluating.data.rows import rows as read_records
from millrace.exporting.feeds import Port, draw
from millrace.exporting.parity import Array, Tensors
from millrace.optimizing.version import Version

LABEL = "label"
RANDOM_ROWS = 64
MOST_RANDOM_VALUES = 1 << 25
MASKS = ("attention_mask", "token_type_ids")
PADS = ("[PAD]", "<pad>")


class Rows(Protocol):
    @property
    def count(self) -> int: ...

    @property
    def labels(self) -> Sequence[str] | None: ...

    def feed(self, chosen: Sequence[int]) -> Tensors:
        """Inputs of these rows, one below the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Arrays by input, all with as many rows."""

    arrays: Mapping[str, Array]
    labels: Sequence[str] | None = None

    @property
    def count(self) -> int:
        return min(len(array) for array in self.arrays.values())

    def feed(self, chosen: Sequence[int]) -> Tensors:
        return {name: array[list(chosen)] for name, array in self.arrays.items()}


def is_too_large(ports: Sequence[Port], size: int) -> bool:
    """Whether random rows would take too much memory."""
    shapes = ([RANDOM_ROWS, *(size if isinstance(dim, str) else dim for dim in port.dims[1:])] for port in ports)
    return max(map(math.prod, shapes), default=0) > MOST_RANDOM_VALUES


def random_rows(ports: Sequence[Port], size: int) -> Given:
    """`size`: of every dimension that may have any."""
    dice = np.random.default_rng(5)
    shapes = {port.name: [size if isinstance(dim, str) else dim for dim in port.dims[1:]] for port in ports}
    arrays = {
        port.name: np.ones((RANDOM_ROWS, *shapes[port.name]), port.dtype)
        if port.name == MASKS[0]
        else draw(dice, port.dtype, (RANDOM_ROWS, *shapes[port.name]), 2)
        for port in ports
    }
    return Given(arrays=arrays)


def read(path: Path, version: Version, ports: Sequence[Port]) -> Rows:
    """Raises ValueError where the file does not hold what the model takes."""
    return _archive(path, ports) if path.suffix == ".npz" else Texts(path, version, ports)


def _archive(path: Path, ports: Sequence[Port]) -> Given:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path.name} is no archive of plain arrays: {error}") from None
    if missing := {port.name for port in ports} - arrays.keys():
        raise ValueError(f"{path.name}: no array {', '.join(sorted(missing))}; it has {', '.join(arrays)}")
    labels = arrays.get(LABEL)
    for port in ports:
        dims = arrays[port.name].shape
        fits = len(dims) == len(port.dims) and all(
            isinstance(b, str) or a == b for a, b in zip(dims[1:], port.dims[1:], strict=True)
        )
        if not fits or not dims[0]:
            raise ValueError(f"{path.name}: {port.name} has the shape {list(dims)}, and the model takes {port.told}")
    counts = {len(arrays[port.name]) for port in ports} | ({len(labels)} if labels is not None else set())
    if len(counts) != 1:
        raise ValueError(f"{path.name}: arrays differ in their first dimension: {sorted(counts)}")
    given = {port.name: arrays[port.name].astype(port.dtype) for port in ports}
    return Given(arrays=given, labels=None if labels is None else [str(label) for label in labels.tolist()])


class Texts:
    """Lines of JSON or CSV with `text` and perhaps `label`, or plain lines of text; tokens are padded on the right."""

    def __init__(self, path: Path, version: Version, ports: Sequence[Port]) -> None:
        from tokenizers import Tokenizer

        texts, labels = read_texts(path)
        self.labels: Sequence[str] | None = labels
        section: Mapping[str, Any] = version.described.get("text") or {}
        file = version.folder / section.get("tokenizer", "tokenizer.json")
        if not file.is_file():
            raise ValueError(f"{path.name}: texts need {file.name} in the model's folder; give tensors, as .npz")
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=_most_tokens(version, ports))
        self._tokens = [one.ids for one in tokenizer.encode_batch([section.get("prefix", "") + text for text in texts])]
        self._pad = section.get("pad_id", next((i for p in PADS if (i := tokenizer.token_to_id(p)) is not None), 0))
        self._names = {section.get(name, name): name for name in ("input_ids", *MASKS, "position_ids")}
        self._ports = ports
        if unknown := [port.name for port in ports if port.name not in self._names]:
            raise ValueError(f"{path.name}: the input {unknown[0]} is not made of texts; give tensors, as .npz")
        self.count = len(texts)

    def feed(self, chosen: Sequence[int]) -> Tensors:
        fixed = next((port.dims[1] for port in self._ports if isinstance(port.dims[1], int)), 0)
        lengths = [len(self._tokens[i]) for i in chosen]
        shape = (len(chosen), int(fixed or max(*lengths, 1)))
        made = {
            "input_ids": np.full(shape, self._pad),
            "attention_mask": (np.arange(shape[1]) < np.array(lengths)[:, None]).astype(np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
            "position_ids": np.broadcast_to(np.arange(shape[1]), shape),
        }
        for row, index in enumerate(chosen):
            made["input_ids"][row, : lengths[row]] = self._tokens[index]
        return {port.name: made[self._names[port.name]].astype(port.dtype) for port in self._ports}


def read_texts(path: Path) -> tuple[list[str], list[str] | None]:
    if path.suffix.lower() not in FORMATS:
        return [line for line in read_text(path).splitlines() if line.strip()], None
    records = list(read_records(path))
    if not records or not all(isinstance(row.get("text"), str) for _, row in records):
        raise ValueError(f"{path.name}: each line needs a text")
    labels = [row.get(LABEL) for _, row in records]
    has_labels = all(label is not None for label in labels)
    texts = [row["text"] for _, row in records]
    return texts, [one if isinstance(one, str) else json.dumps(one) for one in labels] if has_labels else None


def read_text(path: Path) -> str:
    """Raises ValueError where the file is no text, or holds none."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: not a text in UTF-8: {error}") from None
    if not text.strip():
        raise ValueError(f"{path.name}: holds no text")
    return text


def _most_tokens(version: Version, ports: Sequence[Port]) -> int:
    """What a text is cut at."""
    fixed = next((port.dims[1] for port in ports if len(port.dims) > 1 and isinstance(port.dims[1], int)), None)
    said = (version.described.get("text") or {}).get("max_tokens") or _configured(version.folder)
    return int(fixed or said or 512)


def _configured(folder: Path) -> int | None:
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        if (folder / name).is_file():
            value = json.loads((folder / name).read_text()).get(key)
            if isinstance(value, int) and value < 1 << 20:
                return value
    return None
