"""What fewer bits cost: the perplexity of models/pycode as it is stored, with its matrices under each scheme, and with
an int8 KV cache, on the held-out files of its card, and how long the scoring takes.

    python -m scripts.perplexity [--tokens 20000] [--threads 2]
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from examples.text import data, evaluate, tokenizer
from examples.text.tokenizer import CONTEXT_TOKENS, Tokens
from services.worker.generation.slot.quantise import Scheme, quantise

MODEL = Path(__file__).parent.parent / "models" / "pycode" / "1"
CALIBRATED_WINDOWS = 8
SCALES_INPUT = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, help="only so many of the held-out tokens")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    words = tokenizer.load(MODEL)
    lengths = tokenizer.token_bytes(words)
    corpus = data.read_corpus()
    stream = tokenizer.encode(words, corpus.held_out)[: arguments.tokens]
    calibration = tokenizer.encode(words, corpus.train[:60])
    stored = None
    for name, graph in contestants(calibration, arguments.threads):
        start = time.perf_counter()
        score = evaluate.score(graph.costs(stream), stream, lengths)
        seconds = time.perf_counter() - start
        stored = stored or score.perplexity
        change = score.perplexity / stored - 1
        print(f"{name:>10} {score.perplexity:8.4f} {change:+8.2%} {score.tokens} tokens {seconds:6.1f} s", flush=True)


def contestants(calibration: Tokens, threads: int) -> Iterator[tuple[str, evaluate.Graph]]:
    stored = evaluate.Graph(MODEL, threads)
    yield "stored", stored
    for scheme in Scheme:
        model = onnx.load(MODEL / "model.onnx", load_external_data=False)
        yield str(scheme), opened(model, threads, quantise(model, MODEL, scheme))
    model = onnx.load(MODEL / "model.onnx", load_external_data=False)
    round_cache(model.graph, peaks(stored, calibration))
    yield "int8 cache", opened(model, threads, {}, np.int8)


def opened(
    model: onnx.ModelProto,
    threads: int,
    given: dict[str, npt.NDArray[Any]],
    cache_type: type[np.generic] = np.float32,
) -> evaluate.Graph:
    graph = evaluate.Graph(MODEL, threads)
    graph.cache_type = cache_type
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(MODEL))
    if given:
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in given.values()]
        options.add_external_initializers(list(given), values)
    graph.session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return graph


def peaks(graph: evaluate.Graph, stream: Tokens) -> dict[str, float]:
    """The largest value that each cache held of some text that the model was trained on."""
    starts = range(0, CALIBRATED_WINDOWS * CONTEXT_TOKENS, CONTEXT_TOKENS)
    windows = [graph.run(stream[None, start : start + CONTEXT_TOKENS])[1] for start in starts]
    return {
        name: max(float(np.abs(window[index]).max()) for window in windows)
        for index, name in enumerate(graph.past_names)
    }


def round_cache(graph: onnx.GraphProto, peaks: dict[str, float]) -> None:
    """Makes keys and values of each layer int8, with one scale each."""
    for name, peak in peaks.items():
        graph.initializer.append(numpy_helper.from_array(np.array([peak / 127], np.float32), f"{name}/scale"))
    for node in (node for node in graph.node if node.op_type == "GroupQueryAttention"):
        node.input.extend([""] * (SCALES_INPUT - len(node.input)))
        node.input.extend(f"{past}/scale" for past in node.input[3:5])
        rounding: dict[str, Any] = {"k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR", "kv_cache_bit_width": 8}
        node.attribute.extend(helper.make_attribute(key, value) for key, value in rounding.items())
    for port in (*graph.input, *graph.output):
        if port.name.startswith(("past_key_values.", "present.")):
            port.type.tensor_type.elem_type = TensorProto.INT8
    del graph.value_info[:]


if __name__ == "__main__":
    main()
