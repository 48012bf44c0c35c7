"""Our own client, and the commands that use it, at a gate that is guarded."""

import asyncio

import pytest

from millrace import AsyncClient, Client, Denied
from millrace.errors import Code
from services.frontend.server import Frontend
from tests.cli.running import millrace
from tests.frontend.playing import Worker


async def test_a_key_goes_with_every_call(served: Frontend, worker: Worker, key: str) -> None:
    async with AsyncClient(served.grpc_address, api_key=f"{key}\n") as client:
        assert [model.name for model in await client.models()] == ["echo"]
        stream = client.generate("echo", "hello")
        first = asyncio.create_task(anext(stream))
        held = await worker.take()
        assert held.lease.ref.tenant == "acme"
        await held.emit("a", last=True)
        assert (await first).text == "a"
        await stream.aclose()


async def test_a_key_that_changes_is_asked_for_before_each_call(served: Frontend, worker: Worker, key: str) -> None:
    keys = [key]
    async with AsyncClient(served.grpc_address, api_key=lambda: keys[-1]) as client:
        await client.models()
        keys.append("wrong")
        with pytest.raises(Denied, match="API key"):
            await client.models()
        keys.append(key)
        await client.models()


async def test_who_is_not_let_in_is_told_at_once_and_not_retried(served: Frontend, worker: Worker, key: str) -> None:
    async with AsyncClient(served.grpc_address, retry_s=30) as client, asyncio.timeout(5):
        with pytest.raises(Denied) as refused:
            await client.models()
        assert (refused.value.code, refused.value.reason) == (Code.UNAUTHENTICATED, "CREDENTIALS_MISSING")
        with pytest.raises(Denied):
            await client.generate_text("echo", "hello")
    assert served.metrics.refused.labels("CREDENTIALS_MISSING")._value.get() == 2


async def test_a_tenant_that_is_not_the_keys_is_refused(served: Frontend, worker: Worker, key: str) -> None:
    async with AsyncClient(served.grpc_address, api_key=key, tenant="blue") as client:
        with pytest.raises(Denied) as refused:
            await client.models()
        assert (refused.value.code, refused.value.reason) == (Code.PERMISSION_DENIED, "TENANT_MISMATCH")


async def test_the_client_without_a_loop_has_a_key_too(served: Frontend, worker: Worker, key: str) -> None:
    def names() -> list[str]:
        with Client(served.grpc_address, api_key=key) as client:
            return [model.name for model in client.models()]

    assert await asyncio.to_thread(names) == ["echo"]


async def test_commands_find_their_key_in_the_environment(
    served: Frontend, worker: Worker, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, error = await millrace("models", "--address", served.grpc_address)
    assert (status, "UNAUTHENTICATED CREDENTIALS_MISSING" in error, "MILLRACE_API_KEY" in error) == (1, True, True)
    monkeypatch.setenv("MILLRACE_API_KEY", key)
    status, text, _ = await millrace("models", "--address", served.grpc_address)
    assert (status, "echo" in text) == (0, True)
