"""Penalties for what a text holds already.

A token's logit l becomes l / r where l > 0 and l * r elsewhere, for the repetition penalty r of tokens in prompt or
output (Keskar and others 2019, arXiv:1909.05858), and then l - f * count - p for the frequency and presence penalties f
and p of tokens in the output.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from services.worker.generation.task import Sampling


class Penalties:
    """Of one completion: which tokens there are, and how often each is in the output."""

    def __init__(self, sampling: Sampling, prompt_ids: Sequence[int], max_tokens: int) -> None:
        self._sampling = sampling
        prompt = np.unique(np.array(prompt_ids, np.int64)) if sampling.repetition_penalty != 1.0 else np.zeros(0)
        self._token_ids = np.zeros(len(prompt) + max_tokens, np.int64)
        self._counts = np.zeros(len(self._token_ids), np.float32)
        self._token_ids[: len(prompt)] = prompt
        self._places = {token_id: place for place, token_id in enumerate(prompt.tolist())}

    def push(self, token_id: int) -> None:
        """A token of the output."""
        place = self._places.setdefault(token_id, len(self._places))
        self._token_ids[place] = token_id
        self._counts[place] += 1

    def edits(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(token ids, by what each logit is multiplied or divided, what is then taken from it)."""
        size, sampling = len(self._places), self._sampling
        counts = self._counts[:size]
        subtracted = sampling.frequency_penalty * counts + sampling.presence_penalty * (counts > 0)
        repetition = np.full(size, sampling.repetition_penalty, np.float32)
        return self._token_ids[:size], repetition, subtracted.astype(np.float32)
