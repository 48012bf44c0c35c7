"""A worker of tensors without a model, and requests for it."""

from typing import TYPE_CHECKING, Any, TypeAlias

from millrace.oip.inference_pb2 import ModelInferRequest, ModelInferResponse
from millrace.queue import Emission, Ending, Indexed, Lease, ModelEntry, ModelState, ModelVersion, Verdict, WorkerEntry
from millrace.queue import history as running
from millrace.tensors import TensorSpec
from tests.eventually import eventually
from tests.frontend.playing import HISTORY_TAG, Worker

if TYPE_CHECKING:
    from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceAsyncStub

Inference: TypeAlias = "GRPCInferenceServiceAsyncStub"
MODEL = ModelVersion("double", "3")
ENTRY = ModelEntry(
    name=MODEL.name,
    version=MODEL.version,
    task="tensor",
    digest="",
    platform="onnxruntime_onnx",
    inputs=(TensorSpec("x", "FP32", (-1, 3)), TensorSpec("n", "INT8", (-1, 1))),
    outputs=(TensorSpec("y", "FP32", (-1, 3)), TensorSpec("z", "BYTES", (-1,))),
    max_batch_size=4,
    tasks=("infer",),
)


class Held:
    """A job that the played worker holds."""

    def __init__(self, worker: Worker, lease: Lease, payload: bytes) -> None:
        self._worker, self.lease = worker, lease
        self.request = ModelInferRequest.FromString(payload)

    async def answer(self, raw: bytes = b"y" * 12) -> Verdict:
        """Its one result, and the end."""
        response = ModelInferResponse(model_name="double", model_version="3", id=self.request.id)
        response.outputs.add(name="y", datatype="FP32", shape=[1, 3])
        response.raw_output_contents.append(raw)
        body = response.SerializeToString()
        history = running.extend(running.EMPTY, body)
        return await self._emit(offset=1, history=history, result=body + HISTORY_TAG + history, ending=Ending(), cost=1)

    async def end(self, ending: Ending) -> Verdict:
        return await self._emit(ending=ending)

    async def _emit(self, **fields: Any) -> Verdict:
        emission = Emission(ref=self.lease.ref, token=self.lease.token, **fields)
        (verdict,) = await self._worker.queue.emit(self.lease.ref.model, [emission])
        return verdict


class TensorWorker(Worker):
    """Serves `ENTRY`, or another model of tensors."""

    def __init__(self, redis_url: str, entry: ModelEntry = ENTRY) -> None:
        super().__init__(redis_url, entry.model)
        self.entry = entry

    async def announce(self, state: str = "ready") -> None:
        worker = WorkerEntry(
            worker_id=f"played-{self.model}",
            device="CPU",
            execution_provider="CPUExecutionProvider",
            state=state,
            index=(Indexed(name=self.model.name, version=self.model.version, state=ModelState.READY),),
        )
        await self.registry.announce(worker, [self.entry])

    async def take_tensors(self, within_s: float = 5.0) -> Held:
        """The next job that waits."""

        async def taken() -> Held | None:
            self._sequence += 1
            leases = (
                await self.queue.take(self.model, f"played-{id(self)}", self._sequence, jobs=1, cost=1e9, alone=True)
            ).leases
            if not leases:
                return None
            payload = leases[0].payload or await self.queue.payload(leases[0].ref, leases[0].fingerprint)
            return Held(self, leases[0], payload or b"")

        return await eventually(taken, within_s)


def infer(rows: int = 1, **fields: Any) -> ModelInferRequest:
    """A request that `ENTRY` takes."""
    request = ModelInferRequest(**({"model_name": "double"} | fields))
    request.inputs.add(name="x", datatype="FP32", shape=[rows, 3])
    request.inputs.add(name="n", datatype="INT8", shape=[rows, 1])
    request.raw_input_contents.extend([bytes(12 * rows), bytes(rows)])
    return request
