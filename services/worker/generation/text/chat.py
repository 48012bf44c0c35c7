"""Chat templates: a conversation → the text that a model was trained on.

Templates are Jinja2, as Hugging Face stores them: chat_template.jinja in the model's folder, or else `chat_template` in
its tokenizer_config.json.

A template writes special tokens as text, and its result is encoded as it stands: without adding further ones, and with
special tokens recognised. In Hugging Face's own way of doing this, a content that spells such a token becomes that
token, so that whoever writes a content can end his turn and speak as somebody else. `ChatTemplate.pieces` prevents it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from services.worker import untrusted
from services.worker.generation.text.sandbox import compiled, metered

TEMPLATE_FILE, CONFIG_FILE = "chat_template.jinja", "tokenizer_config.json"
SPECIAL_TOKENS = tuple(f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
TEMPLATE_BYTES, CONFIG_BYTES = 256 << 10, 8 << 20
OUTPUT_CHARACTERS = 4 << 20
SENTENCE_CHARACTERS = 300
CUTS = tuple(map(chr, range(0xFDD0, 0xFDF0)))
"""Characters that Unicode keeps for a program's own use, so that they mean nothing in a text."""


class ChatError(Exception):
    """A conversation that the template refuses, or cannot render. The message is a sentence."""


class ChatTemplate:
    """A compiled template. It may be used on several threads at once."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """`special_tokens`: the template's variables like bos_token. Raises ValueError where it does not compile."""
        self._special_tokens = dict(special_tokens)
        try:
            if len(source) > TEMPLATE_BYTES:
                raise ValueError(f"it has more than {TEMPLATE_BYTES} characters")
            self._template = compiled(source)
        except (TemplateError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"the chat template does not compile: {_sentence(error)}") from None

    def render(self, messages: Sequence[tuple[str, str]], *, now: datetime | None = None) -> str:
        """The prompt up to where the model is to answer, from (role, content) pairs.

        It is to be encoded without adding special tokens: those that belong there are in it. A special token's text
        in a content becomes that token. `now`: what the template takes for the present; give a job's own moment, so
        that it has the same prompt wherever it is continued. Raises ChatError.
        """
        variables = {
            **self._special_tokens,
            "messages": [{"role": role, "content": content} for role, content in messages],
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
            "strftime_now": (now or datetime.now()).strftime,
        }
        try:
            with metered():
                return "".join(_bounded(self._template.generate(variables)))
        except ChatError:
            raise
        except Exception as error:
            raise ChatError(f"the chat template refuses the conversation: {_sentence(error)}") from None

    def pieces(
        self, messages: Sequence[tuple[str, str]], special_tokens: Iterable[str], *, now: datetime | None = None
    ) -> list[str]:
        """`render`, cut so that no content can spell a special token: each piece is to be encoded on its own, and their
        tokens are the prompt's. There is one piece unless a content has the text of one of these tokens (of two
        characters or more); then there is a border within that text, which is thus encoded as any other."""
        spelled = "|".join(re.escape(token) for token in special_tokens if len(token) > 1)
        contents = [content for _, content in messages]
        if not spelled or not any(re.search(spelled, content) for content in contents):
            return [self.render(messages, now=now)]
        cut = next((cut for cut in CUTS if not any(cut in content for content in contents)), None)
        if cut is None:
            raise ChatError(f"the contents hold special tokens and all of U+{ord(CUTS[0]):X} to U+{ord(CUTS[-1]):X}")
        starts = re.compile(f"(?s)(?={spelled})(.)")
        return self.render([(role, starts.sub(rf"\1{cut}", content)) for role, content in messages], now=now).split(cut)


def read_chat_template(folder: Path) -> ChatTemplate | None:
    """A model's own; None where its folder has none. Raises ValueError where a file is not in order."""
    file, settings = folder / TEMPLATE_FILE, folder / CONFIG_FILE
    config = untrusted.read_json(settings, CONFIG_BYTES) if settings.is_file() else {}
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG_FILE} is not an object")
    stored = untrusted.read_text(file, TEMPLATE_BYTES) if file.is_file() else None
    source = _default(config.get("chat_template")) if stored is None else stored
    tokens = {name: _token(config[name]) for name in SPECIAL_TOKENS if config.get(name) is not None}
    return None if source is None else ChatTemplate(source, tokens)


def _default(stored: Any) -> str | None:
    """Of one template, or of several by name."""
    if isinstance(stored, list):
        entries = [entry for entry in stored if isinstance(entry, dict) and entry.get("name") == "default"]
        stored = entries[0].get("template") if entries else None
    if stored is not None and not isinstance(stored, str):
        raise ValueError(f"{CONFIG_FILE}: chat_template is neither a text nor a list of named ones")
    return stored


def _token(stored: Any) -> str:
    text = stored.get("content") if isinstance(stored, dict) else stored
    if not isinstance(text, str):
        raise ValueError(f"{CONFIG_FILE}: a special token is neither a text nor an object with its content")
    return text


def _bounded(parts: Iterator[str]) -> Iterator[str]:
    characters = 0
    for part in parts:
        characters += len(part)
        if characters > OUTPUT_CHARACTERS:
            raise ChatError(f"the rendered conversation has more than {OUTPUT_CHARACTERS} characters")
        yield part


def _sentence(error: BaseException) -> str:
    text = " ".join((str(error) or type(error).__name__).split())
    return untrusted.printable(text[:SENTENCE_CHARACTERS])
