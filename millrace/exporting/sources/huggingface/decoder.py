"""Decoders: onnxruntime-genai's model builder makes the graph, genai_config.json and the tokenizer's files."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from onnxruntime import get_available_providers

from millrace.exporting import children, graphs
from millrace.exporting.built import Built
from millrace.exporting.order import Device, Dialect, Order, Precision
from millrace.exporting.packages import versions
from millrace.exporting.parity import Parity, limits
from millrace.exporting.sources.huggingface import located, twin
from millrace.exporting.sources.huggingface.architecture import GENERATION, Architecture, read_json
from millrace.exporting.stages import Stages

BUILDER = "millrace.exporting.sources.huggingface.builder"
CONFIG_FILE, TOKENIZER_FILE = "genai_config.json", "tokenizer.json"
KEPT = (CONFIG_FILE, TOKENIZER_FILE, "tokenizer_config.json", "chat_template.jinja", "model.onnx", "model.onnx.data")
MOST_CONTEXT = 4_096
"""That model.yaml asks for, whatever the graph could: each slot holds a whole one."""
SLOTS = 8
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""With two, torch 2.13 once computed the builder's table of cosines with errors of 1.5e-4."""


def build(source: Path, architecture: Architecture, order: Order, folder: Path, stages: Stages) -> Built:
    """Raises ValueError with the builder's last words where it fails."""
    with stages.stage("onnxruntime-genai's model builder"):
        _make(source, architecture, order, folder, stages)
    parity = _parity(source, architecture, order, folder, stages)
    context = int(read_json(folder / CONFIG_FILE)["model"]["context_length"])
    keys = {"slots": SLOTS, "context_length": min(context, MOST_CONTEXT)}
    return Built(
        parity=parity,
        task=GENERATION,
        engine="generation",
        graph=".",
        devices=(order.device.value,),
        keys=keys,
        facts=_facts(source, architecture, order, folder),
    )


def _make(source: Path, architecture: Architecture, order: Order, folder: Path, stages: Stages) -> None:
    """Graph, genai_config.json and the tokenizer's files. What the builder needs meanwhile lies beside the version."""
    cache, tail = folder.parents[1] / "cache", children.Tail(stages.say)
    if children.run(_command(source, architecture, order, folder, cache), tail, ONE_THREAD):
        raise ValueError(f"the model builder fails on {architecture.name}: {tail.last}")
    shutil.rmtree(cache, ignore_errors=True)
    _clean(folder)
    if order.precision is Precision.FP16 and order.device is Device.CPU:
        graphs.halve(folder / graphs.GRAPH_FILE)


def _command(source: Path, architecture: Architecture, order: Order, folder: Path, cache: Path) -> Sequence[str]:
    stored = "fp32" if (order.precision, order.device) == (Precision.FP16, Device.CPU) else order.precision.value
    options = [f"hf_remote={'true' if order.trust_code else 'false'}", "hf_token=false"]
    if architecture.name == "Qwen3ForCausalLM" and order.device is Device.CPU:
        options.append("fuse_qk_norm_gqa=false")
    if order.dialect is Dialect.PAGED:
        options += ["use_paged_attention=true", "prune_lm_head=true"]
    command = [sys.executable, "-m", BUILDER, "-i", str(source), "-o", str(folder), "-p", stored]
    return [*command, "-e", order.device.value, "-c", str(cache), "--extra_options", *options]


def _clean(folder: Path) -> None:
    """What the engine does not read goes, and what the graph says of this machine. Raises ValueError where something
    that it reads is missing."""
    for path in folder.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in (CONFIG_FILE, TOKENIZER_FILE, graphs.GRAPH_FILE):
        if not (folder / name).is_file():
            advice = ": save the tokenizer as a fast one" if name == TOKENIZER_FILE else ""
            raise ValueError(f"the model builder has written no {name}{advice}")
    graphs.strip(folder / graphs.GRAPH_FILE)


def unchecked(order: Order) -> str:
    """Why such a graph cannot be compared with transformers here; empty: it, or its twin, can."""
    if _runs_here(order) or order.precision in twin.PRECISIONS:
        return ""
    return f"a graph of {order.precision} weights for a GPU is compared on one, and there is none here"


def has_twin(order: Order) -> bool:
    """Whether another graph is built to be compared."""
    return not unchecked(order) and not _runs_here(order)


def _runs_here(order: Order) -> bool:
    is_plain = order.dialect is Dialect.GQA
    return is_plain and (order.device is Device.CPU or "CUDAExecutionProvider" in get_available_providers())


def _parity(source: Path, architecture: Architecture, order: Order, folder: Path, stages: Stages) -> Parity:
    if why := unchecked(order):
        return Parity(limits=limits(order.precision, order.tolerance), unchecked=why)
    from millrace.exporting.sources.huggingface import decoder_parity

    if _runs_here(order):
        with stages.stage("compare with transformers"):
            return decoder_parity.compare(source, order, folder)
    other = folder.parents[1] / "twin"
    with stages.stage("the same graph for a CPU"):
        _make(source, architecture, twin.order_of(order), other, stages)
        twin.check_weights(folder, other)
    with stages.stage("compare it with transformers"):
        parity = decoder_parity.compare(source, twin.order_of(order), other)
    shutil.rmtree(other)
    return replace(parity, note=twin.NOTE)


def _facts(source: Path, architecture: Architecture, order: Order, folder: Path) -> dict[str, str]:
    model = read_json(folder / CONFIG_FILE)["model"]
    decoder = model["decoder"]
    made = versions("torch", "transformers", "onnxruntime-genai")
    return {
        "Source": located.told(order, source),
        "Model": architecture.name,
        "Layers": str(decoder["num_hidden_layers"]),
        "Heads": f"{decoder['num_attention_heads']} over {decoder['num_key_value_heads']} of keys and values",
        "Vocabulary": f"{model['vocab_size']:,}",
        "Context": f"{model['context_length']:,} tokens",
        "Attention": "PagedAttention" if order.dialect is Dialect.PAGED else "GroupQueryAttention",
        "Framework": ", ".join(f"{name} {version}" for name, version in made.items()),
    }
