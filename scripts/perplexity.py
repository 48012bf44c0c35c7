"""What fewer bits cost: the perplexity of models/pycode as it is stored and under each scheme, on the held-out files of
its card, and how long the scoring takes.

    python -m scripts.perplexity [--tokens 20000] [--threads 2]
"""

import argparse
import time
from pathlib import Path

import onnx
import onnxruntime as ort

from examples.text import data, evaluate, tokenizer
from services.worker.generation.slot.quantise import Scheme, quantise

MODEL = Path(__file__).parent.parent / "models" / "pycode" / "1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, help="only so many of the held-out tokens")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    words = tokenizer.load(MODEL)
    lengths = tokenizer.token_bytes(words)
    stream = tokenizer.encode(words, data.read_corpus().held_out)[: arguments.tokens]
    stored = None
    for scheme in (None, *Scheme):
        graph, start = open_graph(scheme, arguments.threads), time.perf_counter()
        score = evaluate.score(graph.costs(stream), stream, lengths)
        seconds = time.perf_counter() - start
        stored = stored or score.perplexity
        change = score.perplexity / stored - 1
        print(f"{scheme or 'stored':>7} {score.perplexity:8.4f} {change:+8.2%} {score.tokens} tokens {seconds:6.1f} s")


def open_graph(scheme: Scheme | None, threads: int) -> evaluate.Graph:
    """The model with its weights as they are stored, or in fewer bits."""
    graph = evaluate.Graph(MODEL, threads)
    if scheme is not None:
        model = onnx.load(MODEL / "model.onnx", load_external_data=False)
        arrays = quantise(model, MODEL, scheme)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(MODEL))
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
        options.add_external_initializers(list(arrays), values)
        graph.session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return graph


if __name__ == "__main__":
    main()
