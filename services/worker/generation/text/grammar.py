"""Constrained output: which tokens may come next, so that the text becomes what a request's `OutputFormat` says.

llguidance reads JSON Schema, regular expressions and Lark grammars, and walks an Earley parser over the vocabulary's
bytes. Its lexers are built while they are needed, within limits; hence both compiling and a step can fail, and neither
takes long. A grammar that is new is first compiled in another process, for what it may do there. Compiled grammars are
not kept: llguidance's copies share one lexer and its limits, so that a grammar would wear out with use. Only the
completions of one job share one.

A grammar says nothing of how a text ends: the model's end-of-sequence tokens are added here where it may.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher
from tokenizers import Tokenizer

from millrace.v1.generation_pb2 import OutputFormat
from services.worker.generation.text.trial import Trial, Words, start

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

FIELD = "output_format"
SOURCE_BYTES = 256 << 10
"""Of a schema, an expression, a grammar, or all choices together."""
REMEMBERED = 4_096
"""Grammars that need no further trial."""
MESSAGE_CHARACTERS = 300
NO_TOKEN = "no token of the model continues the text as its output format demands"
NOTHING_FOLLOWS = "NoExtensionBias"
"""In llguidance's words."""
JSON_OPTIONS: "JsonCompileOptions" = {
    "item_separator": ",",
    "key_separator": ":",
    "whitespace_flexible": True,
    "whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,64}",
    "coerce_one_of": False,
    "lenient": False,
}
"""As in vLLM, white space may stand wherever JSON allows it, but for the borders of the text; here at most 64
characters of it at once, so that no model loses itself in it. These win over a schema's own "x-guidance"."""
BYTE_DECODER = {
    "type": "Sequence",
    "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}],
}
HOLE = "\ufdd0hole {}"
"""The text of an id that no token has; none of them is ever allowed."""


