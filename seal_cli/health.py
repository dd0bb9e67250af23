"""Whether a server is ready, by gRPC's health protocol."""

from __future__ import annotations

from grpc_health.v1 import health_pb2

from sealkit.errors import SealError
from sealkit.rpc.channel import open_sync_channel
from sealkit.rpc.status import rpc_errors
from sealkit.rpc.tls import Identity


def not_serving(address: str, service: str = "", timeout: float = 1.0, *, identity: Identity | None = None) -> str:
    """Why `address` is not ready for `service` (empty: for the whole server), asked for `timeout` seconds; empty if it
    reports SERVING. Raises InvalidConfig if the address is none."""
    with open_sync_channel(address, identity=identity) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            with rpc_errors(address):
                answer = check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
        except SealError as error:
            return error.message
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return "" if serving else f"{address} reports {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}"


def is_serving(address: str, service: str = "", timeout: float = 1.0, *, identity: Identity | None = None) -> bool:
    """Whether `address` reports SERVING for `service` within `timeout` seconds."""
    return not not_serving(address, service, timeout, identity=identity)
