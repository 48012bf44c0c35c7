"""EmbedRequests: texts → tokens → runs → one vector for each text.

`processor` is all that others need. The texts of a request are sorted by their lengths and run a few at a time, no more
than a run has rows, and none beside one of more than twice its length: so padding costs little, and other jobs' texts
share these runs and need not wait for all of them. The job's one response follows its last run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError

from millrace.engine import EngineContext, Work
from millrace.v1.tasks_pb2 import EmbedRequest, EmbedResponse
from services.worker.batch.graph import Array, Port, Ports
from services.worker.batch.processor import Failed, Part, Processor, Rejected
from services.worker.tasks import pooling
from services.worker.tasks.pooling import Pooling, Vector
from services.worker.tasks.text import TextFields, TextFrontEnd, Tokens, read_fields

ADVICE = "set truncate, and what lies behind them is left out"


def processor(context: EngineContext, ports: Ports) -> Processor:
    """For a model with a tokenizer.json. Raises ValueError, naming the key of model.yaml that is wrong."""
    fields = read_fields(context.config)
    front_end = TextFrontEnd(fields, context, ports)
    most_rows = context.config["batching"]["max_rows"] if ports.batched else 1
    return Embedding(fields, front_end, pooling.read(context, ports), most_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts(Part):
    """Some of a request's texts."""

    places: Sequence[int]
    """Of the texts in the request."""
    lengths: Sequence[int]
    """In tokens, all of the request's."""
    found: dict[int, Vector]
    """By place; shared by the parts of one job, each of which adds its own."""


class Embedding:
    """Implements `Processor`."""

    def __init__(self, fields: TextFields, front_end: TextFrontEnd, pooling: Pooling, most_rows: int) -> None:
        self._fields, self._front_end, self._pooling, self._most_rows = fields, front_end, pooling, most_rows
        self._wanted = frozenset({pooling.output.name})

    def parts(self, work: Work) -> Iterator[Texts]:
        if work.results:
            return
        texts = self._read(_parse(work.request))
        lengths, runs = [len(text) for text in texts], list(self._runs(texts))
        found: dict[int, Vector] = {}
        for index, places in enumerate(runs):
            yield Texts(
                feed=self._front_end.feed([texts[place] for place in places]),
                wanted=self._wanted,
                last=index == len(runs) - 1,
                at_once=True,
                places=places,
                lengths=lengths,
                found=found,
            )

    def respond(self, part: Part, outputs: Sequence[tuple[Port, Array]]) -> EmbedResponse | None:
        assert isinstance(part, Texts)
        ((_, rows),) = outputs
        for place, row in zip(part.places, rows, strict=True):
            vector = self._pooling(row, part.lengths[place])
            if not np.isfinite(vector).all():
                raise Failed(f"the model's embedding of texts[{place}] is not finite")
            part.found[place] = vector
        if not part.last:
            return None
        response = EmbedResponse(tokens=sum(part.lengths))
        for place in range(len(part.lengths)):
            response.embeddings.add(values=part.found[place].tolist())
        return response

    def _read(self, request: EmbedRequest) -> list[Tokens]:
        """Raises Rejected."""
        if not 1 <= len(request.texts) <= self._fields.max_texts:
            raise Rejected("texts", f"must be 1 to {self._fields.max_texts}, not {len(request.texts)}")
        return [
            self._front_end.tokens(text, f"texts[{place}]", truncate=request.truncate, advice=ADVICE)
            for place, text in enumerate(request.texts)
        ]

    def _runs(self, texts: Sequence[Tokens]) -> Iterator[list[int]]:
        """The places of those that run together, the longest texts first."""
        run: list[int] = []
        for place in sorted(range(len(texts)), key=lambda place: -len(texts[place])):
            if run and (len(run) == self._most_rows or not self._share(len(texts[place]), len(texts[run[0]]))):
                yield run
                run = []
            run.append(place)
        yield run

    def _share(self, tokens: int, longest: int) -> bool:
        length, other = self._front_end.length(tokens), self._front_end.length(longest)
        return length == other or (self._front_end.pads and 2 * length >= other)


def _parse(body: bytes) -> EmbedRequest:
    try:
        return EmbedRequest.FromString(body)
    except DecodeError:
        raise Rejected("", "the request is not an EmbedRequest") from None
