"""Decoder graphs of the GroupQueryAttention dialect: each row has a slot of the cache, as long as the context."""

from collections.abc import Mapping, Sequence
from math import inf

import numpy as np

from services.worker.generation.config import ModelConfig
from services.worker.generation.decoder import Chunk, Lengths, TokenIds
from services.worker.generation.slot import graph, mixed
from services.worker.generation.slot.kv import Cache
from services.worker.generation.slot.prefix import PrefixCache
from services.worker.session import Buffer, allocate, open_session

NO_TOKENS, NO_LENGTHS = np.zeros((0, 1), np.int64), np.zeros(0, np.int32)


class SlotDecoder:
    """Implements `decoder.Decoder`.

    A run takes the rows that decode and one chunk. Where either is missing, one token in a slot beyond the last row
    stands in for it: that costs little beside reading the weights, and there is one graph. Further chunks are runs of
    their own.
    """

    def __init__(self, config: ModelConfig, *, device: str, threads: int) -> None:
        rewritten = graph.load(config.decoder, config.weights)
        if config.context_length > rewritten.most_positions:
            raise ValueError(
                f"context_length {config.context_length} is more than the graph's {rewritten.most_positions} positions"
            )
        folder, given = config.decoder.graph.parent, rewritten.weights
        arena = config.arena_bytes
        self._session = open_session(
            rewritten.model, device=device, threads=threads, weights=folder, given=given, arena_bytes=arena
        )
        self._binding = self._session.io_binding()
        self._config = config.decoder
        self._cache = Cache(config, element_type=rewritten.cache_type, device=device)
        self._prefixes = PrefixCache(
            self._cache, chunk=config.prefill_chunk_tokens, most_bytes=config.prefix_cache_bytes, rows=config.slots + 1
        )
        vocabulary = config.decoder.vocabulary_size
        self.logits = allocate((config.slots, 1, vocabulary), rewritten.logits_type, device)
        self.chunk_logits = allocate((config.longest_run, 1, vocabulary), rewritten.logits_type, device)
        self._idle = Chunk(config.slots, np.zeros(1, np.int64), 0, wanted=False)
        self._positions = config.decoder.position_ids if rewritten.takes_positions else None
        self._skips_head = rewritten.skips_head
        self._bound: tuple[int, int] | None = None

    @property
    def memory_bytes(self) -> int:
        return self._cache.memory_bytes + self.logits.size_bytes + self.chunk_logits.size_bytes

    @property
    def room(self) -> float:
        return inf

    @property
    def blocks(self) -> None:
        return None

    def open(self, row: int, token_ids: TokenIds) -> int:
        return self._prefixes.open(row, token_ids)

    def fork(self, source: int, target: int, length: int) -> None:
        self._prefixes.close(target)
        self._cache.move(source, target, length)

    def reserve(self, row: int, length: int) -> bool:
        return True

    def run(self, token_ids: TokenIds, filled: Lengths, chunks: Sequence[Chunk]) -> None:
        decoding, first = len(token_ids), chunks[0] if chunks else self._idle
        if decoding or chunks:
            wanted = [len(token_ids) + len(first.token_ids) - 1] if first.wanted else []
            self._run(token_ids, filled, first, [*range(decoding), *wanted], self.logits, 0 if decoding else first.row)
        for chunk in chunks[1:]:
            wanted = [len(chunk.token_ids) - 1] if chunk.wanted else []
            self._run(NO_TOKENS, NO_LENGTHS, chunk, wanted, self.logits, chunk.row)

    def run_all(self, chunk: Chunk) -> None:
        self._run(NO_TOKENS, NO_LENGTHS, chunk, range(len(chunk.token_ids)), self.chunk_logits, 0)

    def move(self, source: int, target: int, filled: int) -> None:
        self._cache.move(source, target, filled)
        self._prefixes.move(source, target)

    def close(self, row: int) -> None:
        self._prefixes.close(row)

    def counters(self) -> Mapping[str, float]:
        return self._prefixes.counters()

    def _run(
        self, token_ids: TokenIds, filled: Lengths, chunk: Chunk, wanted: Sequence[int], logits: Buffer, start: int
    ) -> None:
        """`wanted`: which tokens' logits go to the rows of `logits` from `start` on."""
        decoding = len(token_ids)
        if not decoding:
            token_ids, filled = self._idle.token_ids[np.newaxis], np.zeros(1, np.int32)
            wanted = [position + 1 for position in wanted]
        if not wanted and not self._skips_head:
            wanted, logits, start = [0], self.chunk_logits, 0
        self._bind(decoding, chunk.row)
        binding, size = self._binding, len(chunk.token_ids)
        inputs = {
            self._config.input_ids: np.concatenate((token_ids[:, 0], chunk.token_ids))[np.newaxis],
            mixed.SPLIT: np.array([len(token_ids), size], np.int64),
            mixed.LENGTHS: filled,
            mixed.TOTAL: filled.max(keepdims=True) + 1,
            mixed.CHUNK_LENGTHS: np.array([chunk.end - 1], np.int32),
            mixed.CHUNK_TOTAL: np.array([chunk.end], np.int32),
            graph.POSITIONS: np.array(wanted, np.int64),
        }
        if self._positions is not None:
            positions = np.concatenate((filled, np.arange(chunk.start, chunk.end)), dtype=np.int64)
            inputs[self._positions] = positions[np.newaxis]
        for name, value in inputs.items():
            binding.bind_cpu_input(name, value)
        logits.bind_line(binding, self._config.logits, start, len(wanted))
        self._session.run_with_iobinding(binding)
        self._prefixes.keep(chunk)

    def _bind(self, decoding: int, row: int) -> None:
        """The caches of the first rows and that of the chunk's, unless they are bound already."""
        if self._bound != (decoding, row):
            start, rows = (0, decoding) if decoding else (self._idle.row, 1)
            self._cache.bind(self._binding, start, rows)
            self._cache.bind(self._binding, row, 1, mixed.chunk_port)
            self._bound = (decoding, row)
