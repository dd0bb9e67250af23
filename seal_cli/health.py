"""Whether a server is ready: by gRPC's health protocol, or at `/healthz` over HTTP."""

from __future__ import annotations

import ssl
from http import HTTPStatus
from http.client import HTTPException
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from grpc_health.v1 import health_pb2

from sealkit.errors import InvalidConfig, SealError
from sealkit.rpc.channel import open_sync_channel
from sealkit.rpc.status import rpc_errors
from sealkit.rpc.tls import Identity


def not_serving(address: str, service: str = "", timeout: float = 1.0, *, identity: Identity | None = None) -> str:
    """Why `address` is not ready for `service` (empty: for the whole server), asked for `timeout` seconds; empty if it
    reports SERVING. An address with `http://` or `https://` is that of the gateway. Raises InvalidConfig if the address
    is none."""
    if address.startswith(("http://", "https://")):
        return _not_healthy(address, timeout, identity)
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


def _not_healthy(address: str, timeout: float, identity: Identity | None) -> str:
    if identity is None and address.startswith("https://"):
        raise InvalidConfig(f"{address} is asked over TLS, which needs the CA's file: set SEAL_TLS_CA")
    trust = [HTTPSHandler(context=ssl.create_default_context(cafile=str(identity.ca)))] if identity else []
    try:
        # No proxy: services are called directly, as gRPC's are.
        with build_opener(ProxyHandler({}), *trust).open(f"{address.rstrip('/')}/healthz", timeout=timeout) as answer:
            return "" if answer.status == HTTPStatus.OK else f"{address} reports {answer.status}"
    except (OSError, HTTPException, ValueError) as error:
        return f"{address} does not answer: {error}"
