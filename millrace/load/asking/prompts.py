"""Texts and files that a scenario names, read once before anything is sent."""

import json
from pathlib import Path

from millrace.load.scenario import Requests

DEFAULT = "Once upon a time there was a mill by the river."
JSON_LINES = frozenset({".jsonl", ".ndjson"})


def read_texts(requests: Requests) -> list[str]:
    """The prompts that are taken in turn: those of the file, the one that is given, or `DEFAULT`. Raises ValueError."""
    if requests.prompt is not None and requests.prompts is not None:
        raise ValueError("give requests.prompt or requests.prompts, not both")
    if requests.prompts is None:
        return [requests.prompt if requests.prompt is not None else DEFAULT]
    lines = read_file("requests.prompts", requests.prompts).decode("utf-8", "replace").splitlines()
    is_json = requests.prompts.suffix in JSON_LINES
    texts = [
        _prompt(line, f"{requests.prompts}, line {number}") if is_json else line
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not texts:
        raise ValueError(f"requests.prompts: {requests.prompts} holds no prompts")
    return texts


def read_file(field: str, path: Path) -> bytes:
    """Raises ValueError that names the field and the file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{field}: {path}: {error.strerror}") from error


def _prompt(line: str, place: str) -> str:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    prompt = fields.get("prompt") if isinstance(fields, dict) else None
    if not isinstance(prompt, str) or not prompt:
        raise ValueError(f"{place}: no object with a text under `prompt`")
    return prompt
