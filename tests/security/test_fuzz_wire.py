"""Bytes that are no request, on a plain socket: broken gRPC frames, broken HTTP/2, and noise. The port serves on."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.security.calls import SERVICES, call, valid
from tests.security.fuzzing import MORE, examples
from tests.security.harness import Harness

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, payload: bytes, *, flags: int = 0, stream: int = 0, length: int | None = None) -> bytes:
    """An HTTP/2 frame (RFC 9113, 4.1); `length` where it is to lie."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size & 0xFFFFFF)[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def headers(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A header block without compression (RFC 7541, 6.2.2)."""
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"),
              (b"content-type", b"application/grpc"), (b"te", b"trailers"), *more]  # fmt: skip
    return b"".join(b"\x00" + bytes((len(k),)) + k + _length(v) + v for k, v in fields)


def _length(value: bytes) -> bytes:
    assert len(value) < 127
    return bytes((len(value),))


def sent(address: str, data: bytes) -> bytes:
    """What the port says to these bytes, until it closes or says nothing more."""
    host, _, port = address.rpartition(":")
    said = b""
    with socket.create_connection((host, int(port)), timeout=5) as connection, suppress(OSError):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(0.2)
        while part := connection.recv(65536):
            said += part
    return said


def asked(*frames: bytes) -> bytes:
    return PREFACE + frame(SETTINGS, b"") + b"".join(frames)


def open_call(data: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A call of GetRun whose data frame holds `data`."""
    path = f"/{SERVICES['controller'].full_name}/GetRun".encode()
    return asked(
        frame(HEADERS, headers(path, *more), flags=END_HEADERS, stream=1), frame(DATA, data, flags=END_STREAM, stream=1)
    )


BROKEN = {
    "a compressed message that is not": open_call(b"\x01\0\0\0\x04abcd", (b"grpc-encoding", b"gzip")),
    "an encoding that nobody knows": open_call(b"\x01\0\0\0\x04abcd", (b"grpc-encoding", b"evil")),
    "a flag that is none": open_call(b"\x7f\0\0\0\x00"),
    "a length beyond the frame": open_call(b"\0\xff\xff\xff\xffabc"),
    "half a length": open_call(b"\0\0"),
    "no message": open_call(b""),
    "two messages": open_call(b"\0\0\0\0\0" * 2),
    "a deadline that is none": open_call(b"\0\0\0\0\0", (b"grpc-timeout", b"99999999999999H")),
    "binary metadata that is no base64": open_call(b"\0\0\0\0\0", (b"x-bin", b"!!!")),
    "a token that is no text": open_call(b"\0\0\0\0\0", (b"authorization", b"Bearer \x80\xff")),
    "a path without an end": asked(frame(HEADERS, headers(b"/" * 100), flags=END_HEADERS, stream=1)),
    "data on a stream that nobody opened": asked(frame(DATA, b"x" * 100, stream=5)),
    "a window of nothing": asked(frame(WINDOW, b"\0\0\0\0")),
    "a window beyond 2**31": asked(frame(WINDOW, b"\x7f\xff\xff\xff") * 2),
    "settings that are too long": asked(frame(SETTINGS, b"\0\1\xff\xff\xff\xff" * 100)),
    "a frame that promises 16 MiB": asked(frame(DATA, b"x", stream=1, length=0xFFFFFF)),
    "header after header": asked(*[frame(CONTINUATION, b"\0" * 1000, stream=1)] * 50),
    "pings": asked(*[frame(PING, b"12345678")] * 2000),
    "streams that are opened and reset": asked(
        *[
            frame(HEADERS, headers(b"/x"), flags=END_HEADERS, stream=n) + frame(RST, b"\0\0\0\x08", stream=n)
            for n in range(1, 2001, 2)
        ]
    ),
    "a client that says good-bye first": asked(frame(GOAWAY, b"\0" * 8)),
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a TLS client": b"\x16\x03\x01\x02\x00\x01" + b"\0" * 200,
}


def still_serves(services: Harness) -> bool:
    service = SERVICES["controller"]
    method = service.methods_by_name["ListRuns"]
    with grpc.insecure_channel(services.addresses["controller"]) as channel:
        answer = call(channel, service, method, valid(method).SerializeToString(), seconds=10)
    return services.alive and answer == ("OK", "")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_connection_is_its_own_affair(services: Harness, name: str) -> None:
    sent(services.addresses["controller"], BROKEN[name])
    assert still_serves(services)


@pytest.mark.timeout(60 + 300 * MORE)
def test_noise_breaks_nothing(services: Harness) -> None:
    frames = st.builds(
        lambda kind, flags, stream, payload: frame(kind, payload, flags=flags, stream=stream),
        st.integers(0, 12), st.integers(0, 255), st.sampled_from((0, 1, 1, 3, 2**31 - 1)), st.binary(max_size=64),
    )  # fmt: skip
    call_of = st.builds(open_call, st.binary(max_size=40))
    before = services.resident_mib

    @examples(25)
    @given(
        st.one_of(st.lists(frames, min_size=1, max_size=6).map(lambda f: asked(*f)), call_of, st.binary(max_size=200))
    )
    def throw(data: bytes) -> None:
        sent(services.addresses["controller"], data)
        assert services.alive

    throw()
    assert still_serves(services)
    assert services.resident_mib - before < 100


def test_a_small_message_that_unpacks_into_a_huge_one_is_refused(services: Harness) -> None:
    before = services.resident_mib
    options = [("grpc.max_send_message_length", -1)]
    service = SERVICES["controller"]
    with grpc.insecure_channel(services.addresses["controller"], options=options) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(f"/{service.full_name}/GetRun")(
                b"\0" * (100 << 20), timeout=30, compression=grpc.Compression.Gzip
            )
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert services.resident_mib - before < 200
    assert still_serves(services)
