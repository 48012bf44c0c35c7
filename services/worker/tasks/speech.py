"""TranscribeRequests to a CTC model: sound → windows → scores of each frame → text.

`processor` is all that others need. Each window is a part of the job and becomes one response, so that a transcript
streams while it is found, and goes on at the next window after the death of a worker. The texts, one behind the other,
are the transcript: a space between two words lies in the one or the other. A response's start and end are those of its
first and last symbol; where it has none, those of what was listened to. Labels like <unk> are no text.

Which frame of the output is which moment of the sound is told by how many there are: graphs make one for every so many
of the input, their stride. Windows begin at multiples of a unit that a stride divides: of 48 frames of features, or
15360 samples of a waveform. Say `sound.stride` where the graph's own does not divide that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from millrace.engine import EngineContext, Work
from millrace.v1.tasks_pb2 import TranscribeRequest, TranscribeResponse
from services.worker import untrusted
from services.worker.batch.graph import Array, Port, Ports
from services.worker.batch.processor import Failed, Part, Processor, Rejected
from services.worker.tasks import sound
from services.worker.tasks.ctc import Alphabet, Window, Windows, stride_of
from services.worker.tasks.front_end import FLOATS, FrontEnd, SoundFields, find, read_fields

FRAMES_UNIT, SAMPLES_UNIT = 48, 15_360
LABELS_BYTES = 8 << 20
NANOSECONDS = 10**9


def processor(context: EngineContext, ports: Ports) -> Processor:
    """For a model whose model.yaml has `sound` and, in `labels`, the symbols of its output. Raises ValueError, naming
    the key that is wrong."""
    fields = read_fields(context.config)
    front_end = FrontEnd(fields, ports, context.config["batching"]["buckets"])
    output = find(ports.outputs, fields.output, FLOATS, "output")
    if len(output.dims) != 3:
        raise ValueError(f"sound.output: {output.name} has the shape {list(output.dims)}, not [rows, frames, labels]")
    if front_end.bucketed and fields.stride is None:
        raise ValueError("sound.stride: must be given where there are buckets, which hide how long a sound is")
    symbols = _symbols(context, output)
    try:
        alphabet = Alphabet(symbols, fields.blank, fields.word_separator)
    except ValueError as error:
        raise ValueError(f"sound.blank: {error}") from None
    return Transcription(fields, front_end, output, alphabet)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch(Part):
    """A window of a sound, as the graph takes it."""

    window: Window


class Transcription:
    """Implements `Processor`."""

    def __init__(self, fields: SoundFields, front_end: FrontEnd, output: Port, alphabet: Alphabet) -> None:
        """Raises ValueError where windows cannot be cut as the fields say."""
        self._fields, self._front_end, self._alphabet = fields, front_end, alphabet
        self._wanted = frozenset({output.name})
        self._unit = fields.stride or (SAMPLES_UNIT if fields.features == "waveform" else FRAMES_UNIT)
        length, overlap = (round(seconds * fields.sample_rate) for seconds in (fields.window_s, fields.overlap_s))
        if front_end.fixed is not None:
            length = front_end.samples(front_end.fixed)
        try:
            self._windows = Windows(length=length, overlap=overlap, unit=self._unit * front_end.hop)
        except ValueError as error:
            key = "window_s" if front_end.fixed is None else "overlap_s"
            raise ValueError(f"sound.{key}: {error}") from None

    def parts(self, work: Work) -> Iterator[Stretch]:
        request = _parse(work.request)
        self._check_language(request.language)
        blocks = sound.samples(request.audio, self._fields.sample_rate, self._fields.most_s)
        for index, window in enumerate(self._windows.cut(blocks)):
            if index >= len(work.results):
                yield self._stretch(window)

    def respond(self, part: Part, outputs: Sequence[tuple[Port, Array]]) -> TranscribeResponse:
        assert isinstance(part, Stretch)
        ((_, scores),) = outputs
        window, labels = part.window, self._alphabet.best(scores[0])
        frame = self._samples_of_frame(window, len(labels))
        end = self._frames(window, frame, len(labels))
        if np.isnan(scores[0, :end]).any():
            raise Failed("the model's scores are not numbers")
        found = self._alphabet.collapse(labels, min((window.keep_from - window.start) // frame, end), end)
        response = TranscribeResponse(text=_text(self._alphabet.text(found.labels), window))
        starts, ends = window.keep_from, window.keep_to
        if found.labels:
            starts = min(window.start + found.start * frame, window.start + len(window.samples))
            ends = min(window.start + found.end * frame, window.start + len(window.samples))
        response.start.CopyFrom(self._moment(starts))
        response.end.CopyFrom(self._moment(ends))
        return response

    def _check_language(self, language: str) -> None:
        """Raises Rejected. A model for "de" takes "de-CH" too, and one for "de-CH" takes "de"."""
        own = self._fields.language
        if language and own is None:
            raise Rejected("language", "leave it empty: the model does not say which languages it knows")
        if language and own and language.lower().split("-")[0] != own.lower().split("-")[0]:
            raise Rejected("language", f"the model transcribes {own}")

    def _stretch(self, window: Window) -> Stretch:
        feed = self._front_end.feed(window.samples)
        sizes = self._front_end.sizes(feed)
        return Stretch(feed=feed, sizes=sizes, wanted=self._wanted, last=window.last, at_once=True, window=window)

    def _samples_of_frame(self, window: Window, outputs: int) -> int:
        frames = self._front_end.fixed or self._front_end.frames(len(window.samples))
        return (self._fields.stride or stride_of(self._unit, frames, outputs)) * self._front_end.hop

    def _frames(self, window: Window, frame: int, outputs: int) -> int:
        """How many of the outputs lie before the end of the window's middle. A last window has all of them, but for
        what comes of padding."""
        if not window.last:
            return min((window.keep_to - window.start) // frame, outputs)
        if self._front_end.fixed is None and not self._front_end.bucketed:
            return outputs
        return min(-(-self._front_end.frames(len(window.samples)) * self._front_end.hop // frame), outputs)

    def _moment(self, samples: int) -> Duration:
        seconds, rest = divmod(samples, self._fields.sample_rate)
        return Duration(seconds=seconds, nanos=rest * NANOSECONDS // self._fields.sample_rate)


def _parse(body: bytes) -> TranscribeRequest:
    try:
        return TranscribeRequest.FromString(body)
    except DecodeError:
        raise Rejected("", "the request is not a TranscribeRequest") from None


def _text(text: str, window: Window) -> str:
    """Without space before the transcript, and behind it."""
    text = text if window.start else text.lstrip(" ")
    return text.rstrip(" ") if window.last else text


def _symbols(context: EngineContext, output: Port) -> list[str]:
    """One a line; a space is one too. Raises ValueError."""
    if output.name not in context.config["labels"]:
        raise ValueError(f"labels.{output.name}: must name the file of the symbols")
    path: Path = context.folder / context.config["labels"][output.name]
    symbols = untrusted.read_lines(path, LABELS_BYTES)
    size = output.dims[2]
    if isinstance(size, int) and size != len(symbols):
        raise ValueError(f"labels.{output.name}: the graph has {size}, and {path.name} has {len(symbols)}")
    return symbols
