"""tokenizer.json, and what the files beside it say: those that sentence-transformers and transformers write.

Nothing of the generation engine is needed for it, which has a `Vocabulary` of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from services.worker import untrusted

TOKENIZER_BYTES = 64 << 20
HIGHEST_TOKEN_ID = (1 << 31) - 1
LONGEST = 1 << 20
"""Of a text, in tokens; transformers writes 10^30 where it does not know."""
SENTENCE_FILE, CONFIG_FILE = "sentence_bert_config.json", "tokenizer_config.json"
PADDING = ("[PAD]", "<pad>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What the files say."""

    max_tokens: int | None
    """Of a text, special ones included; None: nothing."""
    pad_id: int
    """The token to pad with; 0 where nothing says it."""
    lower: bool
    """Whether texts are put into lower case before the tokenizer sees them."""


def read(path: Path) -> Tokenizer:
    """With the truncation and padding that the file says. Raises ValueError."""
    if not untrusted.plain_file(path):
        raise ValueError(f"text.tokenizer: {path.name} is missing")
    text = untrusted.read_text(path, TOKENIZER_BYTES)
    try:
        tokenizer = Tokenizer.from_str(text)
        tokenizer.encode("")  # a template that names a token which is not there panics only here
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # what tokenizers raises has no class of its own, and its panics are no Exceptions
        raise ValueError(f"text.tokenizer: {path.name}: {error}") from None
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if not 0 <= highest <= HIGHEST_TOKEN_ID:
        raise ValueError(f"text.tokenizer: the highest token id is {highest}, not from 0 to {HIGHEST_TOKEN_ID}")
    return tokenizer


def read_stated(folder: Path, tokenizer: Tokenizer) -> Stated:
    """Of a model's folder. Raises ValueError where a file cannot be read."""
    sentence, config = _object(folder / SENTENCE_FILE), _object(folder / CONFIG_FILE)
    lengths = (sentence.get("max_seq_length"), config.get("model_max_length"), _of(tokenizer.truncation, "max_length"))
    return Stated(
        max_tokens=next((length for length in lengths if isinstance(length, int) and 1 <= length <= LONGEST), None),
        pad_id=_pad_id(tokenizer, config),
        lower=sentence.get("do_lower_case") is True,
    )


def _pad_id(tokenizer: Tokenizer, config: Mapping[str, Any]) -> int:
    own = _of(tokenizer.padding, "pad_id")
    stated = config.get("pad_token")
    names = [stated.get("content") if isinstance(stated, dict) else stated, *PADDING]
    ids = [own, *(tokenizer.token_to_id(name) for name in names if isinstance(name, str))]
    return next((token_id for token_id in ids if token_id is not None), 0)


def _of(settings: Mapping[str, Any] | None, key: str) -> int | None:
    return (settings or {}).get(key)


def _object(path: Path) -> Mapping[str, Any]:
    """Empty where there is no such file."""
    read = untrusted.read_json(path) if untrusted.plain_file(path) else {}
    return read if isinstance(read, dict) else {}
