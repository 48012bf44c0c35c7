"""What a model of transformers is for, by its config.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millrace.exporting.order import Order

GENERATION, EMBEDDING = "text-generation", "text-embedding"
TEXT, IMAGE = "text-classification", "image-classification"
SOUND, SPEECH = "audio-classification", "speech-recognition"
TASKS = (GENERATION, EMBEDDING, TEXT, IMAGE, SOUND, SPEECH)
DECODERS = frozenset(
    {
        "GemmaForCausalLM",
        "Gemma2ForCausalLM",
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Phi3ForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
    }
)
"""That the model builder knows and `make parity` holds to transformers."""
ENDINGS = {
    "ForImageClassification": IMAGE,
    "ForAudioClassification": SOUND,
    "ForCTC": SPEECH,
    "ForMaskedLM": EMBEDDING,
    "Model": EMBEDDING,
}
CLASSIFIER = "ForSequenceClassification"
CONFIG, SOUND_CONFIG, MODULES = "config.json", "preprocessor_config.json", "modules.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A model's class in transformers, and what it is exported for."""

    name: str
    task: str
    config: Mapping[str, Any]


def read(folder: Path, order: Order) -> Architecture:
    """Raises ValueError, naming what works, where this architecture is not exported."""
    config = read_json(folder / CONFIG)
    names = config.get("architectures") or []
    name = str(names[0]) if names else ""
    task = order.task if order.task in TASKS else _task(folder, name, config)
    if task is None or (task == GENERATION and name not in DECODERS):
        raise ValueError(f"{name or CONFIG}: such a model is not exported here. {KNOWN}")
    return Architecture(name=name, task=task, config=config)


KNOWN = (
    f"Exported are the decoders {', '.join(sorted(DECODERS))}; encoders (…Model, …ForMaskedLM) for embeddings; "
    "…ForSequenceClassification, …ForImageClassification, …ForAudioClassification and …ForCTC"
)


def read_json(path: Path) -> dict[str, Any]:
    """Empty where there is no such file. Raises ValueError where it is no JSON object."""
    if not path.is_file():
        return {}
    try:
        read = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    if not isinstance(read, dict):
        raise ValueError(f"{path.name}: holds no object")
    return read


def _task(folder: Path, name: str, config: Mapping[str, Any]) -> str | None:
    if (folder / MODULES).is_file():
        return EMBEDDING
    if name.endswith("ForCausalLM"):
        return GENERATION
    if name.endswith(CLASSIFIER):
        return SOUND if "sampling_rate" in read_json(folder / SOUND_CONFIG) else TEXT
    if config.get("is_encoder_decoder"):
        return None
    return next((task for ending, task in ENDINGS.items() if name.endswith(ending)), None)