class GrammarError(Exception):
    """An output format that cannot be used. `field` of the request; the message is a sentence."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class GrammarOverrun(Exception):
    """In the middle of a text, the grammar became too complex to go on with, or left no token of the vocabulary."""


class Grammars:
    """Compiles the output formats of one model. It may be used on several threads at once."""

    def __init__(self, tokenizer: Tokenizer, vocabulary_size: int, eos_token_ids: tuple[int, ...]) -> None:
        """`vocabulary_size`: the model's, in which the tokenizer may have no token for some ids. Raises ValueError
        where the tokenizer is of a kind whose tokens are not known to stand for bytes."""
        self._tokens = _Tokens(tokenizer, vocabulary_size, eos_token_ids)
        self._trial = Trial(self._tokens.words)
        self._tried = OrderedDict[bytes, None]()
        self._lock = threading.Lock()

    def compile(self, output_format: OutputFormat) -> "Grammar":
        """The state before the first token. Raises GrammarError."""
        kind, source = _source(output_format)
        try:
            serialised = _serialised(kind, source)
        except ValueError as error:
            raise GrammarError(f"{FIELD}.{kind}", _sentence(kind, str(error))) from None
        if not self._survives(serialised):
            raise GrammarError(f"{FIELD}.{kind}", f"the {_named(kind)} cannot be used: it takes too much to compile")
        matcher = start(self._tokens.tokenizer, serialised)
        if _first_line(matcher.get_error()) == NOTHING_FOLLOWS:
            raise GrammarError(f"{FIELD}.{kind}", f"no text satisfies the {_named(kind)}")
        if matcher.is_error():
            raise GrammarError(f"{FIELD}.{kind}", _sentence(kind, matcher.get_error()))
        return Grammar(matcher, self._tokens)

    def _survives(self, serialised: str) -> bool:
        digest = sha256(serialised.encode()).digest()
        with self._lock:
            known = digest in self._tried
        if not known and not self._trial.survives(serialised):
            return False
        with self._lock:
            self._tried[digest] = None
            self._tried.move_to_end(digest)
            if len(self._tried) > REMEMBERED:
                self._tried.popitem(last=False)
        return True


class Grammar:
    """The state of one completion, used by one thread at a time."""

    __slots__ = ("_ended", "_matcher", "_tokens")

    def __init__(self, matcher: LLMatcher, tokens: "_Tokens") -> None:
        self._matcher = matcher
        self._tokens = tokens
        self._ended = False

    def fork(self) -> "Grammar":
        """A copy at the same state that goes its own way; what may be built for the one and its copies is bounded for
        all of them together."""
        copy = Grammar(self._matcher.deep_copy(), self._tokens)
        copy._ended = self._ended
        return copy

    def fill(self, mask: npt.NDArray[np.uint8]) -> None:
        """Sets bit i % 8, from the lowest, of byte i // 8 where token i may come next, and clears the others; [bytes],
        an eighth of the vocabulary rounded up. End-of-sequence tokens may come where the text may end, or where a
        grammar names them, and nothing else where it must end. Raises GrammarOverrun."""
        if self.is_complete:
            mask[:] = self._tokens.ends
            return
        allowed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        np.bitwise_and(allowed[: len(mask)], self._tokens.usable, out=mask)
        if self._matcher.is_accepting():
            np.bitwise_or(mask, self._tokens.ends, out=mask)
        elif not mask.any():
            raise GrammarOverrun(NO_TOKEN)

    def accept(self, token_id: int) -> bool:
        """Goes on behind a token; False, and nothing has changed, where it was not allowed. Raises GrammarOverrun."""
        self._check()
        if token_id in self._tokens.eos_token_ids:
            self._ended = self._ended or self._may_end_with(token_id)
            return self._ended
        if self.is_complete or not self._tokens.is_usable(token_id):
            return False
        accepted = self._matcher.try_consume_tokens([token_id]) == 1
        self._check()
        return accepted

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end may follow."""
        return self._ended or (self._matcher.is_stopped() and not self._matcher.is_error())

    def _may_end_with(self, eos_token_id: int) -> bool:
        """At the end of the text, and where a grammar names the token itself."""
        if self._matcher.is_accepting():
            return True
        mask = np.zeros_like(self._tokens.usable)
        self.fill(mask)
        return bool(mask[eos_token_id // 8] >> eos_token_id % 8 & 1)

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = _first_line(self._matcher.get_error())
            if reason == NOTHING_FOLLOWS:
                raise GrammarOverrun(NO_TOKEN)
            raise GrammarOverrun(f"the output format became too complex in the middle of the text: {reason}")


class _Tokens:
    """A vocabulary for llguidance, and masks over it, [bytes]."""

    def __init__(self, tokenizer: Tokenizer, vocabulary_size: int, eos_token_ids: tuple[int, ...]) -> None:
        known = set(tokenizer.get_vocab().values())
        special = {token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        size = max(vocabulary_size, max(known, default=0) + 1)
        end = min(known.intersection(eos_token_ids) or special or known)
        try:
            self.words = Words(tokenizer=_described(tokenizer, known), size=size, end=end)
            self.tokenizer = self.words.load()
        except BaseException as error:
            if not isinstance(error, ValueError) and type(error).__name__ != "PanicException":
                raise
            raise ValueError(f"tokenizer.json does not say which bytes its tokens are: {error}") from None
        self.eos_token_ids = frozenset(eos_token_ids)
        self.usable = _mask(known - ({end, *eos_token_ids} - special), vocabulary_size)
        self.ends = _mask(eos_token_ids, vocabulary_size)

    def is_usable(self, token_id: int) -> bool:
        byte, bit = divmod(token_id, 8)
        return 0 <= byte < len(self.usable) and bool(self.usable[byte] >> bit & 1)


def _mask(token_ids: Iterable[int], vocabulary_size: int) -> npt.NDArray[np.uint8]:
    bits = np.zeros(vocabulary_size, np.bool_)
    bits[[token_id for token_id in token_ids if token_id < vocabulary_size]] = True
    return np.packbits(bits, bitorder="little")


def _described(tokenizer: Tokenizer, known: set[int]) -> str:
    """tokenizer.json as llguidance can read it: a token for every id below the highest, and a decoder that it knows."""
    text, holes = tokenizer.to_str(), set(range(max(known))) - known
    if not holes and '"Metaspace"' not in text:
        return text
    document = json.loads(text)
    vocabulary = document["model"]["vocab"]
    if holes and isinstance(vocabulary, dict):
        vocabulary.update({token["content"]: token["id"] for token in document["added_tokens"]})
        vocabulary.update({HOLE.format(token_id): token_id for token_id in sorted(holes)})
    if {"Metaspace", "ByteFallback"} <= {part["type"] for part in (document["decoder"] or {}).get("decoders", ())}:
        document["decoder"] = BYTE_DECODER
    return json.dumps(document)


def _source(output_format: OutputFormat) -> tuple[str, str]:
    """(the field, what stands there as one text)."""
    kind = output_format.WhichOneof("format")
    if kind is None:
        raise GrammarError(FIELD, "there is no output format")
    if kind == "choices":
        texts = output_format.choices.texts
        if not texts:
            raise GrammarError(f"{FIELD}.choices", "there is nothing to choose from")
        source = "|".join(map(_quoted, texts))
    else:
        source = getattr(output_format, kind)
    if len(source.encode()) > SOURCE_BYTES:
        raise GrammarError(f"{FIELD}.{kind}", f"it has more than {SOURCE_BYTES} bytes")
    return kind, source


def _quoted(text: str) -> str:
    return re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", text)


def _serialised(kind: str, source: str) -> str:
    if kind == "json_schema":
        return LLMatcher.grammar_from_json_schema(source, overrides=JSON_OPTIONS)
    if kind == "grammar":
        return json.dumps({"grammars": [{"name": kind, "lark_grammar": source}]})
    return LLMatcher.grammar_from_regex(source)


def _sentence(kind: str, error: str) -> str:
    """Of what llguidance says, which draws pictures of where and shows its own state."""
    named = re.search(r"^error: (.+)$", error, re.MULTILINE)
    return f"the {_named(kind)} cannot be used: {_first_line(named[1] if named else error)}"[:MESSAGE_CHARACTERS]


def _named(kind: str) -> str:
    return {"json_schema": "JSON Schema", "regex": "regular expression"}.get(kind, kind)


def _first_line(error: str) -> str:
    return " ".join(error.partition("\n")[0].split())[:MESSAGE_CHARACTERS]
