"""Typed requests to a batched graph: texts, images and sounds in, embeddings, labels and transcripts out.

model.yaml says how, so that a model needs no Python of its own; docs/models.md explains the keys.

    text-embedding         `text`, `embedding`             EmbedRequest
    text-classification    `text`, `classes`, `labels`     ClassifyRequest
    image-classification   `image`, `classes`, `labels`    ClassifyRequest
    audio-classification   `sound`, `classes`, `labels`    ClassifyRequest
    speech-recognition     `sound`, `labels`               TranscribeRequest

A model whose model.yaml lacks the section of its kind of input takes tensors only; texts do without one where there is
a tokenizer.json. The libraries of a task are loaded for models that need them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from millrace.engine import EngineContext
from services.worker import untrusted
from services.worker.batch.graph import Port, Ports
from services.worker.batch.processor import Processor

TOKENIZER_FILE = "tokenizer.json"
SECTIONS = ("text", "image", "sound")


def processors(context: EngineContext, ports: Ports) -> dict[str, Processor]:
    """By the requests that the model takes beside its tensors, as `Work.task` names them. Raises ValueError, naming the
    key of model.yaml that is wrong."""
    task = TASKS.get(context.config["task"])
    for section in SECTIONS:
        if context.config[section] is not None and (task is None or task.section != section):
            known = ", ".join(name for name, other in TASKS.items() if other.section == section)
            raise ValueError(f"{section}: is for the tasks {known}, and the model's is {context.config['task']}")
    if task is None or not _is_described(task.section, context):
        return {}
    return {task.request: task.build(context, ports)}


def takes_one(port: Port) -> bool:
    """Whether a single row may be given."""
    return bool(port.dims) and (port.dims[0] == 1 or isinstance(port.dims[0], str))


def _is_described(section: str, context: EngineContext) -> bool:
    if context.config[section] is not None:
        return True
    return section == "text" and untrusted.plain_file(context.folder / TOKENIZER_FILE)


def _embedding(context: EngineContext, ports: Ports) -> Processor:
    from services.worker.tasks import embedding

    return embedding.processor(context, ports)


def _text_classification(context: EngineContext, ports: Ports) -> Processor:
    from services.worker.tasks import text_classification

    return text_classification.processor(context, ports)


def _image_classification(context: EngineContext, ports: Ports) -> Processor:
    from services.worker.tasks import image_classification

    return image_classification.processor(context, ports)


def _sound_classification(context: EngineContext, ports: Ports) -> Processor:
    from services.worker.tasks import labels, sound_classification

    return sound_classification.processor(context, ports, labels.read(context, labels.find(context.config, ports)))


def _speech(context: EngineContext, ports: Ports) -> Processor:
    from services.worker.tasks import speech

    return speech.processor(context, ports)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A value of `task` in model.yaml."""

    section: str
    """What describes its input."""
    request: str
    build: Callable[[EngineContext, Ports], Processor]


TASKS = {
    "text-embedding": Task(section="text", request="embed", build=_embedding),
    "text-classification": Task(section="text", request="classify", build=_text_classification),
    "image-classification": Task(section="image", request="classify", build=_image_classification),
    "audio-classification": Task(section="sound", request="classify", build=_sound_classification),
    "speech-recognition": Task(section="sound", request="transcribe", build=_speech),
}
