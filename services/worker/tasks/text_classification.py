"""The texts of ClassifyRequests: tokens → the labels' scores. `processor` is all that others need."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from millrace.engine import EngineContext, Work
from millrace.v1.tasks_pb2 import ClassifyResponse
from services.worker.batch.graph import Array, Port, Ports
from services.worker.batch.processor import Part, Processor
from services.worker.tasks import labels
from services.worker.tasks.labels import Labels
from services.worker.tasks.text import TextFields, TextFrontEnd, read_fields

FIELD = "text"
ADVICE = "send less of it"


def processor(context: EngineContext, ports: Ports) -> Processor:
    """For a model with a tokenizer.json. Raises ValueError, naming the key of model.yaml that is wrong."""
    fields, output = read_fields(context.config), labels.find(context.config, ports)
    return TextClassification(fields, TextFrontEnd(fields, context, ports), output, labels.read(context, output))


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Part):
    """The text of one request."""

    top_k: int


class TextClassification:
    """Implements `Processor`."""

    def __init__(self, fields: TextFields, front_end: TextFrontEnd, output: Port, labels: Labels) -> None:
        self._truncate, self._front_end, self._labels = fields.truncate, front_end, labels
        self._wanted = frozenset({output.name})

    def parts(self, work: Work) -> Iterator[Text]:
        if work.results:
            return
        request = labels.parse(work.request, "text")
        tokens = self._front_end.tokens(request.text, FIELD, truncate=self._truncate, advice=ADVICE)
        yield Text(feed=self._front_end.feed([tokens]), wanted=self._wanted, at_once=True, top_k=request.top_k)

    def respond(self, part: Part, outputs: Sequence[tuple[Port, Array]]) -> ClassifyResponse:
        assert isinstance(part, Text)
        ((_, scores),) = outputs
        return self._labels.respond(scores[0], part.top_k)
