"""What the service says of a model before it is asked for."""

from millrace.client.calls import UNARY_S, Calls
from millrace.oip.inference_pb2 import ModelMetadataRequest, ModelMetadataResponse
from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceStub
from millrace.v1.fleet_pb2 import ListModelsRequest, Model
from millrace.v1.fleet_pb2_grpc import FleetServiceStub


async def find_model(calls: Calls, name: str) -> Model:
    """Raises ValueError where it is not served, MillraceError where the service does not answer."""
    request = ListModelsRequest()
    answer = await calls.ask(
        lambda frontend: FleetServiceStub(frontend.channel).ListModels(
            request, metadata=calls.metadata, timeout=UNARY_S
        )
    )
    found = next((model for model in answer.models if model.name == name), None)
    if found is None:
        names = ", ".join(sorted(model.name for model in answer.models)) or "none"
        raise ValueError(f"no model {name} is served; there are: {names}")
    return found


async def find_tensors(calls: Calls, name: str, version: str) -> ModelMetadataResponse:
    """What it takes and gives. Raises MillraceError where there is none, or the service does not answer."""
    request = ModelMetadataRequest(name=name, version=version)
    return await calls.ask(
        lambda frontend: GRPCInferenceServiceStub(frontend.channel).ModelMetadata(
            request, metadata=calls.metadata, timeout=UNARY_S
        )
    )
