"""Encoders and classifiers: a module whose inputs and outputs are what the worker's tasks make and read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.export import Dim
from transformers.utils import logging

from millrace.exporting import feeds, graphs
from millrace.exporting.built import Built
from millrace.exporting.feeds import Feed, Port, told
from millrace.exporting.order import Order, Precision
from millrace.exporting.packages import versions
from millrace.exporting.parity import Array, Comparison, Parity, limits
from millrace.exporting.parity import compare as compare_tensors
from millrace.exporting.sources import torch_graph
from millrace.exporting.sources.huggingface import beside, located
from millrace.exporting.sources.huggingface.architecture import EMBEDDING, IMAGE, SOUND, SPEECH, TEXT, Architecture
from millrace.exporting.sources.traced import Example
from millrace.exporting.stages import Stages

STATES, LOGITS = "last_hidden_state", "logits"
AUTO = {
    EMBEDDING: transformers.AutoModel,
    TEXT: transformers.AutoModelForSequenceClassification,
    IMAGE: transformers.AutoModelForImageClassification,
    SOUND: transformers.AutoModelForAudioClassification,
    SPEECH: transformers.AutoModelForCTC,
}
ROWS, SAMPLES = (1, 3, 5), (16_000, 24_000, 9_600)
"""Of random runs: texts, images and sounds of so many samples at a time."""
TOKENS, SIZE, SOUND_SIZE = "tokens", "size", "samples"


class Served(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """A model with the one output that is served. Its inputs are named one by one: torch.export wants to know them."""

    def __init__(self, model: Any, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def served(self, **inputs: Any) -> dict[str, Any]:
        """The output, by its name."""
        return {self.output: self.model(**inputs, return_dict=True)[self.output]}


class Texts(Served):
    """[rows, tokens]; `token_type_ids` where the model has any."""

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> dict[str, Any]:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.served(input_ids=input_ids, attention_mask=attention_mask, **types)


class Images(Served):
    """[rows, channels, height, width]."""

    def forward(self, pixel_values: Any) -> dict[str, Any]:
        return self.served(pixel_values=pixel_values)


class Sounds(Served):
    """[rows, samples]."""

    def forward(self, input_values: Any) -> dict[str, Any]:
        return self.served(input_values=input_values)


SERVED = {EMBEDDING: Texts, TEXT: Texts, IMAGE: Images, SOUND: Sounds, SPEECH: Sounds}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a model takes: an example of two rows, and which dimensions have any size."""

    example: Mapping[str, torch.Tensor]
    shapes: Mapping[str, Mapping[int, Any]]


def build(source: Path, architecture: Architecture, order: Order, folder: Path, stages: Stages) -> Built:
    """Raises ValueError where transformers cannot load the model, or the graph fails."""
    with stages.stage("read the model"):
        model = _load(source, architecture, order)
        inputs = _inputs(source, architecture)
        output = STATES if architecture.task == EMBEDDING else LOGITS
        served = SERVED[architecture.task](model, output).eval()
        traced = Example(module=served, inputs=inputs.example, shapes=inputs.shapes)
    with stages.stage("torch.export"):
        torch_graph.write(traced, folder)
        if order.precision is Precision.FP16:
            graphs.halve(folder / graphs.GRAPH_FILE)
    with stages.stage("compare with transformers"):
        parity = _compare(traced, source, architecture, order, folder)
    keys = beside.write(source, architecture, order, folder, output)
    return Built(parity=parity, task=architecture.task, keys=keys, facts=_facts(model, source, architecture, order))


