"""The model itself: one decode run over many rows, or one chunk of one prompt."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from services.worker.generation import graph
from services.worker.generation.config import ModelConfig
from services.worker.generation.kv import Cache
from services.worker.session import allocate, open_session


class Decoder:
    """The rewritten graph with its cache. Both kinds of run leave logits in `logits` [slots, 1, vocabulary], each
    sequence's in the row of its slot.

    The CPU kernel of GroupQueryAttention in ONNX Runtime 1.31 takes several tokens a row behind a past for one row
    only, and one token a row, each with its own length, for any number of rows; hence two kinds of run.
    """

    def __init__(self, config: ModelConfig, *, device: str, threads: int) -> None:
        rewritten = graph.load(config.decoder)
        self._session = open_session(
            rewritten.model, device=device, threads=threads, weights=config.decoder.graph.parent
        )
        self._config = config.decoder
        self._total = np.zeros(1, np.int32)
        self._length = np.zeros(1, np.int32)
        self._bindings: dict[tuple[int, int], ort.IOBinding] = {}
        self.cache = Cache(config, element_type=rewritten.cache_type, device=device)
        self.logits = allocate((config.slots, 1, config.decoder.vocabulary_size), rewritten.logits_type, device)

    @property
    def memory_bytes(self) -> int:
        """Of the cache and the logits, on the device."""
        return self.cache.memory_bytes + self.logits.size_bytes

    def decode(self, token_ids: npt.NDArray[np.int64], filled: npt.NDArray[np.int32]) -> None:
        """One token [rows, 1] for each of the first slots, which hold `filled` [rows] positions before the run."""
        self._total[0] = filled.max() + 1
        self._run(0, len(token_ids), token_ids, filled)

    def prefill(self, slot: int, token_ids: npt.NDArray[np.int64], filled: int) -> None:
        """A chunk of tokens [tokens] for one slot, which holds `filled` positions before the run."""
        self._total[0] = filled + len(token_ids)
        self._length[0] = filled + len(token_ids) - 1
        self._run(slot, 1, token_ids[np.newaxis], self._length)

    def _run(self, slot: int, rows: int, token_ids: npt.NDArray[np.int64], lengths: npt.NDArray[Any]) -> None:
        binding = self._bindings.get((slot, rows)) or self._bind(slot, rows)
        binding.bind_cpu_input(self._config.input_ids, token_ids)
        binding.bind_cpu_input(graph.LENGTHS, lengths)
        binding.bind_cpu_input(graph.TOTAL, self._total)
        self._session.run_with_iobinding(binding)

    def _bind(self, slot: int, rows: int) -> ort.IOBinding:
        binding = self._bindings[slot, rows] = self._session.io_binding()
        self.cache.bind(binding, slot, rows)
        self.logits.bind_output(binding, self._config.logits, slot, rows)
        return binding
