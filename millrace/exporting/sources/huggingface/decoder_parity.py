"""A decoder's graph beside transformers: the logits of whole prompts, and greedy text token by token over its cache."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from millrace.exporting import feeds, graphs
from millrace.exporting.feeds import told
from millrace.exporting.order import Device, Order
from millrace.exporting.parity import Array, Comparison, Parity, Tensors, limits
from millrace.exporting.parity import compare as compare_tensors
from millrace.exporting.sources.huggingface.architecture import read_json

SIZES = ((1, 1), (2, 9), (3, 40))
"""Rows and tokens of random prompts."""
PROMPT_TOKENS, GREEDY_TOKENS = 8, 24
MOST_TEXTS, MOST_TEXT_TOKENS = 8, 256
LOGITS = "logits"
Ids = Sequence[Sequence[int]]


class Graph:
    """The decoder's graph in ONNX Runtime, by genai_config.json."""

    def __init__(self, folder: Path, device: Device) -> None:
        model = read_json(folder / "genai_config.json")["model"]
        decoder = model["decoder"]
        self._inputs, self._outputs = decoder["inputs"], decoder["outputs"]
        self._layers = range(decoder["num_hidden_layers"])
        self._heads, self._head_size = int(decoder["num_key_value_heads"]), int(decoder["head_size"])
        self.vocabulary, self.context = int(model["vocab_size"]), int(model["context_length"])
        providers = ("CUDAExecutionProvider",) if device is Device.CUDA else ("CPUExecutionProvider",)
        self._session: ort.InferenceSession = graphs.session(folder / graphs.GRAPH_FILE, providers)
        self._ports = {port.name: port for port in graphs.inputs(self._session)}

    def empty(self, rows: int) -> dict[str, Array]:
        """A cache of no tokens."""
        names = [pattern % layer for layer in self._layers for pattern in self._pasts]
        return {name: np.zeros((rows, self._heads, 0, self._head_size), self._ports[name].dtype) for name in names}

    def run(self, ids: Array, cache: Mapping[str, Array], seen: int) -> tuple[Array, dict[str, Array]]:
        """`ids`: [rows, tokens], behind `seen` others. The logits [rows, tokens, vocabulary], and the cache."""
        rows, tokens = ids.shape
        given = {
            self._inputs["input_ids"]: ids,
            self._inputs.get("attention_mask", ""): np.ones((rows, seen + tokens), np.int64),
            self._inputs.get("position_ids", ""): np.tile(np.arange(seen, seen + tokens), (rows, 1)),
        }
        taken = {name: one.astype(self._ports[name].dtype) for name, one in given.items() if name in self._ports}
        found: Tensors = graphs.run(self._session, {**taken, **cache})
        kept = {
            past % layer: found[present % layer]
            for layer in self._layers
            for past, present in zip(self._pasts, self._presents, strict=True)
        }
        return found[self._outputs["logits"]], kept

    @property
    def _pasts(self) -> tuple[str, str]:
        return self._inputs["past_key_names"], self._inputs["past_value_names"]

    @property
    def _presents(self) -> tuple[str, str]:
        return self._outputs["present_key_names"], self._outputs["present_value_names"]


def compare(source: Path, order: Order, folder: Path) -> Parity:
    """On random prompts and on the texts of `--samples`. Raises ValueError where the graph fails."""
    graph = Graph(folder, order.device)
    logging.disable_progress_bar()
    model: Any = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=torch.float32,
        attn_implementation="eager",
        trust_remote_code=order.trust_code,
        use_safetensors=None if order.trust_pickle else True,
    ).eval()
    comparisons = [*_prompts(model, graph), *_greedy(model, graph)]
    for index, ids in enumerate(_texts(source, order, graph)):
        comparisons += _prompt(model, graph, f"text {index + 1}, {ids.shape[1]}", ids)
    return Parity(limits=limits(order.precision, order.tolerance), comparisons=comparisons)


def _prompts(model: Any, graph: Graph) -> Iterator[Comparison]:
    dice = np.random.default_rng(feeds.SEED)
    for rows, tokens in SIZES:
        tokens = min(tokens, graph.context)
        yield from _prompt(model, graph, told(rows, tokens), dice.integers(0, graph.vocabulary, (rows, tokens)))


def _prompt(model: Any, graph: Graph, given: str, ids: Array) -> Iterator[Comparison]:
    with torch.inference_mode():
        expected = np.asarray(model(torch.from_numpy(ids)).logits)
    found, _ = graph.run(ids, graph.empty(len(ids)), 0)
    yield from compare_tensors(given, {LOGITS: expected}, {LOGITS: found}, best=True)


def _greedy(model: Any, graph: Graph) -> Iterator[Comparison]:
    """Tokens that transformers chooses, given to the graph one by one: its choices behind each of them."""
    prompt = np.random.default_rng(feeds.SEED + 1).integers(0, graph.vocabulary, (1, PROMPT_TOKENS))
    count = min(GREEDY_TOKENS, graph.context - PROMPT_TOKENS)
    if count < 1:
        return
    model.generation_config.eos_token_id = None
    given = torch.from_numpy(prompt)
    with torch.inference_mode():
        ids = np.asarray(
            model.generate(given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=count)
        )
        expected = np.asarray(model(torch.from_numpy(ids)).logits)[:, PROMPT_TOKENS - 1 : -1]
    logits, cache = graph.run(prompt, graph.empty(1), 0)
    found = [logits[:, -1:]]
    for seen in range(PROMPT_TOKENS, ids.shape[1] - 1):
        logits, cache = graph.run(ids[:, seen : seen + 1], cache, seen)
        found.append(logits)
    yield from compare_tensors(
        f"greedy, {count}", {LOGITS: expected}, {LOGITS: np.concatenate(found, axis=1)}, best=True
    )


def _texts(source: Path, order: Order, graph: Graph) -> Iterator[Array]:
    """The tokens of the given texts, [1, tokens] each."""
    if order.samples is None:
        return
    tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=order.trust_code)
    for text in feeds.read_texts(order.samples)[:MOST_TEXTS]:
        ids = tokenizer(text)["input_ids"][: min(MOST_TEXT_TOKENS, graph.context)]
        if ids:
            yield np.array([ids], np.int64)
