"""Each kind of run once, so that no job pays for what the runtime sets up on first use."""

import itertools

import numpy as np

from services.worker.generation.decoder import Chunk, Decoder
from services.worker.generation.rows import Rows
from services.worker.generation.sampling.sampler import Sampler
from services.worker.generation.task import Sampling

NOTHING = np.zeros((0, 1), np.int64)


def warm_up(decoder: Decoder, sampler: Sampler, rows: Rows) -> None:
    """Leaves all rows free, and what stands in their arrays of no meaning."""
    count = len(rows.filled)
    for row in range(count):
        decoder.open(row, NOTHING[:, 0])
        decoder.reserve(row, 2)
    first = Chunk(0, np.zeros(1, np.int64), 0, wanted=True)
    decoder.run(NOTHING, rows.filled[:0], [first])
    decoder.run_all(first)
    for temperature, top_k, edited in itertools.product((0.0, 1.0), (0, 1), (False, True)):
        sampling = Sampling(temperature=temperature, top_k=top_k, top_p=1.0, min_p=0.0, seed=0)
        for row in range(count):
            rows.place(row, sampling, filled=1, position=0)
        for size in (1, count):
            edits = sampler.edits()
            if edited:
                edits.ban(0, (0,))
            decoder.run(rows.token_ids[:size], rows.filled[:size], ())
            sampler.sample(rows, size, edits)
    for row in range(count):
        decoder.close(row)
