"""A worker of tensors that gives back what it takes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from millrace.oip.inference_pb2 import ModelInferRequest, ModelInferResponse
from millrace.queue import Emission, Ending, ModelEntry, Verdict
from millrace.queue import history as running
from millrace.tensors import TensorSpec
from tests.frontend.playing import HISTORY_TAG
from tests.frontend.tensors import Held, TensorWorker


def entry(datatype: str = "FP32") -> ModelEntry:
    """The model `mirror` of two matrices: x, of this datatype, and n, of INT32."""
    tensors = (TensorSpec("x", datatype, (-1, -1)), TensorSpec("n", "INT32", (-1, -1)))
    return ModelEntry(name="mirror", version="1", task="tensor", digest="", inputs=tensors, outputs=tensors)


class Mirror(TensorWorker):
    """Serves `mirror`."""

    async def reflect(self, within_s: float = 5.0) -> Held:
        """Takes the next job and gives back its inputs, or those that it asks for."""
        held = await self.take_tensors(within_s)
        await self.answer(held, reflected(held.request))
        return held

    async def answer(self, held: Held, response: ModelInferResponse) -> Verdict:
        body = response.SerializeToString()
        history = running.extend(running.EMPTY, body)
        emission = Emission(
            ref=held.lease.ref,
            token=held.lease.token,
            offset=1,
            history=history,
            result=body + HISTORY_TAG + history,
            ending=Ending(),
            cost=1,
        )
        (verdict,) = await self.queue.emit(held.lease.ref.model, [emission])
        return verdict


def reflected(request: ModelInferRequest) -> ModelInferResponse:
    wanted = [output.name for output in request.outputs] or [tensor.name for tensor in request.inputs]
    response = ModelInferResponse(model_name=request.model_name, model_version="1")
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        if tensor.name in wanted:
            response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            response.raw_output_contents.append(raw)
    return response


@asynccontextmanager
async def mirroring(redis_url: str, datatype: str = "FP32") -> AsyncIterator[Mirror]:
    async with Mirror(redis_url, entry(datatype)) as played:
        yield played
