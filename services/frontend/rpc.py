"""The gRPC server: its options, its port, and its health, which it tells of each service."""

from collections.abc import Mapping

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from services.frontend import fleet, jobs, servicer, tasks
from services.frontend.border import Method
from services.frontend.oip import inference

MESSAGE_LIMITS = 2
"""gRPC takes messages of so many times what a request may have: those between are refused in our own words."""
SERVICES = (
    servicer.SERVICE,
    tasks.EMBEDDING,
    tasks.CLASSIFICATION,
    tasks.SPEECH,
    inference.SERVICE,
    jobs.SERVICE,
    fleet.SERVICE,
)
PENDING_CALLS = 10_000
"""That wait for this process to look at them: beyond so many gRPC cancels some at random, beyond twice as many each.
Its own 1,000 are fewer than come back at once when another frontend has gone."""
OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.server.max_pending_requests", PENDING_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", 2 * PENDING_CALLS),
    ("grpc.so_reuseport", 0),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
)


class GrpcServer:
    """Serves `services`, and their health, which is NOT_SERVING until it is set. `address` is known once started."""

    def __init__(self, services: Mapping[str, dict[str, Method]], largest_bytes: int) -> None:
        limit = ("grpc.max_receive_message_length", MESSAGE_LIMITS * largest_bytes)
        self._server = grpc.aio.server(options=(*OPTIONS, limit))
        for name, methods in services.items():
            self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, methods)])
        self.health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self.address = ""

    async def start(self, address: str, credentials: grpc.ServerCredentials | None) -> None:
        """Without credentials in plaintext."""
        await self.set_health(False)
        host, _, _ = address.rpartition(":")
        if credentials is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, credentials)
        self.address = f"{host}:{port}"
        await self._server.start()

    async def set_health(self, ready: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *SERVICES):
            await self.health.set(service, status)

    async def stop(self, grace_s: float) -> None:
        """Tells each connection to go (GOAWAY); calls that still run after the grace are cancelled."""
        await self._server.stop(grace_s)
