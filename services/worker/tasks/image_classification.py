"""The images of ClassifyRequests: picture → the labels' scores. `processor` is all that others need."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from millrace.engine import EngineContext, Work
from millrace.v1.tasks_pb2 import ClassifyResponse
from services.worker.batch.graph import Array, Port, Ports
from services.worker.batch.processor import Part, Processor
from services.worker.tasks import labels
from services.worker.tasks.image import ImageFrontEnd, read_fields
from services.worker.tasks.labels import Labels


def processor(context: EngineContext, ports: Ports) -> Processor:
    """For a model whose model.yaml has `image`. Raises ValueError, naming the key that is wrong."""
    output = labels.find(context.config, ports)
    return ImageClassification(ImageFrontEnd(read_fields(context.config), ports), output, labels.read(context, output))


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture(Part):
    """The image of one request."""

    top_k: int


class ImageClassification:
    """Implements `Processor`."""

    def __init__(self, front_end: ImageFrontEnd, output: Port, labels: Labels) -> None:
        self._front_end, self._labels = front_end, labels
        self._wanted = frozenset({output.name})

    def parts(self, work: Work) -> Iterator[Picture]:
        if not work.results:
            request = labels.parse(work.request, "image")
            feed = self._front_end.feed(request.image)
            yield Picture(feed=feed, wanted=self._wanted, at_once=True, top_k=request.top_k)

    def respond(self, part: Part, outputs: Sequence[tuple[Port, Array]]) -> ClassifyResponse:
        assert isinstance(part, Picture)
        ((_, scores),) = outputs
        return self._labels.respond(scores[0], part.top_k)