def _load(source: Path, architecture: Architecture, order: Order) -> Any:
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        return (
            AUTO[architecture.task]
            .from_pretrained(
                source,
                dtype=torch.float32,
                attn_implementation="eager",
                trust_remote_code=order.trust_code,
                use_safetensors=None if order.trust_pickle else True,
            )
            .eval()
        )
    except (ValueError, OSError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        advice = "; --trust-code runs the code that comes with it" if "trust_remote_code" in str(error) else ""
        raise ValueError(f"transformers cannot load {source.name}: {first}{advice}") from error


def _inputs(source: Path, architecture: Architecture) -> Inputs:
    batch = Dim(graphs.BATCH)
    if architecture.task == IMAGE:
        shape = (2, *beside.image_shape(source, architecture))
        return Inputs(example={"pixel_values": torch.zeros(shape)}, shapes={"pixel_values": {0: batch}})
    if architecture.task in (SOUND, SPEECH):
        samples = {"input_values": {0: batch, 1: Dim(SOUND_SIZE)}}
        return Inputs(example={"input_values": torch.zeros(2, SAMPLES[0])}, shapes=samples)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if beside.has_types(source, architecture) else [])]
    tokens = Dim(TOKENS, max=beside.max_tokens(source, architecture))
    example = {name: torch.ones(2, 8, dtype=torch.int64) for name in names}
    if "token_type_ids" in example:
        example["token_type_ids"] = torch.zeros(2, 8, dtype=torch.int64)
    return Inputs(example=example, shapes={name: {0: batch, 1: tokens} for name in names})


def _compare(traced: Example, source: Path, architecture: Architecture, order: Order, folder: Path) -> Parity:
    opened = graphs.session(folder / graphs.GRAPH_FILE)
    ports = graphs.inputs(opened)
    comparisons: list[Comparison] = []
    for feed in _feeds(source, architecture, order, ports):
        expected = torch_graph.run(traced, {name: torch.from_numpy(one) for name, one in feed.tensors.items()})
        found = graphs.run(opened, feed.tensors)
        comparisons += compare_tensors(feed.given, expected, found, best=architecture.task != EMBEDDING)
    return Parity(limits=limits(order.precision, order.tolerance), comparisons=comparisons)


def _feeds(source: Path, architecture: Architecture, order: Order, ports: tuple[Port, ...]) -> Iterator[Feed]:
    if architecture.task in (EMBEDDING, TEXT):
        yield from _texts(source, architecture, order, ports)
        return
    lengths = SAMPLES if architecture.task in (SOUND, SPEECH) else feeds.LENGTHS
    yield from feeds.random_feeds(ports, rows=ROWS, lengths=lengths)
    if order.samples is not None:
        yield feeds.read_samples(order.samples, ports)


def _texts(source: Path, architecture: Architecture, order: Order, ports: tuple[Port, ...]) -> Iterator[Feed]:
    """Random tokens, of which the last rows have padding behind them, and the texts of `--samples`."""
    dice = np.random.default_rng(feeds.SEED)
    longest = beside.max_tokens(source, architecture)
    names = {port.name for port in ports}
    for rows, tokens in zip(ROWS, feeds.LENGTHS, strict=True):
        tokens = min(tokens, longest)
        shape, counts = (rows, tokens), np.linspace(tokens, max(tokens // 2, 1), rows).astype(np.int64)
        given: dict[str, Array] = {
            "input_ids": dice.integers(0, architecture.config["vocab_size"], shape),
            "attention_mask": (np.arange(tokens) < counts[:, None]).astype(np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }
        yield Feed(given=told(rows, tokens), tensors={name: one for name, one in given.items() if name in names})
    if order.samples is not None:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=order.trust_code)
        texts = feeds.read_texts(order.samples)[:64]
        made = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="np")
        tensors = {name: np.asarray(made[name], np.int64) for name in names}
        yield Feed(given=f"samples, {told(*tensors['input_ids'].shape)}", tensors=tensors)


def _facts(model: Any, source: Path, architecture: Architecture, order: Order) -> dict[str, str]:
    made = versions("torch", "transformers", "onnxscript")
    return {
        "Source": located.told(order, source),
        "Model": type(model).__name__,
        "Weights": f"{sum(one.numel() for one in model.parameters()):,}",
        "Framework": ", ".join(f"{name} {version}" for name, version in made.items()),
    }
