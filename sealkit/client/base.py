"""What the blocking and the asyncio client share: the connection, the retries, the traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from seal.controller.v1 import controller_pb2_grpc

from sealkit.callers import reads
from sealkit.observability import tracing
from sealkit.rpc.authority import TENANT_KEY
from sealkit.rpc.controller_calls import Call
from sealkit.rpc.tls import Identity

T = TypeVar("T")

Records = Sequence[Mapping[str, Any]]


class BaseClient:
    """The connection of a client, opened at its first call.

    `timeout` is the deadline of a call in seconds, `answer_seconds` that of a whole answer. A watcher whose stream
    breaks tries to reconnect for `reconnect_seconds` before it raises Unavailable. `identity`: TLS, with a client
    certificate or a bearer `token`. `tenant`: for an admin, the one to act for.
    """

    _RETRY_PAUSES: ClassVar[tuple[float, ...]] = (0.2, 0.5, 1.0)
    """Seconds before each further try of a call that did not reach the controller."""
    _open_channel: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        address: str = "127.0.0.1:50050",
        *,
        timeout: float = 60,
        answer_seconds: float = 600,
        reconnect_seconds: float = 300,
        max_message_mib: int = 64,
        identity: Identity | None = None,
        token: str = "",
        tenant: str = "",
    ) -> None:
        self.address = address
        self._metadata = ((TENANT_KEY, tenant),) if tenant else ()
        self._identity = identity
        self._token = token
        self._timeout = timeout
        self._answer_seconds = answer_seconds
        self._reconnect_seconds = reconnect_seconds
        self._max_message_mib = max_message_mib
        self._peer = f"controller at {address}"

    @cached_property
    def _channel(self) -> Any:
        return self._open_channel(
            self.address, max_message_mib=self._max_message_mib, identity=self._identity, token=self._token
        )

    @cached_property
    def _stub(self) -> Any:
        return controller_pb2_grpc.ControllerServiceStub(self._channel)


def span_of(call: Call[T]) -> AbstractContextManager[str]:
    """Traces a call; only one that changes something begins a trace."""
    name = f"controller/{call.method}"
    return tracing.span(name, kind="client", begins=not reads(call.method), attributes={"rpc.method": call.method})
