"""The engine, and what its tokens were drawn from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.engine import EngineContext
from services.worker.generation import GenerationEngine
from services.worker.generation.engine import Plan
from services.worker.repository import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """A token, of no meaning where it was replayed, and the logits [vocabulary] that it was drawn from."""

    token_id: int
    logits: npt.NDArray[np.float32]


class WatchedEngine(GenerationEngine):
    """Keeps all draws, by lease and by position in the completion."""

    def __init__(self, context: EngineContext) -> None:
        self.draws: dict[tuple[str, int], Draw] = {}
        super().__init__(context)

    def _sample(self, plan: Plan) -> npt.NDArray[np.int64]:
        token_ids = super()._sample(plan)
        for slot, sequence in enumerate(self._table.occupants[: plan.rows]):
            logits = self._decoder.logits.owner[slot, 0].copy()
            self.draws[sequence.task.lease, sequence.position] = Draw(token_id=int(token_ids[slot]), logits=logits)
        return token_ids

    def cache(self, lease: str) -> tuple[int, bytes]:
        """How many positions of a job are in the cache, between steps, and what stands there."""
        sequence, slot = self._by_lease[lease], self.slot(lease)
        layers = [buffer.owner[slot, :, : sequence.filled].tobytes() for buffer in self._decoder.cache._buffers]
        return sequence.filled, b"".join(layers)

    def slot(self, lease: str) -> int:
        """Where a job stands between steps."""
        return self._table.occupants.index(self._by_lease[lease])


def watched(model: Model, **changed: Any) -> WatchedEngine:
    """With one thread. `changed`: what its model.yaml says otherwise."""
    config = model.file.model_copy(update=changed).model_dump()
    config["step_tokens"] = config["step_tokens"] or config["prefill_chunk_tokens"]
    return WatchedEngine(EngineContext(folder=model.folder, config=config, device="cpu", threads=1))
