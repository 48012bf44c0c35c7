"""Text to tokens, and tokens to text one by one, never half a character.

Byte-level vocabularies (GPT-2, Llama 3, Qwen) map each token to bytes, so that decoding is a lookup and an incremental
UTF-8 decoder; others (SentencePiece) are decoded in a sliding window, as Hugging Face's text-generation-inference does
in `decode_token`. Either way the pieces together are `tokenizers`' decoding of all tokens, special ones skipped.
"""

import codecs
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

REPLACEMENT = "\ufffd"
SPACE = "\u2581"
"""SentencePiece's stand-in for a space."""
BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
HIGHEST_TOKEN_ID = (1 << 24) - 1


class Detokenizer(Protocol):
    """The text of one sequence's tokens."""

    def push(self, token_id: int) -> str:
        """What a token adds; bytes of an unfinished character wait."""

    def flush(self) -> str:
        """What still waits, unfinished characters replaced by U+FFFD; nothing may be pushed afterwards."""


class Vocabulary:
    """A tokenizer.json."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError, and whatever `tokenizers` raises."""
        self.tokenizer = Tokenizer.from_file(str(path))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        vocabulary = self.tokenizer.get_vocab()
        _check_ids(vocabulary)
        self._bytes = _token_bytes(self.tokenizer)
        added = self.tokenizer.get_added_tokens_decoder().values()
        self.special_tokens = [token.content for token in added if token.special]
        self.longest_token = max(map(len, vocabulary))
        """In characters, so that a text of n characters is at least n / longest_token tokens."""

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The token ids; with the special tokens that the tokenizer's own template adds, unless told otherwise."""
        return self.tokenizer.encode(text, add_special_tokens=special).ids

    def bytes_of(self, token_id: int) -> bytes:
        """A token's own bytes, not always valid UTF-8; of a special token its name, empty for an unknown one."""
        if self._bytes is not None and token_id < len(self._bytes) and self._bytes[token_id]:
            return self._bytes[token_id]
        token = self.tokenizer.id_to_token(token_id) or ""
        if match := BYTE_TOKEN.fullmatch(token):
            return bytes([int(match[1], 16)])
        return token.replace(SPACE, " ").encode()

    def detokenizer(self) -> Detokenizer:
        return WindowDetokenizer(self.tokenizer) if self._bytes is None else ByteDetokenizer(self._bytes)


class ByteDetokenizer:
    """For byte-level vocabularies. `token_bytes` by token id, empty for special tokens."""

    def __init__(self, token_bytes: list[bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        return self._decoder.decode(self._token_bytes[token_id] if token_id < len(self._token_bytes) else b"")

    def flush(self) -> str:
        return self._decoder.decode(b"", True)


class WindowDetokenizer:
    """For any vocabulary. Decodes the last few tokens twice, without and with the new one, and takes the difference:
    a decoder may treat a token differently at the start of a text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._token_ids: list[int] = []
        self._fresh = 0
        """Index of the first token whose text has not been returned."""

    def push(self, token_id: int) -> str:
        self._token_ids.append(token_id)
        before, text = self._decode(self._token_ids[: self._fresh]), self._decode(self._token_ids)
        if len(text) <= len(before) or text.endswith(REPLACEMENT):
            return ""
        self._token_ids = self._token_ids[self._fresh :]
        self._fresh = len(self._token_ids)
        return text[len(before) :]

    def flush(self) -> str:
        return self._decode(self._token_ids)[len(self._decode(self._token_ids[: self._fresh])) :]

    def _decode(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True))


def _check_ids(vocabulary: Mapping[str, int]) -> None:
    """Raises ValueError. A single id may stand for a table, and for a loop of `tokenizers`, of any length."""
    highest = max(vocabulary.values(), default=-1)
    if not 0 <= highest <= HIGHEST_TOKEN_ID:
        raise ValueError(f"tokenizer.json: the highest token id is {highest}, not from 0 to {HIGHEST_TOKEN_ID}")


def _token_bytes(tokenizer: Tokenizer) -> list[bytes] | None:
    """The bytes of each token by id; None unless the vocabulary is byte-level."""
    if (json.loads(tokenizer.to_str())["decoder"] or {}).get("type") != "ByteLevel":
        return None
    characters = _byte_characters()
    special = {token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    table = [b""] * (max(tokenizer.get_vocab().values()) + 1)
    for token, token_id in tokenizer.get_vocab().items():
        if token_id not in special:
            known = all(character in characters for character in token)
            table[token_id] = bytes(characters[c] for c in token) if known else token.encode()
    return table


def _byte_characters() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte (`bytes_to_unicode` in openai/gpt-2's encoder.py), inverted."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}
