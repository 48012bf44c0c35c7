"""onnxruntime-genai's Generator in static batches, in an environment of its own.

    python -m bench.peers.genai SPEC.json RESULT.json

A batch runs until its longest text is done, so the prompts are sorted by what they want: the library at its best, since
nobody who serves knows that. All prompts have one length, as a batch without padding needs. The end of text is never
drawn.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime_genai as genai

from bench.completions import Completions
from bench.peers.specs import Batches


def generate(model: genai.Model, prompts: Sequence[Sequence[int]], tokens: int) -> tuple[list[list[int]], list[float]]:
    """So many tokens behind each prompt, and when each step's came."""
    length = len(prompts[0])
    params = genai.GeneratorParams(model)
    longest = length + tokens
    params.set_search_options(do_sample=False, batch_size=len(prompts), min_length=longest, max_length=longest)
    generator, times = genai.Generator(model, params), list[float]()
    generator.append_tokens(np.array(prompts, np.int32))
    found: list[list[int]] = [[] for _ in prompts]
    for _ in range(tokens):
        generator.generate_next_token()
        for row, token in zip(found, generator.get_next_tokens(), strict=True):
            row.append(int(token))
        times.append(time.perf_counter())
    return found, times


def measure(batches: Batches) -> Completions:
    model = genai.Model(batches.folder)
    generate(model, batches.prompts[: batches.rows], 2)
    order = sorted(range(len(batches.prompts)), key=lambda index: batches.tokens[index])
    token_ids: dict[int, list[int]] = {}
    times_s: dict[int, list[float]] = {}
    sent_s: dict[int, float] = {}
    free, began = [0.0] * batches.rows, time.perf_counter()
    for start in range(0, len(order), batches.rows):
        chosen = order[start : start + batches.rows]
        found, times = generate(model, [batches.prompts[index] for index in chosen], batches.tokens[chosen[-1]])
        for index, row in zip(chosen, found, strict=True):
            wanted = batches.tokens[index]
            token_ids[index], times_s[index] = row[:wanted], [at - began for at in times[:wanted]]
            sent_s[index] = free.pop(0)
            free.append(times_s[index][-1])
    count = range(len(order))
    return Completions(
        seconds=time.perf_counter() - began,
        sent_s=[sent_s[index] for index in count],
        times_s=[times_s[index] for index in count],
        token_ids=[token_ids[index] for index in count],
    )


def main() -> None:
    spec, result = sys.argv[1:]
    measured = measure(Batches(**json.loads(Path(spec).read_text())))
    Path(result).write_text(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
