"""What the Open Inference Protocol asks of a server beside running models: is it there, and what does it serve."""

from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version

from millrace.oip.inference_pb2 import (
    ModelConfigRequest,
    ModelConfigResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveResponse,
    ServerMetadataResponse,
    ServerReadyResponse,
)
from millrace.oip.model_config_pb2 import (
    DataType,
    ModelConfig,
    ModelDynamicBatching,
    ModelInput,
    ModelInstanceGroup,
    ModelOutput,
    ModelParameter,
    ModelResponseCache,
    ModelTransactionPolicy,
    ModelVersionPolicy,
)
from millrace.queue import ModelEntry, WorkerEntry
from millrace.tensors import BYTES, TensorSpec
from services.frontend.border import Border, Method
from services.frontend.call import Call
from services.frontend.models import READY, Models
from services.frontend.oip.inference import SERVICE
from services.frontend.oip.text_tensors import OPTIONAL_INPUTS, TEXT_INPUTS, TEXT_OUTPUTS, takes_text
from services.frontend.parse import decode
from services.frontend.readiness import Readiness
from services.frontend.rules import Bounds

NAME, VERSION = "millrace", version("millrace")
EXTENSIONS = (
    "classification",
    "logging",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
    "trace",
)
"""Triton's names. Shared memory and sequences are not served, and binary data and generation are of HTTP."""
LEVELS, STANDARD_LEVEL = 3, 2
"""Of `priority`: interactive, standard and batch."""
GPU_PROVIDER = "CUDAExecutionProvider"


class Catalogue:
    """The part of inference.GRPCInferenceService that tells. `caches` says that this frontend has a response cache."""

    def __init__(self, models: Models, readiness: Readiness, bounds: Bounds, *, caches: bool = False) -> None:
        self._models, self._readiness, self._bounds, self._caches = models, readiness, bounds, caches

    def methods(self, border: Border) -> dict[str, Method]:
        return {
            "ServerLive": border.unary(f"{SERVICE}/ServerLive", self.server_live),
            "ServerReady": border.unary(f"{SERVICE}/ServerReady", self.server_ready),
            "ServerMetadata": border.unary(f"{SERVICE}/ServerMetadata", self.server_metadata),
            "ModelReady": border.unary(f"{SERVICE}/ModelReady", self.model_ready),
            "ModelMetadata": border.unary(f"{SERVICE}/ModelMetadata", self.model_metadata),
            "ModelConfig": border.unary(f"{SERVICE}/ModelConfig", self.model_config),
        }

    async def server_live(self, _raw: bytes, _call: Call) -> ServerLiveResponse:
        return ServerLiveResponse(live=True)

    async def server_ready(self, _raw: bytes, _call: Call) -> ServerReadyResponse:
        return ServerReadyResponse(ready=self._readiness.ready)

    async def server_metadata(self, _raw: bytes, _call: Call) -> ServerMetadataResponse:
        return ServerMetadataResponse(name=NAME, version=VERSION, extensions=EXTENSIONS)

    async def model_ready(self, raw: bytes, call: Call) -> ModelReadyResponse:
        """False too for a model that is not known, as Triton answers."""
        request = decode(ModelReadyRequest, raw, self._bounds.max_request_bytes)
        call.caller.policy.require_model(request.name)
        self._readiness.require()
        return ModelReadyResponse(ready=await self._models.is_ready(request.name, request.version))

    async def model_metadata(self, raw: bytes, call: Call) -> ModelMetadataResponse:
        request = decode(ModelMetadataRequest, raw, self._bounds.max_request_bytes)
        call.caller.policy.require_model(request.name)
        self._readiness.require()
        entry = await self._models.resolve(request.name, request.version)
        inputs, outputs = tensors(entry)
        return ModelMetadataResponse(
            name=entry.name,
            versions=[entry.version] if request.version else await self._models.versions(entry.name),
            platform=entry.platform,
            inputs=[_metadata(spec) for spec in inputs],
            outputs=[_metadata(spec) for spec in outputs],
        )

    async def model_config(self, raw: bytes, call: Call) -> ModelConfigResponse:
        request = decode(ModelConfigRequest, raw, self._bounds.max_request_bytes)
        call.caller.policy.require_model(request.name)
        self._readiness.require()
        entry = await self._models.resolve(request.name, request.version)
        workers, served = await self._models.workers(), await self._models.ready_workers()
        inputs, outputs = tensors(entry)
        optional = OPTIONAL_INPUTS if takes_text(entry) else frozenset()
        config = ModelConfig(
            name=entry.name,
            platform=entry.platform,
            backend=entry.engine,
            version_policy=_version_policy(entry.name, served),
            max_batch_size=entry.max_batch_size,
            input=[
                ModelInput(
                    name=spec.name, data_type=_data_type(spec), dims=_dims(spec, entry), optional=spec.name in optional
                )
                for spec in inputs
            ],
            output=[
                ModelOutput(name=spec.name, data_type=_data_type(spec), dims=_dims(spec, entry)) for spec in outputs
            ],
            dynamic_batching=_batching(entry) if entry.max_batch_size else None,
            instance_group=_instances(entry, workers),
            parameters={name: ModelParameter(string_value=value) for name, value in _parameters(entry)},
            model_transaction_policy=ModelTransactionPolicy(decoupled=takes_text(entry)),
            response_cache=ModelResponseCache(enable=entry.response_cache and self._caches),
        )
        return ModelConfigResponse(config=config)


