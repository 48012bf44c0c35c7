"""The engine, and what its tokens were drawn from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.engine import EngineContext
from services.worker.generation import GenerationEngine
from services.worker.generation.plan import Plan
from services.worker.generation.sequence import Sequence
from services.worker.generation.slot.decoder import SlotDecoder
from services.worker.repository import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """A token, of no meaning where it was replayed, and the logits [vocabulary] that it was drawn from."""

    token_id: int
    logits: npt.NDArray[np.float32]


class WatchedEngine(GenerationEngine):
    """Keeps all draws, by lease and by position in the first completion."""

    def __init__(self, context: EngineContext) -> None:
        self.draws: dict[tuple[str, int], Draw] = {}
        super().__init__(context)

    def _sample(self, plan: Plan) -> npt.NDArray[np.int64]:
        token_ids = super()._sample(plan)
        for row, sequence in enumerate(self._table.occupants[: plan.rows]):
            logits = self._decoder.logits.owner[row, 0].copy()
            if not sequence.index:
                self.draws[sequence.task.lease, sequence.position] = Draw(token_id=int(token_ids[row]), logits=logits)
        return token_ids

    def cache(self, lease: str) -> tuple[int, bytes]:
        """How many positions of a job are in the cache, between steps, and what stands there."""
        assert isinstance(self._decoder, SlotDecoder)
        sequence, row = self._first(lease), self.slot(lease)
        layers = [buffer.owner[row, :, : sequence.filled].tobytes() for buffer in self._decoder._cache._buffers]
        return sequence.filled, b"".join(layers)

    def slot(self, lease: str) -> int:
        """Where a job stands between steps."""
        return self._table.row(self._first(lease))

    def _first(self, lease: str) -> Sequence:
        return self._jobs[lease].sequences[0]


def watched(model: Model, **changed: Any) -> WatchedEngine:
    """With one thread, and no guesses. `changed`: what its model.yaml says otherwise."""
    config = model.file.model_copy(update={"speculative_tokens": 0} | changed).model_dump()
    config["step_tokens"] = config["step_tokens"] or config["prefill_chunk_tokens"]
    return WatchedEngine(EngineContext(folder=model.folder, config=config, device="cpu", threads=1))
