"""A gRPC server of its own for what runs beside the service in a cluster: KEDA, and whoever probes health."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc  # type: ignore[import-untyped]

from services.frontend.border import Method
from services.frontend.scaler.service import SERVICE

MOST_CALLS = 256
"""At once: each stream looks at the queue all the time."""
GRACE_S = 1.0


@asynccontextmanager
async def serve(
    address: str,
    methods: dict[str, Method],
    health_servicer: health.aio.HealthServicer,
    options: Sequence[tuple[str, int]],
) -> AsyncIterator[str]:
    """Serves the scaler and health at HOST:PORT, in plaintext, and gives the address with its port."""
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=MOST_CALLS)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    host, _, _ = address.rpartition(":")
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"{host}:{port}"
    finally:
        await server.stop(GRACE_S)
