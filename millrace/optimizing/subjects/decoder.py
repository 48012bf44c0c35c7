"""Decoders: perplexity over a text's windows; steps of one token for each row, over a cache in place."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from millrace.evaluating.data.rows import FORMATS
from millrace.exporting import graphs as exported
from millrace.exporting.parity import Array, Tensors
from millrace.optimizing.subjects.rows import read_text, read_texts
from millrace.optimizing.subjects.subject import Metric
from millrace.optimizing.version import Version

WINDOW_TOKENS = 512
PAST_TOKENS = 256
RANDOM_WINDOWS = 2
MOST_WINDOWS = 64
PROBES = 4
"""Windows that logits are compared on."""
DEFAULT_SLOTS = 32


class DecoderSubject:
    """Raises ValueError for a decoder that is no graph over rows with a cache of keys and values."""

    unit = "tokens"

    def __init__(self, version: Version, session: ort.InferenceSession, data: Path | None) -> None:
        assert version.decoder is not None
        self._version, self._session, self._decoder = version, session, version.decoder
        self._ports = {port.name: port for port in exported.inputs(session)}
        self.metric = Metric.PERPLEXITY if data is not None else None
        self._windows = self._of_text(data) if data is not None else self._random()

    def row_counts(self) -> list[int]:
        most = int(self._version.described.get("slots", DEFAULT_SLOTS))
        return [rows for rows in (1, 2, 4, 8, 16, 32) if rows <= most]

    def probe(self) -> Iterator[Tensors]:
        for window in self._windows[:PROBES]:
            yield {self._decoder.logits: self._logits(window)}

    def judge(self) -> Iterator[tuple[float, int]]:
        for window in self._windows:
            found = log_probabilities(self._logits(window)[0, :-1], window[1:])
            yield -float(found.sum()), len(window) - 1

    def repeat(self, rows: int) -> Callable[[], object]:
        """Past and present share their memory, as in a worker, so that a step writes one position."""
        past = min(PAST_TOKENS, self._decoder.context_length // 2)
        feed, binding = self._feed(np.ones((rows, 1), np.int64), past=past, room=past + 1), self._session.io_binding()
        device = self._version.device
        values = {name: ort.OrtValue.ortvalue_from_numpy(array, device, 0) for name, array in feed.items()}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for before, after in zip(self._decoder.past, self._decoder.present, strict=True):
            binding.bind_ortvalue_output(after, values[before])
        binding.bind_output(self._decoder.logits, device)
        return lambda: self._session.run_with_iobinding(binding)

    def _logits(self, window: Array) -> Array:
        """[1, tokens, vocabulary]"""
        (logits,) = self._session.run([self._decoder.logits], dict(self._feed(window[None], past=0)))
        found: Array = logits
        return found

    def _feed(self, ids: Array, *, past: int, room: int = 0) -> Tensors:
        """Inputs of tokens [rows, tokens] behind `past` positions; the cache has `room` for more."""
        rows, tokens = ids.shape
        made: dict[str, Array] = {
            self._decoder.input_ids: ids,
            "attention_mask": np.ones((rows, past + tokens), np.int64),
            "position_ids": np.tile(np.arange(past, past + tokens), (rows, 1)),
        }
        cache = (rows, self._decoder.kv_heads, max(past, room), self._decoder.head_size)
        made |= {name: np.zeros(cache, self._ports[name].dtype) for name in self._decoder.past}
        if unknown := self._ports.keys() - made.keys():
            raise ValueError(f"the decoder takes {', '.join(sorted(unknown))}, which is not known here")
        return {name: made[name].astype(port.dtype) for name, port in self._ports.items()}

    def _of_text(self, path: Path) -> list[Array]:
        """Each window on its own, behind the token that begins a text."""
        from tokenizers import Tokenizer

        file = self._version.graph.parent / "tokenizer.json"
        if not file.is_file():
            raise ValueError(f"{path.name}: texts need {file.name} in the model's folder")
        text = "\n".join(read_texts(path)[0]) if path.suffix.lower() in FORMATS else read_text(path)
        ids = Tokenizer.from_file(str(file)).encode(text, add_special_tokens=False).ids
        begin = [] if self._decoder.bos_token_id is None else [self._decoder.bos_token_id]
        step = min(WINDOW_TOKENS, self._decoder.context_length) - len(begin)
        windows = [np.array(begin + ids[start : start + step]) for start in range(0, len(ids), step)]
        if not (found := [window for window in windows if len(window) > 1]):
            raise ValueError(f"{path.name}: fewer than two tokens")
        return found[:MOST_WINDOWS]

    def _random(self) -> list[Array]:
        dice, length = np.random.default_rng(5), min(WINDOW_TOKENS, self._decoder.context_length)
        (vocabulary,) = [port.dims[-1] for port in exported.outputs(self._session) if port.name == self._decoder.logits]
        most = vocabulary if isinstance(vocabulary, int) else 256
        return [dice.integers(0, most, length) for _ in range(RANDOM_WINDOWS)]


def log_probabilities(logits: Array, wanted: Array) -> npt.NDArray[np.float64]:
    """Of the tokens `wanted` [tokens], from logits [tokens, vocabulary]."""
    values = logits.astype(np.float64)
    highest = values.max(axis=-1, keepdims=True)
    totals = np.log(np.exp(values - highest).sum(axis=-1)) + highest[:, 0]
    found: npt.NDArray[np.float64] = values[np.arange(len(wanted)), wanted] - totals
    return found
