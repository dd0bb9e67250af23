"""Opens channels and ports: message sizes, keepalive, credentials."""

from __future__ import annotations

import socket

import grpc

from sealkit.errors import InvalidConfig, Unavailable
from sealkit.rpc.tls import Identity
from sealkit.urls import check_address

_MIB = 1024 * 1024
_HANDSHAKE_MS = 20_000
_STREAMS = 1024
"""Concurrent streams per connection; further ones wait at the client."""


def _common(max_message_mib: int) -> list[tuple[str, int | str]]:
    return [
        ("grpc.max_send_message_length", max_message_mib * _MIB),
        ("grpc.max_receive_message_length", max_message_mib * _MIB),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def client_options(max_message_mib: int) -> list[tuple[str, int | str]]:
    """Options of every channel: reconnects to a restarted service within seconds, and balances calls over the replicas
    of one DNS name."""
    return [
        *_common(max_message_mib),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.lb_policy_name", "round_robin"),
        # The services of a stack connect directly; an http_proxy for the web would break loopback.
        ("grpc.enable_http_proxy", 0),
    ]


def server_options(max_message_mib: int) -> list[tuple[str, int | str]]:
    """Options of every server: idle streams (a long training step) may be pinged, a port has one owner, and a peer that
    connects and stays silent, or opens streams without end, does not block others."""
    return [
        *_common(max_message_mib),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.so_reuseport", 0),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.max_concurrent_streams", _STREAMS),
    ]


def open_channel(
    address: str,
    *,
    max_message_mib: int = 64,
    identity: Identity | None = None,
    token: str = "",
    server_name: str = "",
) -> grpc.aio.Channel:
    """A channel for asyncio; to be opened within the event loop that uses it. `server_name`: the name that the server's
    certificate must have, if not the host. Raises InvalidConfig if the address is none, on unreadable TLS files, and if
    a token would be sent without TLS."""
    options = client_options(max_message_mib)
    _check(address)
    if identity is None:
        _refuse_open(token)
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(
        address, identity.channel_credentials(token), options=[*options, *_called(server_name)]
    )


def open_sync_channel(
    address: str, *, max_message_mib: int = 64, identity: Identity | None = None, token: str = ""
) -> grpc.Channel:
    """A channel for blocking calls. Raises what `open_channel` raises."""
    options = client_options(max_message_mib)
    _check(address)
    if identity is None:
        _refuse_open(token)
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, identity.channel_credentials(token), options=options)


def _check(address: str) -> None:
    """gRPC itself would take port 443, or a port modulo 65536."""
    try:
        check_address(address)
    except ValueError as error:
        raise InvalidConfig(f"address {error}") from error


def _called(server_name: str) -> list[tuple[str, int | str]]:
    return [("grpc.ssl_target_name_override", server_name)] if server_name else []


def _refuse_open(token: str) -> None:
    if token:
        raise InvalidConfig("a token is only sent over TLS; set the CA's file too (SEAL_TLS_CA)")


def bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
    """Binds the server and returns its port. Raises Unavailable with the address if that fails."""
    try:
        if not address.startswith("unix:"):
            _probe(address)
        return server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except (OSError, RuntimeError) as error:
        raise cannot_listen(address, error) from error


def cannot_listen(address: str, error: Exception) -> Unavailable:
    """The error of a port that cannot be bound."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return Unavailable(
        f"cannot listen on {address}: {reason}. Stop the program on that port, or choose another address"
    )


def _probe(address: str) -> None:
    """Tries the port with a plain socket first, because gRPC does not report the operating system's error."""
    host, _, port = address.rpartition(":")
    family, kind, protocol, _, where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(where)
