"""What lies beside an encoder's graph: the tokenizer, sentence-transformers' files, labels; and what model.yaml says of
the input, by transformers' own configurations."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from millrace.exporting import folder as version
from millrace.exporting import trust
from millrace.exporting.order import Order
from millrace.exporting.sources.huggingface.architecture import (
    EMBEDDING,
    IMAGE,
    MODULES,
    SOUND,
    SPEECH,
    TEXT,
    Architecture,
    read_json,
)

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
PREPROCESSOR, VOCABULARY, SENTENCE = "preprocessor_config.json", "vocab.json", "sentence_bert_config.json"
SERVED_MODULES = frozenset({"Transformer", "Pooling", "Normalize", "Dropout"})
LONGEST = 1 << 20
"""Of a text, in tokens; transformers writes 10^30 where it does not know."""
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box")
"""As Pillow numbers them."""
SECONDS = 10
"""Of a sound to be labelled, where nothing says more."""
UNCROPPED = 384
"""A side from which on a ConvNeXT's images are not cropped, whatever `crop_pct` says."""
OFFSET_MODELS = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"})
"""Whose positions begin behind the padding's id."""


def check(source: Path, architecture: Architecture) -> None:
    """Raises ValueError where a file is missing, or says what no worker does: before anything is built."""
    if architecture.task in (TEXT, EMBEDDING):
        _need(source, TOKENIZER)
        _modules(source)
    if architecture.task == IMAGE:
        image_shape(source, architecture)
    if architecture.task == SPEECH:
        _blank(source)


def write(source: Path, architecture: Architecture, order: Order, folder: Path, output: str) -> dict[str, Any]:
    """Copies the files; answers keys of model.yaml. Raises ValueError where something that is needed is missing."""
    keys = _KEYS[architecture.task](source, architecture, folder)
    if architecture.task == SPEECH:
        return keys | version.write_labels(folder, _symbols(source), output)
    if architecture.task == EMBEDDING:
        return keys
    names = version.read_labels(order.labels) if order.labels else _names(architecture)
    if architecture.config.get("problem_type") == "multi_label_classification":
        keys["classes"] = {"scores": "sigmoid"}
    return keys | version.write_labels(folder, names, output)


def max_tokens(source: Path, architecture: Architecture) -> int:
    """Of a text, special ones included."""
    config = architecture.config
    positions = int(config.get("max_position_embeddings") or 512)
    if config.get("model_type") in OFFSET_MODELS:
        positions -= int(config.get("pad_token_id") or 0) + 1
    stated = (
        read_json(source / SENTENCE).get("max_seq_length"),
        read_json(source / TOKENIZER_CONFIG).get("model_max_length"),
    )
    return min(positions, *(one for one in stated if isinstance(one, int) and 1 <= one <= LONGEST), LONGEST)


def has_types(source: Path, architecture: Architecture) -> bool:
    """Whether the model distinguishes the first text from the second."""
    named = read_json(source / TOKENIZER_CONFIG).get("model_input_names")
    if isinstance(named, list):
        return "token_type_ids" in named
    return int(architecture.config.get("type_vocab_size") or 0) > 1


def image_shape(source: Path, architecture: Architecture) -> tuple[int, int, int]:
    """Channels, height and width. Raises ValueError where no file says them."""
    config = read_json(source / PREPROCESSOR)
    size = (config.get("crop_size") if config.get("do_center_crop") else None) or config.get("size")
    size = size or architecture.config.get("image_size")
    if isinstance(size, Mapping):
        size = [size.get("height") or size.get("shortest_edge"), size.get("width") or size.get("shortest_edge")]
    height, width = size if isinstance(size, list | tuple) else (size, size)
    if not isinstance(height, int) or not isinstance(width, int):
        raise ValueError(f"{PREPROCESSOR}: does not say the size of images")
    return int(architecture.config.get("num_channels") or 3), height, width


def _text(source: Path, architecture: Architecture, folder: Path) -> dict[str, Any]:
    _copy(source, folder, TOKENIZER)
    _copy(source, folder, TOKENIZER_CONFIG)
    return {"text": {"max_tokens": max_tokens(source, architecture), "truncate": True}}