def tensors(entry: ModelEntry) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """What a model takes and gives as tensors; of one that generates, a text each."""
    return (TEXT_INPUTS, TEXT_OUTPUTS) if takes_text(entry) else (entry.inputs, entry.outputs)


def _metadata(spec: TensorSpec) -> ModelMetadataResponse.TensorMetadata:
    return ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)


def _data_type(spec: TensorSpec) -> "DataType.ValueType":
    return DataType.Value("TYPE_STRING" if spec.datatype == BYTES else f"TYPE_{spec.datatype}")


def _dims(spec: TensorSpec, entry: ModelEntry) -> tuple[int, ...]:
    return spec.shape[1:] if entry.max_batch_size else spec.shape


def _version_policy(name: str, served: dict[str, int]) -> ModelVersionPolicy:
    """The versions that workers are ready for, as far as they are numbers."""
    versions = [model.rpartition("/") for model, workers in served.items() if workers]
    numbers = sorted(int(number) for base, _, number in versions if base == name and number.isdecimal())
    return ModelVersionPolicy(specific=ModelVersionPolicy.Specific(versions=numbers))


def _batching(entry: ModelEntry) -> ModelDynamicBatching:
    """Batches form over all callers; results of one caller may overtake each other."""
    return ModelDynamicBatching(
        preferred_batch_size=entry.preferred_rows,
        max_queue_delay_microseconds=round(entry.batch_delay_ms * 1000),
        priority_levels=LEVELS,
        default_priority_level=STANDARD_LEVEL,
    )


def _instances(entry: ModelEntry, workers: list[WorkerEntry]) -> list[ModelInstanceGroup]:
    """Runs at once on all workers that are ready for it; one group for the CPUs, one for the GPUs."""
    ready = [worker for worker in workers if worker.state == READY and str(entry.model) in worker.models]
    counts = Counter(worker.execution_provider == GPU_PROVIDER for worker in ready)
    kinds = {False: ("cpu", ModelInstanceGroup.KIND_CPU), True: ("gpu", ModelInstanceGroup.KIND_GPU)}
    return [
        ModelInstanceGroup(name=f"{entry.name}_{kinds[gpu][0]}", kind=kinds[gpu][1], count=count * entry.instances)
        for gpu, count in sorted(counts.items())
    ]


def _parameters(entry: ModelEntry) -> Iterator[tuple[str, str]]:
    yield "task", entry.task
    yield "digest", entry.digest
    if entry.context_length:
        yield "context_length", str(entry.context_length)
