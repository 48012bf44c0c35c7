"""A primary that becomes a replica ends calls that block by an error of its own."""

import asyncio

from millrace.queue import ModelVersion
from millrace.queue.bell import Bell
from millrace.queue.connection import connect
from tests.eventually import eventually
from tests.processes import Valkey, free_port


async def test_a_bell_that_is_waited_for_survives_the_demotion_of_its_server() -> None:
    async with Valkey() as valkey, connect(valkey.url, timeout_s=None) as blocks, connect(valkey.url) as other:
        waiting = asyncio.create_task(Bell(blocks).wait(ModelVersion("m", "1")))

        async def blocked() -> bool:
            return bool((await other.info("clients"))["blocked_clients"])

        await eventually(blocked)
        await other.replicaof("127.0.0.1", str(free_port()))
        await waiting
