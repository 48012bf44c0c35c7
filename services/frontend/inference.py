"""Tensors: the Open Inference Protocol, as its clients and Triton's speak it."""

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
from millrace.queue import JobRef
from millrace.tensors import TensorSpec
from services.frontend.admission import Admission
from services.frontend.border import Border, Method
from services.frontend.call import Call
from services.frontend.infer import parse_infer
from services.frontend.models import Models
from services.frontend.parse import decode
from services.frontend.readiness import Readiness
from services.frontend.relay import Relays
from services.frontend.rules import Bounds
from services.frontend.wire import varint

SERVICE = "inference.GRPCInferenceService"
NAME, VERSION = "millrace", version("millrace")
ID_TAG = b"\x1a"
"""ModelInferResponse: id = 3 (length-delimited)."""


class Inference:
    """inference.GRPCInferenceService."""

    def __init__(
        self, admission: Admission, relays: Relays, models: Models, readiness: Readiness, bounds: Bounds
    ) -> None:
        self._admission, self._relays, self._models = admission, relays, models
        self._readiness, self._bounds = readiness, bounds

    def methods(self, border: Border) -> dict[str, Method]:
        return {
            "ServerLive": border.unary(f"{SERVICE}/ServerLive", self.server_live),
            "ServerReady": border.unary(f"{SERVICE}/ServerReady", self.server_ready),
            "ServerMetadata": border.unary(f"{SERVICE}/ServerMetadata", self.server_metadata),
            "ModelReady": border.unary(f"{SERVICE}/ModelReady", self.model_ready),
            "ModelMetadata": border.unary(f"{SERVICE}/ModelMetadata", self.model_metadata),
            "ModelInfer": border.unary(f"{SERVICE}/ModelInfer", self.infer),
        }

    async def infer(self, raw: bytes, call: Call) -> bytes:
        """parse → resolve → open an inbox → submit → the one result, which the worker has serialised."""
        request = parse_infer(raw, self._bounds)
        options = request.options
        call.job_id = options.job_id or JobRef.anonymous_id()
        target = await self._admission.resolve(call.tenant, call.job_id, request)
        with self._relays.open(target.ref) as stream:
            ref = await self._relays.submit(call, stream, target, request)
            answer = await self._relays.single(call, stream, ref, attached=bool(options.job_id))
        if not options.job_id:
            return answer
        await call.begin()
        return _echo(request.message.id, answer)

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


def _echo(request_id: str, answer: bytes) -> bytes:
    """The answer under this request's id: a job may have been started by a request with another one. Of a field that is
    there twice the last one counts."""
    text = request_id.encode()
    return answer + ID_TAG + varint(len(text)) + text
