"""The messages of ModelStreamInfer: a response, and where its request stands."""

from millrace.errors import Exhausted, MillraceError
from millrace.oip.inference_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from millrace.v1.generation_pb2 import GenerateResponse
from services.frontend.oip.infer import echo
from services.frontend.status import to_status
from services.frontend.wire import varint

FINAL = "triton_final_response"
OFFSET, HISTORY = "millrace_offset", "millrace_history"
REASON, RETRY_AFTER = "millrace_reason", "millrace_retry_after_ms"
RESPONSE_TAG = b"\x12"
"""ModelStreamInferResponse: infer_response = 2 (length-delimited)."""


def wrap(response: bytes, request_id: str, *, final: bool) -> bytes:
    """A serialised response, which need not be parsed, under this request's id; whether it is the request's last."""
    last = ModelInferResponse()
    last.parameters[FINAL].bool_param = final
    whole = response + last.SerializeToString() + echo(request_id)
    return RESPONSE_TAG + varint(len(whole)) + whole


def tell_position(response: ModelInferResponse, result: GenerateResponse) -> None:
    """Where a caller goes on that has seen this result."""
    response.parameters[OFFSET].int64_param = result.offset
    response.parameters[HISTORY].uint64_param = result.history


def refusal(request: ModelInferRequest, error: MillraceError) -> bytes:
    """The only or last response to a request."""
    response = ModelInferResponse(model_name=request.model_name, model_version=request.model_version, id=request.id)
    response.parameters[FINAL].bool_param = True
    response.parameters[REASON].string_param = error.reason
    if isinstance(error, Exhausted):
        response.parameters[RETRY_AFTER].int64_param = round(error.retry_after_s * 1000)
    message = to_status(error).message or error.reason
    return ModelStreamInferResponse(error_message=message, infer_response=response).SerializeToString()
