"""What the folder of a model of texts, images or sounds says of itself: model.yaml's sections, labels, tokenizers'
settings and poolings, read by the real tasks."""

import json
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from millrace.engine import Engine, Work
from millrace.tensors import pack_bytes, unpack_bytes
from services.worker.batch import BatchEngine, graph
from services.worker.repository.model_file import Batching
from services.worker.tasks.front_end import SoundFields
from services.worker.tasks.image import ImageFields
from services.worker.tasks.labels import ClassFields
from services.worker.tasks.log_mel import LogMelFields
from services.worker.tasks.pooling import EmbeddingFields
from services.worker.tasks.text import TextFields
from tests.fuzz.folders import loaded
from tests.fuzz.models import MODELS, Small
from tests.fuzz.mutate import mutate_bytes
from tests.fuzz.target import Target
from tests.fuzz.texts import mutate_json, mutate_yaml
from tests.fuzz.typed import check_failure, run

MODEL_FILE, TOKENIZER = "model.yaml", "tokenizer.json"
TRIAL_S = 2.0
FILES: Mapping[str, Mapping[str, object]] = {
    "config.json": {"id2label": {"0": "a", "1": "b", "2": "c"}, "problem_type": "multi_label_classification"},
    "tokenizer_config.json": {"model_max_length": 48, "pad_token": {"content": "[PAD]"}},
    "sentence_bert_config.json": {"max_seq_length": 48, "do_lower_case": True},
    "1_Pooling/config.json": {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True},
}
MODULES = [
    {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
SECTIONS: Mapping[str, type[BaseModel]] = {
    "text": TextFields,
    "embedding": EmbeddingFields,
    "classes": ClassFields,
    "image": ImageFields,
    "sound": SoundFields,
    "log_mel": LogMelFields,
    "batching": Batching,
}
"""Of model.yaml; that of `log_mel` lies in `sound`."""
ODD: Sequence[object] = (
    *(0, 1, 2, 3, -1, 7, 8, 512, 8_192, 8_193, 65_536, 2**20, 2**31, 2**40, 2**62, 2**64, 1e-300, 0.1, 1.5, 1e9, 1e300),
    *(float("inf"), float("-inf"), float("nan"), True, None, "", "x", "logits", "batch", "frames", "../x"),
    *([], [1], [8, 8], [0.0], [1e308] * 3, [float("nan")], [-1, 8], {}, {"batch": 4}, {"frames": [1, 2]}, {"a": 2**62}),
)


class TaskFiles(Target):
    """An input is the name of a model, and one file of its folder by name and content; the others are in order."""

    name, share = "task-files", 1_000
    growth_bytes = 512 << 20

    def open(self, stack: ExitStack) -> None:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(graph, "TRIAL_S", TRIAL_S)
        self.root = Path(stack.enter_context(TemporaryDirectory()))

    @cached_property
    def folders(self) -> Mapping[str, Path]:
        """By model, its version's folder as it should be."""
        return {name: write(model) for name, model in MODELS.items()}

    @cached_property
    def samples(self) -> Sequence[bytes]:
        return [
            pack_bytes([name.encode(), file.relative_to(version).as_posix().encode(), file.read_bytes()])
            for name, version in self.folders.items()
            for file in sorted(version.rglob("*"))
            if file.is_file() and file.suffix in (".yaml", ".json", ".txt")
        ]

    @cached_property
    def known(self) -> Sequence[bytes]:
        """What is in order, and what was found."""
        found = [
            ("listener", "sound", "most_s", float("inf")),
            ("listener", "log_mel", "hop_samples", 2**62),
            ("transcriber", "sound", "overlap_s", float("inf")),
        ]
        return [*self.samples, *(self._with(*one) for one in found), *self._templates()]

    def _templates(self) -> Iterator[bytes]:
        """Of tokenizers: they name a token that they do not have."""
        for name in ("embedding", "labels"):
            tokenizer = json.loads((self.folders[name] / TOKENIZER).read_bytes())
            del tokenizer["post_processor"]["special_tokens"]["[CLS]"]
            yield pack_bytes([name.encode(), TOKENIZER.encode(), json.dumps(tokenizer).encode()])

    def _with(self, name: str, section: str, key: str, value: object) -> bytes:
        content = yaml.safe_dump(changed((self.folders[name] / MODEL_FILE).read_bytes(), section, key, value))
        return pack_bytes([name.encode(), MODEL_FILE.encode(), content.encode()])

    def mutant(self, dice: random.Random) -> bytes:
        name, file, content = unpack_bytes(dice.choice(self.samples))
        others = [parts[2] for parts in map(unpack_bytes, self.samples) if parts[1] == file]
        if file.endswith(b".yaml"):
            content = change_sections(dice, content) if dice.random() < 0.7 else mutate_yaml(dice, others)
        elif file.endswith(b".json"):
            content = mutate_json(dice, [content])
        else:
            content = mutate_bytes(dice, content, dice.choice((b"\n" * 9, b"\xff\0", *others)))
        return pack_bytes([name, file, content])

    def run(self, data: bytes) -> bool:
        """Whether the model is served, and answers a request."""
        head, file, content = unpack_bytes(data)
        model, source = MODELS[head.decode()], self.folders[head.decode()]
        with TemporaryDirectory(dir=self.root) as folder:
            version = Path(folder) / source.parent.name / source.name
            shutil.copytree(source, version)
            (version / file.decode()).write_bytes(content)
            engine = loaded(Path(folder))
            if engine is not None:
                probe(engine, model)
            return engine is not None


def probe(engine: Engine, model: Small) -> None:
    """A request in order has one end, whatever it is."""
    assert isinstance(engine, BatchEngine)
    if model.task not in engine.signature.tasks:
        return
    work = Work(lease="a", job="a", task=model.task, request=model.good)
    outputs = run(engine, {"a": work})["a"]
    if (failure := outputs[-1].failure) is not None:
        check_failure(failure, may_fail=True)


def write(model: Small) -> Path:
    """Its version's folder, with all files that it may have."""
    version = model.folder()
    if model.task == "embed":
        for name in ("tokenizer_config.json", "sentence_bert_config.json", "1_Pooling/config.json"):
            (version / name).parent.mkdir(exist_ok=True)
            (version / name).write_text(json.dumps(FILES[name]))
        (version / "modules.json").write_text(json.dumps(MODULES))
    elif not (version / "labels.txt").exists():
        (version / "config.json").write_text(json.dumps(FILES["config.json"]))
    return version


def change_sections(dice: random.Random, content: bytes) -> bytes:
    """A few keys of the sections that there are get another value, known keys which are not said among them."""
    file: Any = content
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        own = [name for name in SECTIONS if f"\n{name}:" in content.decode()] + ["log_mel"] * (b"log_mel" in content)
        section = dice.choice(own or list(SECTIONS))
        value = dice.choice((*ODD, dice.randrange(1, 50), dice.random()))
        file = changed(file, section, dice.choice(list(SECTIONS[section].model_fields)), value)
    return yaml.safe_dump(file).encode()


def changed(file: Any, section: str, key: str, value: object) -> Any:
    """model.yaml's content with another value."""
    file = yaml.safe_load(file) if isinstance(file, bytes) else file
    within = _inner(file, "sound") if section == "log_mel" else file
    _inner(within, section)[key] = value
    return file


def _inner(within: dict[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(within.get(key), dict):
        within[key] = {}
    inner: dict[str, Any] = within[key]
    return inner
