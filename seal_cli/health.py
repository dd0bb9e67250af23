"""Is a server ready? Asked through gRPC's own health protocol."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2


def is_serving(address: str, service: str = "", timeout: float = 1.0) -> bool:
    """Whether `address` says SERVING of `service` (empty: of the whole server) within `timeout` seconds."""
    # A proxy of the environment must not stand between two processes of one machine.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
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
