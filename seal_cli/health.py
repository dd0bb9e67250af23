"""Whether a server is ready: by gRPC's health protocol, or at `/healthz` over HTTP."""

from __future__ import annotations

import ssl
from http import HTTPStatus
from http.client import HTTPException
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

import grpc
from grpc_health.v1 import health_pb2

from sealkit.rpc.channel import open_sync_channel
from sealkit.rpc.tls import Identity


def is_serving(address: str, service: str = "", timeout: float = 1.0, *, identity: Identity | None = None) -> bool:
    """Whether `address` reports SERVING for `service` (empty: for the whole server) within `timeout` seconds. An address
    that begins with `http://` or `https://` is that of an HTTP service. Raises InvalidConfig on unreadable TLS files."""
    if address.startswith(("http://", "https://")):
        return _is_healthy(address, timeout, identity)
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


def _is_healthy(address: str, timeout: float, identity: Identity | None) -> bool:
    trust = ssl.create_default_context(cafile=str(identity.ca)) if identity else None
    # No proxy: services are called directly, as gRPC's are.
    ask = build_opener(ProxyHandler({}), *([HTTPSHandler(context=trust)] if trust else []))
    try:
        with ask.open(f"{address.rstrip('/')}/healthz", timeout=timeout) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except (OSError, HTTPException):
        return False
