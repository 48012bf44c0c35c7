"""All callers of a frontend that has gone come back at once."""

import asyncio

import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse  # type: ignore[import-untyped]
from grpc_health.v1.health_pb2_grpc import HealthStub  # type: ignore[import-untyped]

CALLS = 4_000
"""More than gRPC lets wait if nobody asks it to."""


async def test_thousands_of_calls_at_once_are_all_answered(channel: grpc.aio.Channel) -> None:
    check = HealthStub(channel).Check
    answers = await asyncio.gather(*(check(HealthCheckRequest()) for _ in range(CALLS)))
    assert {answer.status for answer in answers} == {HealthCheckResponse.SERVING}
