"""Nothing is served to who brings no credentials: every method of every service, and every path."""

from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import httpx2
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]
from openai import AsyncOpenAI, AuthenticationError
from starlette.routing import BaseRoute, Mount, Route

from millrace.oip.inference_pb2 import ModelInferRequest
from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceStub
from millrace.v1.fleet_pb2 import ListModelsRequest, ListWorkersRequest
from millrace.v1.fleet_pb2_grpc import FleetServiceStub
from services.frontend.server import Frontend
from tests.eventually import eventually
from tests.frontend.access.tenants import Book, bearer
from tests.frontend.openai.calling import prompt
from tests.frontend.playing import Worker, frontend, reason

OPEN_SERVICES = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")
OPEN_PATHS = ("/healthz", "/readyz")
OWN = {"millrace-page": "1"}


async def services_of(channel: grpc.aio.Channel) -> list[str]:
    """What the frontend says of itself."""
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
    response = await call.read()
    return [service.name for service in response.list_services_response.service]


async def refusal(channel: Any, method: MethodDescriptor, metadata: tuple[tuple[str, str], ...] = ()) -> str:
    """Why the frontend does not do it; the method is called with an empty message."""
    assert method.containing_service is not None
    path = f"/{method.containing_service.full_name}/{method.name}"
    try:
        if method.client_streaming:
            call = channel.stream_stream(path)(iter([b""]), metadata=metadata, timeout=5)
            await call.read()
        elif method.server_streaming:
            await channel.unary_stream(path)(b"", metadata=metadata, timeout=5).read()
        else:
            await channel.unary_unary(path)(b"", metadata=metadata, timeout=5)
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name} {reason(error)}"
    return ""


async def test_every_method_of_every_service_wants_credentials(channel: grpc.aio.Channel, key: str) -> None:
    pool = descriptor_pool.Default()
    names = [name for name in await services_of(channel) if name not in OPEN_SERVICES]
    methods = [method for name in names for method in pool.FindServiceByName(name).methods]
    assert len(methods) > 25
    assert {method.full_name: await refusal(channel, method) for method in methods} == {
        method.full_name: "UNAUTHENTICATED CREDENTIALS_MISSING" for method in methods
    }
    forged = bearer(key[:-1] + ("a" if key[-1] != "a" else "b"))
    assert {await refusal(channel, method, forged) for method in methods} == {"UNAUTHENTICATED CREDENTIALS_INVALID"}
    assert not any("UNAUTH" in told for told in [await refusal(channel, method, bearer(key)) for method in methods])


