"""What the Open Inference Protocol asks of a server beside running models: is it there, and what does it serve."""

from importlib.metadata import version

from millrace.oip.inference_pb2 import (
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveResponse,
    ServerMetadataResponse,
    ServerReadyResponse,
)
from millrace.tensors import TensorSpec
from services.frontend.border import Border, Method
from services.frontend.call import Call
from services.frontend.inference import SERVICE
from services.frontend.models import Models
from services.frontend.parse import decode
from services.frontend.readiness import Readiness
from services.frontend.rules import Bounds

NAME, VERSION = "millrace", version("millrace")


class Catalogue:
    """The part of inference.GRPCInferenceService that tells."""

    def __init__(self, models: Models, readiness: Readiness, bounds: Bounds) -> None:
        self._models, self._readiness, self._bounds = models, readiness, bounds

    def methods(self, border: Border) -> dict[str, Method]:
        return {
            "ServerLive": border.unary(f"{SERVICE}/ServerLive", self.server_live),
            "ServerReady": border.unary(f"{SERVICE}/ServerReady", self.server_ready),
            "ServerMetadata": border.unary(f"{SERVICE}/ServerMetadata", self.server_metadata),
            "ModelReady": border.unary(f"{SERVICE}/ModelReady", self.model_ready),
            "ModelMetadata": border.unary(f"{SERVICE}/ModelMetadata", self.model_metadata),
        }

    async def server_live(self, _raw: bytes, _call: Call) -> ServerLiveResponse:
        return ServerLiveResponse(live=True)

    async def server_ready(self, _raw: bytes, _call: Call) -> ServerReadyResponse:
        return ServerReadyResponse(ready=self._readiness.ready)

    async def server_metadata(self, _raw: bytes, _call: Call) -> ServerMetadataResponse:
        return ServerMetadataResponse(name=NAME, version=VERSION)

    async def model_ready(self, raw: bytes, _call: Call) -> ModelReadyResponse:
        """False too for a model that is not known, as Triton answers."""
        request = decode(ModelReadyRequest, raw, self._bounds.max_request_bytes)
        self._readiness.require()
        return ModelReadyResponse(ready=await self._models.is_ready(request.name, request.version))

    async def model_metadata(self, raw: bytes, _call: Call) -> ModelMetadataResponse:
        request = decode(ModelMetadataRequest, raw, self._bounds.max_request_bytes)
        self._readiness.require()
        entry = await self._models.resolve(request.name, request.version)
        return ModelMetadataResponse(
            name=entry.name,
            versions=[entry.version] if request.version else await self._models.versions(entry.name),
            platform=entry.platform,
            inputs=[_metadata(spec) for spec in entry.inputs],
            outputs=[_metadata(spec) for spec in entry.outputs],
        )


def _metadata(spec: TensorSpec) -> ModelMetadataResponse.TensorMetadata:
    return ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)
