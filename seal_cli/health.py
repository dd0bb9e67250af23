"""Whether a server is ready, by gRPC's health protocol."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2

from sealkit.rpc.channel import open_sync_channel
from sealkit.rpc.tls import Identity


def is_serving(address: str, service: str = "", timeout: float = 1.0, *, identity: Identity | None = None) -> bool:
    """Whether `address` reports SERVING for `service` (empty: for the whole server) within `timeout` seconds."""
    with open_sync_channel(address, identity=identity) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