def _embedding(source: Path, architecture: Architecture, folder: Path) -> dict[str, Any]:
    keys = _text(source, architecture, folder)
    _copy(source, folder, SENTENCE)
    if not (source / MODULES).is_file():
        return {"text": {"max_tokens": keys["text"]["max_tokens"]}, "embedding": {"pooling": "mean", "normalise": True}}
    _copy(source, folder, MODULES)
    if pooling := _modules(source).get("Pooling"):
        _copy(source, folder, f"{pooling}/config.json")
    return {"text": {"max_tokens": keys["text"]["max_tokens"]}}


def _image(source: Path, architecture: Architecture, folder: Path) -> dict[str, Any]:
    config = read_json(source / PREPROCESSOR)
    found: dict[str, Any] = {"filter": FILTERS[config["resample"]]} if config.get("resample") in range(5) else {}
    size = config.get("size")
    shortest = size.get("shortest_edge") if isinstance(size, Mapping) else None
    if shortest and config.get("do_center_crop"):
        found["shortest"] = shortest
    elif shortest and shortest < UNCROPPED and config.get("crop_pct"):
        found["shortest"] = int(shortest / config["crop_pct"])
    elif not config.get("do_center_crop"):
        found["resize"] = "stretch"
    if config.get("do_rescale") is False:
        found["scale"] = 1.0
    elif isinstance(config.get("rescale_factor"), float):
        found["scale"] = config["rescale_factor"]
    if config.get("do_normalize", True) and "image_mean" in config:
        found |= {"mean": config["image_mean"], "std": config["image_std"]}
    return {"image": found}


def _sound(source: Path, architecture: Architecture, folder: Path) -> dict[str, Any]:
    config = read_json(source / PREPROCESSOR)
    found = {"sample_rate": int(config.get("sampling_rate") or 16_000), "normalise": bool(config.get("do_normalize"))}
    return {"sound": found | ({"seconds": SECONDS} if architecture.task == SOUND else _blank(source))}


def _blank(source: Path) -> dict[str, Any]:
    config = read_json(source / TOKENIZER_CONFIG)
    pad = config.get("pad_token") or "<pad>"
    symbols = _symbols(source)
    pad = pad.get("content") if isinstance(pad, Mapping) else pad
    if pad not in symbols:
        raise ValueError(f"{VOCABULARY}: {pad!r}, which stands for no symbol, is not in it")
    separator = config.get("word_delimiter_token") or "|"
    return {"blank": symbols.index(pad), "word_separator": separator}


def _symbols(source: Path) -> list[str]:
    """By number. Raises ValueError where they are not numbered from 0."""
    ids = read_json(source / VOCABULARY)
    names = sorted(ids, key=lambda name: int(ids[name]))
    if not ids or [ids[name] for name in names] != list(range(len(ids))):
        raise ValueError(f"{VOCABULARY}: does not number symbols from 0")
    return names


def _names(architecture: Architecture) -> list[str]:
    named = architecture.config.get("id2label") or {}
    names = [named.get(str(number), str(number)) for number in range(len(named) or 2)]
    return [str(name) for name in names]


def _modules(source: Path) -> dict[str, str]:
    """sentence-transformers' modules by their kinds, and where their files lie; none where there is no such file.
    Raises ValueError where one is not served."""
    if not (source / MODULES).is_file():
        return {}
    try:
        read = json.loads((source / MODULES).read_text())
        kinds = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in read}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{MODULES}: holds no modules of sentence-transformers: {error}") from None
    if others := kinds.keys() - SERVED_MODULES:
        raise ValueError(f"{MODULES}: {', '.join(sorted(others))} is not served; export a module that contains it")
    if "Pooling" in kinds:
        _need(source, f"{inside(kinds['Pooling'])}/config.json")
    return kinds


def inside(path: str) -> str:
    """The path as it is. Raises ValueError where it leads out of its folder."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise ValueError(f"{path}: must lie inside the model's folder")
    return path


def _need(source: Path, name: str) -> None:
    if not (source / name).is_file():
        advice = ": save the tokenizer as a fast one, AutoTokenizer.from_pretrained(…).save_pretrained(…)"
        raise ValueError(f"{name} is missing{advice if name == TOKENIZER else ''}")


def _copy(source: Path, folder: Path, name: str) -> None:
    """Where there is such a file."""
    if (source / name).is_file():
        trust.need_inside(source / name, source)
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, folder / name)


_KEYS = {TEXT: _text, EMBEDDING: _embedding, IMAGE: _image, SOUND: _sound, SPEECH: _sound}
