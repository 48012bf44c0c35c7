"""Decoder graphs of the PagedAttention dialect: what decodes and what is prefilled go through the model together."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from services.worker.generation.config import ModelConfig
from services.worker.generation.decoder import Chunk, Lengths, TokenIds
from services.worker.generation.paged import graph
from services.worker.generation.paged.captured import NO_GRAPH, CapturedDecode, run_options
from services.worker.generation.paged.memory import BlockMemory
from services.worker.generation.paged.packing import Packed, pack, select
from services.worker.generation.paged.tables import BlockTable
from services.worker.session import Buffer, allocate, numpy_type, open_session

MOST_ROWS = 256
"""That the CUDA kernel of PagedAttention in ONNX Runtime 1.31 takes."""
LEAST_BLOCK = 16
NO_TOKENS = np.zeros((0, 1), np.int64)
NO_LENGTHS = np.zeros(0, np.int32)


class PagedDecoder:
    """Implements `decoder.Decoder`. Rows share the blocks in which their texts begin alike, unless `prefix_cache_bytes`
    is 0; whatever else it is, all memory that no row has is used for it. Nothing is copied when a row moves.

    `blocks`: how many there are of KV memory; unless given, as many as `kv_cache_bytes` hold, or enough for a whole
    context in each row. `block_size`: their
    positions, a power of two; unless given, what the kernel is fastest with. `captures`: whether decode runs are CUDA
    graphs. `transform`: see `graph.load`. Raises ValueError where that does not fit together.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        device: str,
        threads: int,
        captures: bool = False,
        transform: graph.Transform | None = None,
        blocks: int | None = None,
        block_size: int | None = None,
    ) -> None:
        if device == "cpu" and transform is None:
            raise ValueError("a graph with PagedAttention runs on a GPU: ONNX Runtime has no kernel for it on the CPU")
        if config.slots > MOST_ROWS:
            raise ValueError(f"PagedAttention takes {MOST_ROWS} rows at most, not {config.slots}")
        paged = graph.load(config.decoder, transform)
        size = block_size or fastest_block_size(paged.entry_shape[1], config.context_length)
        least = -(-config.context_length // size)
        count = blocks or _affordable(config, paged, size) or config.slots * least
        if count < least:
            raise ValueError(f"{count} blocks of {size} positions do not hold a context of {config.context_length}")
        self.table = BlockTable(config.slots, config.context_length, blocks=count, block_size=size)
        self._config, self._keeps = config.decoder, config.prefix_cache_bytes > 0
        self._session = open_session(
            paged.model,
            device=device,
            threads=threads,
            weights=config.decoder.graph.parent,
            captures=captures,
            arena_bytes=config.arena_bytes,
        )
        self._memory = BlockMemory(
            config.decoder.caches(), (count + 1, size, *paged.entry_shape), paged.cache_type, device
        )
        self._binding = self._session.io_binding()
        self._memory.bind(self._binding)
        vocabulary = config.decoder.vocabulary_size
        self.logits = allocate((config.slots, 1, vocabulary), paged.logits_type, device)
        self.chunk_logits = allocate((config.longest_run, 1, vocabulary), paged.logits_type, device)
        self._options = run_options(NO_GRAPH)
        self._captured = (
            CapturedDecode(self._session, config.decoder, self._memory, self.table, _flat(self.logits))
            if captures
            else None
        )

    @property
    def memory_bytes(self) -> int:
        return self._memory.size_bytes + self.logits.size_bytes + self.chunk_logits.size_bytes

    @property
    def room(self) -> float:
        return self.table.pool.free * self.table.block_size

    @property
    def blocks_total(self) -> int:
        return self.table.pool.count

    @property
    def blocks_in_use(self) -> int:
        """Those that sequences have; the others may still be found by their text."""
        return self.table.pool.count - self.table.pool.free

    @property
    def blocks(self) -> tuple[int, int]:
        return self.blocks_in_use, self.blocks_total

    @property
    def queried_tokens(self) -> int:
        return self.table.queried_tokens

    @property
    def hit_tokens(self) -> int:
        return self.table.hit_tokens

    def open(self, row: int, token_ids: TokenIds) -> int:
        return self.table.open(row, token_ids if self._keeps else token_ids[:0])

    def fork(self, source: int, target: int, length: int) -> None:
        self.table.fork(source, target, length)

    def reserve(self, row: int, length: int) -> bool:
        copies = self.table.reserve(row, length)
        if copies is None:
            return False
        self._memory.copy(copies)
        return True

    def run(self, token_ids: TokenIds, filled: Lengths, chunks: Sequence[Chunk]) -> None:
        if not len(token_ids) and not chunks:
            return
        if self._captured is not None and not chunks:
            self._captured.run(token_ids[:, 0], filled)
        else:
            packed = pack(token_ids, filled, chunks)
            self._run(packed, select(packed, len(token_ids), chunks), self.logits)
        self.table.wrote_each(filled, token_ids[:, 0])
        for chunk in chunks:
            self.table.wrote(chunk.row, chunk.start, chunk.token_ids)

    def run_all(self, chunk: Chunk) -> None:
        packed = pack(NO_TOKENS, NO_LENGTHS, [chunk])
        self._run(packed, np.arange(len(chunk.token_ids), dtype=np.int32), self.chunk_logits)
        self.table.wrote(chunk.row, chunk.start, chunk.token_ids, is_final=False)

    def move(self, source: int, target: int, filled: int) -> None:
        self.table.move(source, target)

    def close(self, row: int) -> None:
        self.table.close(row)

    def counters(self) -> Mapping[str, float]:
        return {"prefix_cache_queried_tokens": self.queried_tokens, "prefix_cache_hit_tokens": self.hit_tokens}

    def _run(self, packed: Packed, selected: Lengths, logits: Buffer) -> None:
        width = -(-packed.longest // self.table.block_size)
        binding = self._binding
        binding.bind_cpu_input(self._config.input_ids, packed.token_ids)
        binding.bind_cpu_input(graph.TABLE, self.table.entries[packed.rows, :width])
        binding.bind_cpu_input(graph.CUMULATIVE, packed.cumulative)
        binding.bind_cpu_input(graph.PAST, packed.past)
        binding.bind_cpu_input(graph.METADATA, packed.metadata)
        binding.bind_cpu_input(graph.SELECTED, selected)
        _flat(logits).bind_output(binding, self._config.logits, 0, len(selected))
        self._session.run_with_iobinding(binding, self._options)


def _flat(logits: Buffer) -> Buffer:
    """The same, as [rows, vocabulary]."""
    return dataclasses.replace(logits, shape=(logits.shape[0], logits.shape[2]))


def _affordable(config: ModelConfig, paged: graph.PagedGraph, block_size: int) -> int | None:
    """How many blocks `kv_cache_bytes` hold; None where it does not say."""
    if config.kv_cache_bytes is None:
        return None
    values = 2 * config.decoder.layers * block_size * math.prod(paged.entry_shape)
    return max(config.kv_cache_bytes // (values * numpy_type(paged.cache_type).itemsize), 1)


def fastest_block_size(head_size: int, context_length: int) -> int:
    """What fills a tile of FlashAttention's kernel over blocks, and no more than a context needs."""
    tile = 256 if head_size <= 64 else 128 if head_size <= 128 else 64
    return max(min(tile, 1 << (context_length.bit_length() - 1)), LEAST_BLOCK)
