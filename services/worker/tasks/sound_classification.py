"""The sounds of ClassifyRequests: decode → cut or pad → features → the labels' scores.

`processor` is all that others need. A sound is cut behind `sound.seconds`, or padded with silence to that; a graph
whose number of frames is fixed says itself how many. Where nothing is said, it is only cut, behind `sound.window_s`.
What lies behind is not even decoded.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError

from millrace.engine import EngineContext, Work
from millrace.v1.tasks_pb2 import ClassifyRequest, ClassifyResponse
from services.worker.batch.graph import Array, Port, Ports
from services.worker.batch.processor import Part, Processor, Rejected
from services.worker.tasks import sound
from services.worker.tasks.front_end import FrontEnd, SoundFields, read_fields
from services.worker.tasks.labels import Labels, find
from services.worker.tasks.sound import Samples


def processor(context: EngineContext, ports: Ports, labels: Labels) -> Processor:
    """For a model whose model.yaml has `sound`. Raises ValueError, naming the key that is wrong."""
    fields = read_fields(context.config)
    front_end = FrontEnd(fields, ports, context.config["batching"]["buckets"])
    return SoundClassification(fields, front_end, find(context.config, ports), labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound(Part):
    """The sound of one request."""

    top_k: int


class SoundClassification:
    """Implements `Processor`."""

    def __init__(self, fields: SoundFields, front_end: FrontEnd, output: Port, labels: Labels) -> None:
        """Raises ValueError where the graph does not take sounds of the length that the fields say."""
        self._fields, self._front_end, self._labels = fields, front_end, labels
        self._wanted = frozenset({output.name})
        self._least, self._most = _lengths(fields, front_end)

    def parts(self, work: Work) -> Iterator[Sound]:
        if work.results:
            return
        request = _parse(work.request)
        if request.WhichOneof("input") != "audio":
            raise Rejected(sound.FIELD, "is missing: the model labels sounds")
        blocks = sound.samples(request.audio, self._fields.sample_rate, self._fields.most_s)
        feed = self._front_end.feed(_beginning(blocks, self._most), self._least)
        sizes = self._front_end.sizes(feed)
        yield Sound(feed=feed, sizes=sizes, wanted=self._wanted, at_once=True, top_k=request.top_k)

    def respond(self, part: Part, outputs: Sequence[tuple[Port, Array]]) -> ClassifyResponse:
        assert isinstance(part, Sound)
        ((_, scores),) = outputs
        return self._labels.respond(scores[0], part.top_k)


def _beginning(blocks: Iterable[Samples], most: int) -> Samples:
    taken, size = [], 0
    for block in blocks:
        taken.append(block)
        size += len(block)
        if size >= most:
            break
    return np.concatenate(taken)[:most]


def _lengths(fields: SoundFields, front_end: FrontEnd) -> tuple[int, int]:
    """The fewest and the most samples that the graph gets. Raises ValueError."""
    if fields.seconds is None and front_end.fixed is None:
        return 0, round(fields.window_s * fields.sample_rate)
    if fields.seconds is None:
        length = front_end.samples(front_end.fixed or 0)
    else:
        length = round(fields.seconds * fields.sample_rate)
    if front_end.fixed not in (None, front_end.frames(length)):
        frames = front_end.frames(length)
        raise ValueError(f"sound.seconds: are {frames} frames, and the graph takes {front_end.fixed}")
    return length, length


def _parse(body: bytes) -> ClassifyRequest:
    try:
        return ClassifyRequest.FromString(body)
    except DecodeError:
        raise Rejected("", "the request is not a ClassifyRequest") from None