def paths(routes: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every method of every path."""
    for route in routes:
        if isinstance(route, Mount):
            yield from paths(route.routes, prefix + route.path)
        elif isinstance(route, Route):
            yield from ((method, prefix + route.path) for method in sorted(route.methods or ()) if method != "HEAD")


async def test_every_path_wants_credentials(served: Frontend, key: str) -> None:
    parts = served._parts
    files = [path for _, path in paths(parts.web) if path == "/" or "." in path]
    known = [(method, path) for method, path in paths([*parts.health, *parts.web]) if path not in (*OPEN_PATHS, *files)]
    assert len(known) > 10
    async with httpx2.AsyncClient(base_url=f"http://{served.http_address}") as client:
        for method, path in known:
            answer = await client.request(method, path, headers=OWN)
            assert (path, answer.status_code) == (path, 401)
            assert answer.headers["www-authenticate"] == 'Bearer realm="millrace"'
            assert answer.headers["x-should-retry"] == "false"
            told = answer.json()["error"]
            assert (told["code"], told["type"]) == ("credentials_missing", "invalid_request_error")
            wrong = await client.request(method, path, headers=OWN | {"authorization": f"Bearer {key}a"})
            assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "credentials_invalid")
        for path in (*OPEN_PATHS, *files):
            assert (await client.get(path)).status_code == 200


async def test_what_was_sent_is_not_read_before_it_is_known_who_sends_it(served: Frontend) -> None:
    async with httpx2.AsyncClient(base_url=f"http://{served.http_address}") as client:
        answer = await client.post("/v1/completions", content=b"{" * 100_000, headers={"content-type": "text/plain"})
    assert answer.status_code == 401


async def test_a_frontends_health_is_told_to_everybody(channel: grpc.aio.Channel) -> None:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_what_is_told_to_everybody_names_no_model(served: Frontend, key: str) -> None:
    async with httpx2.AsyncClient(base_url=f"http://{served.http_address}") as client:
        assert (await client.get("/readyz")).json()["models"] == {}


async def test_metrics_beside_the_callers_port_are_the_administrators(served: Frontend, key: str, book: Book) -> None:
    async with httpx2.AsyncClient(base_url=f"http://{served.http_address}") as client:
        answer = await client.get("/metrics", headers={"authorization": f"Bearer {key}"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "admin_required")


async def test_metrics_with_a_port_of_their_own_are_open(redis_url: str, worker: Worker, book: Book, key: str) -> None:
    async with (
        frontend(redis_url, api_keys=book.path, health_address="127.0.0.1:0") as served,
        httpx2.AsyncClient(base_url=f"http://{served.health_address}") as client,
    ):
        answer = await client.get("/metrics")
        assert answer.status_code == 200
        assert "millrace_frontend_calls_refused" in answer.text
        assert (await client.get("/readyz")).json()["models"] != {}


async def test_refusals_are_counted_by_their_reason(served: Frontend, channel: grpc.aio.Channel, book: Book) -> None:
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError):
            await FleetServiceStub(channel).ListModels(ListModelsRequest(), metadata=bearer("wrong"))
    assert served.metrics.refused.labels("CREDENTIALS_INVALID")._value.get() == 3


async def test_only_administrators_command_and_look_behind(
    redis_url: str, worker: Worker, book: Book, key: str
) -> None:
    admin = book.add("ops", admin=True)
    commands = ("RepositoryModelLoad", "RepositoryModelUnload", "LogSettings", "TraceSetting", "ModelStatistics")
    pool = descriptor_pool.Default()
    methods = [pool.FindMethodByName(f"inference.GRPCInferenceService.{name}") for name in commands]
    methods.append(pool.FindMethodByName("millrace.v1.FleetService.ListWorkers"))
    async with (
        frontend(redis_url, api_keys=book.path) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        for method in methods:
            assert await refusal(channel, method, bearer(key)) == "PERMISSION_DENIED ADMIN_REQUIRED"
            assert "PERMISSION" not in await refusal(channel, method, bearer(admin))
        workers = await FleetServiceStub(channel).ListWorkers(ListWorkersRequest(), metadata=bearer(admin))
        assert len(workers.workers) == 1


async def test_openais_client_sends_its_key_and_learns_why_it_is_wrong(
    served: Frontend, worker: Worker, key: str
) -> None:
    url = f"http://{served.http_address}/v1"
    async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
        assert [model.id for model in (await client.models.list()).data] == ["echo"]
    async with AsyncOpenAI(base_url=url, api_key="sk-wrong", max_retries=3) as client:
        with pytest.raises(AuthenticationError) as refused:
            await client.completions.create(**prompt())
    assert refused.value.code == "credentials_invalid"


async def test_a_stream_of_requests_does_not_outlive_its_key(
    channel: grpc.aio.Channel, worker: Worker, book: Book, key: str
) -> None:
    call: Any = GRPCInferenceServiceStub(channel).ModelStreamInfer(metadata=bearer(key))

    async def told() -> str:
        await call.write(ModelInferRequest(model_name="none"))
        answer = await call.read()
        return str(answer.infer_response.parameters["millrace_reason"].string_param)

    async def is_revoked() -> bool:
        return await told() == "KEY_REVOKED"

    assert await told() == "MODEL_UNKNOWN"
    book.revoke(key)
    await eventually(is_revoked, 2.0)
    await call.done_writing()
