"""Decode runs as CUDA graphs: a run's launches are recorded once and replayed, where they cost more than what they
launch.

A graph replays whatever was recorded: shapes, addresses, and what the host had said of lengths. Hence there is a run
for one row and for each power of two, over inputs that stay where they are; rows beyond those that decode hold nothing
and write to nobody's block.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from services.worker.generation.config import DecoderConfig
from services.worker.generation.decoder import Lengths, TokenIds
from services.worker.generation.paged import graph
from services.worker.generation.paged.memory import BlockMemory
from services.worker.generation.paged.tables import NOBODYS, BlockTable
from services.worker.session import Buffer

GRAPH = "gpu_graph_id"
NO_GRAPH = "-1"


def run_options(number: str) -> ort.RunOptions:
    """For runs of a session that captures: which graph a run is; `NO_GRAPH` for one that is none."""
    options = ort.RunOptions()
    options.add_run_config_entry(GRAPH, number)
    return options


class CapturedDecode:
    """For up to as many rows as there are logits. `logits`: [rows, vocabulary]."""

    def __init__(
        self,
        session: ort.InferenceSession,
        config: DecoderConfig,
        memory: BlockMemory,
        table: BlockTable,
        logits: Buffer,
    ) -> None:
        self._table = table
        self._runs = [FixedRun(session, config, memory, table, logits, rows) for rows in sizes(logits.shape[0])]

    def run(self, token_ids: TokenIds, filled: Lengths) -> None:
        """One token [rows] for each of the first rows, which hold `filled` [rows] positions."""
        rows = len(token_ids)
        fitting = next(run for run in self._runs if run.rows >= rows)
        fitting.run(token_ids, filled, self._table.entries[:rows])


class FixedRun:
    """A run of exactly so many rows, recorded when it is made."""

    def __init__(
        self,
        session: ort.InferenceSession,
        config: DecoderConfig,
        memory: BlockMemory,
        table: BlockTable,
        logits: Buffer,
        rows: int,
    ) -> None:
        self.rows = rows
        self._session, self._options = session, run_options(str(rows))
        self._token_ids = np.zeros(rows, np.int64)
        self._past = np.zeros(rows, np.int32)
        self._entries = np.full((rows, table.width), NOBODYS, np.int32)
        one_each = np.arange(rows + 1, dtype=np.int32)
        longest = table.width * table.block_size
        self._binding = session.io_binding()
        memory.bind(self._binding)
        logits.bind_output(self._binding, config.logits, 0, rows)
        self._binding.bind_cpu_input(graph.METADATA, np.array([1, longest, 1], np.int32))
        self._fixed = [
            self._bind(graph.CUMULATIVE, one_each, logits.device),
            self._bind(graph.SELECTED, one_each[:rows].copy(), logits.device),
        ]
        self._moving: dict[str, tuple[npt.NDArray[Any], ort.OrtValue]] = {
            name: (array, self._bind(name, array.copy(), logits.device))
            for name, array in (
                (config.input_ids, self._token_ids),
                (graph.PAST, self._past),
                (graph.TABLE, self._entries),
            )
        }
        self.run(self._token_ids[:0], self._past[:0], self._entries[:0])

    def run(self, token_ids: TokenIds, filled: Lengths, entries: npt.NDArray[np.int32]) -> None:
        """For the first rows; the others hold nothing."""
        news: list[npt.NDArray[Any]] = [token_ids, filled, entries]
        for (array, value), given in zip(self._moving.values(), news, strict=True):
            array[: len(given)] = given
            array[len(given) :] = NOBODYS
            value.update_inplace(array)
        self._session.run_with_iobinding(self._binding, self._options)

    def _bind(self, name: str, array: npt.NDArray[Any], device: str) -> ort.OrtValue:
        value = ort.OrtValue.ortvalue_from_numpy(array, device, 0)
        self._binding.bind_ortvalue_input(name, value)
        return value


def sizes(rows: int) -> list[int]:
    """1, 2, 4, … and all."""
    return [*(1 << power for power in range((rows - 1).bit_length())), rows]
