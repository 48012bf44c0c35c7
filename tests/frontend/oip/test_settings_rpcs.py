"""LogSettings, TraceSetting, and the shared memory that there is none of."""

from collections.abc import Iterator, Mapping

import grpc
import grpc.aio
import pytest
import structlog
from structlog.testing import capture_logs

from millrace.errors import Code
from millrace.oip import inference_pb2
from millrace.oip.inference_pb2 import LogSettingsRequest, TraceSettingRequest
from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceStub
from millrace.queue import Ending
from millrace.telemetry import levels
from services.frontend.oip.extensions import SHARED_MEMORY
from tests.eventually import eventually
from tests.frontend.playing import Generation, Worker, read, reason, request, violated
from tests.frontend.tensors import Inference

DEFAULT_LOG = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}


@pytest.fixture
def inference(channel: grpc.aio.Channel) -> Inference:
    return GRPCInferenceServiceStub(channel)


@pytest.fixture(autouse=True)
def levels_stay() -> Iterator[None]:
    before = dict(vars(levels))
    yield
    vars(levels).update(before)


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def log_settings(inference: Inference, **settings: bool | int | str) -> dict[str, bool | int | str]:
    message = LogSettingsRequest()
    for name, value in settings.items():
        kind = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
        setattr(message.settings[name], kind, value)
    told = (await inference.LogSettings(message)).settings
    return {name: getattr(value, value.WhichOneof("parameter_choice") or "") for name, value in told.items()}


async def test_levels_are_told_and_set(inference: Inference) -> None:
    assert await log_settings(inference) == DEFAULT_LOG
    told = await log_settings(inference, log_verbose_level=2, log_info=False)
    assert told == DEFAULT_LOG | {"log_verbose_level": 1, "log_info": False}
    assert (levels.verbose, levels.info, levels.warning, levels.error) == (True, False, True, True)
    assert await log_settings(inference, **(told | {"log_info": True, "log_verbose_level": 0})) == DEFAULT_LOG


async def test_a_level_that_is_off_writes_nothing() -> None:
    levels.info, levels.verbose = False, True
    for method, shown in (("info", False), ("debug", True), ("error", True), ("critical", True)):
        try:
            assert levels(None, method, {"event": "e"}) == {"event": "e"}
            assert shown
        except structlog.DropEvent:
            assert not shown


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("log_file", "/tmp/somewhere"),
        ("log_format", "ISO8601"),
        ("log_info", 1),
        ("log_verbose_level", "1"),
        ("something", True),
        ("x" * 10_000, True),
    ],
)
async def test_what_cannot_be_set_of_the_log_is_refused_and_nothing_changes(
    inference: Inference, setting: str, value: bool | int | str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await log_settings(inference, **{"log_warning": False, setting: value})
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated(caught.value) == [f"settings[{setting[:64]}]"]
    assert await log_settings(inference) == DEFAULT_LOG


# ── traces ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def trace_setting(inference: Inference, model: str = "", **settings: list[str]) -> dict[str, list[str]]:
    message = TraceSettingRequest(model_name=model)
    for name, values in settings.items():
        message.settings[name].value.extend(values)
    return {name: list(value.value) for name, value in (await inference.TraceSetting(message)).settings.items()}


def differs(told: Mapping[str, list[str]], **expected: str) -> bool:
    return any(told[name] != [value] for name, value in expected.items())


async def test_trace_settings_hold_for_all_models_or_for_one(inference: Inference, worker: Worker) -> None:
    assert await trace_setting(inference) == {
        "trace_level": ["OFF"],
        "trace_rate": ["1000"],
        "trace_count": ["-1"],
        "log_frequency": ["0"],
        "trace_mode": ["triton"],
        "trace_file": [""],
    }
    await trace_setting(inference, "echo", trace_level=["TIMESTAMPS"], trace_rate=["7"])
    await trace_setting(inference, trace_rate=["5"], trace_count=["3"])
    own = await trace_setting(inference, "echo")
    assert not differs(own, trace_level="TIMESTAMPS", trace_rate="7", trace_count="3")
    assert not differs(await trace_setting(inference), trace_level="OFF", trace_rate="5", trace_count="3")
    cleared = await trace_setting(inference, "echo", trace_rate=[], trace_level=[])
    assert not differs(cleared, trace_level="OFF", trace_rate="5")
    assert not differs(
        await trace_setting(inference, trace_rate=[], trace_count=[]), trace_rate="1000", trace_count="-1"
    )


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("trace_level", ["TENSORS"]),
        ("trace_rate", ["0"]),
        ("trace_rate", ["1", "2"]),
        ("trace_rate", ["9" * 5000]),
        ("trace_count", ["-2"]),
        ("trace_count", ["some"]),
        ("log_frequency", ["50"]),
        ("trace_file", ["/tmp/trace.json"]),
        ("trace_mode", ["opentelemetry"]),
        ("something", ["1"]),
    ],
)
async def test_what_cannot_be_set_of_traces_is_refused(inference: Inference, setting: str, values: list[str]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await trace_setting(inference, "", **{setting: values})
    assert (caught.value.code(), violated(caught.value)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        [f"settings[{setting}]"],
    )


async def test_traces_of_a_model_that_there_is_not_cannot_be_set(inference: Inference) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await trace_setting(inference, "nothing", trace_level=["TIMESTAMPS"])
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN")


async def test_every_so_many_requests_one_is_traced_until_there_were_enough(
    inference: Inference, generation: Generation, worker: Worker
) -> None:
    await trace_setting(inference, "echo", trace_level=["TIMESTAMPS"], trace_rate=["2"], trace_count=["2"])
    job_ids = []
    with capture_logs() as logged:
        for _ in range(7):
            call = generation.Generate(request(text="a secret"))
            held = await worker.take()
            await held.emit("an answer", last=True)
            (message,) = await read(call)
            job_ids.append(message.job_id)
    traces = [event for event in logged if event["event"] == "request.trace"]
    assert [trace["job_id"] for trace in traces] == [job_ids[1], job_ids[3]]
    for trace in traces:
        times = [trace[f"{step}_ms"] for step in ("received", "resolved", "submitted", "first_result", "end")]
        assert times == sorted(times)
        assert trace["model"] == "echo/1"
        assert "secret" not in str(trace)
        assert "answer" not in str(trace)
    assert not differs(await trace_setting(inference, "echo"), trace_count="0")


async def test_a_request_without_a_result_is_traced_without_one(
    inference: Inference, generation: Generation, worker: Worker
) -> None:
    await trace_setting(inference, trace_level=["TIMESTAMPS"], trace_rate=["1"])
    with capture_logs() as logged:
        failing = generation.Generate(request())
        await (await worker.take()).end(Ending(code=Code.INTERNAL, reason="BROKEN", message="no"))
        with pytest.raises(grpc.aio.AioRpcError):
            await read(failing)
        left = generation.Generate(request())
        await worker.take()
        left.cancel()
        await eventually(lambda: len([event for event in logged if event["event"] == "request.trace"]) == 2)
    for trace in (event for event in logged if event["event"] == "request.trace"):
        assert "first_result_ms" not in trace
        assert trace["submitted_ms"] <= trace["end_ms"]


# ── shared memory ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SHARED_MEMORY)
async def test_shared_memory_is_refused_with_a_reason(inference: Inference, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(inference, name)(getattr(inference_pb2, f"{name}Request")())
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNIMPLEMENTED, "NO_SHARED_MEMORY")
    assert "different machines" in (caught.value.details() or "")
