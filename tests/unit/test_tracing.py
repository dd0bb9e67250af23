"""Traces: what a span's place is, what it tells and what it never does, and that being off or unheard costs nothing."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import structlog
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis
from pydantic import ValidationError

from sealkit.errors import InvalidConfig, QueueFull
from sealkit.observability import start, tracing
from sealkit.observability.logs import configure_logging
from sealkit.observability.start import TracingSettings, start_tracing
from sealkit.observability.tracing import followed_by
from sealkit.queue import Queue
from tests.otlp import Receiver, receiving

ROOT = Path(__file__).parents[2]
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LATER = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
UNSAMPLED = OTHER[:-2] + "00"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def sent(receiver: Receiver, *, ratio: float = 1.0) -> Iterator[Receiver]:
    """Tracing while the generator stands; afterwards everything has come."""
    stop = start_tracing("test", TracingSettings(endpoint=receiver.url, ratio=ratio))
    try:
        yield receiver
    finally:
        stop()


@pytest.fixture
def traced(receiver: Receiver) -> Iterator[Iterator[Receiver]]:
    """`next` gives the receiver; a second `next` sends what was traced."""
    running = sent(receiver)
    yield running
    running.close()


def finish(running: Iterator[Receiver]) -> None:
    assert next(running, None) is None


def test_a_span_belongs_to_the_one_around_it_or_to_the_one_it_names(traced: Iterator[Receiver]) -> None:
    receiver = next(traced)
    with tracing.span("outer") as place:
        assert place == tracing.current()
        with tracing.span("inner"):
            tracing.past("waited", time.monotonic() - 2, time.monotonic() - 1)
    with tracing.span("remote", trace=f"{OTHER} {LATER}"):
        pass
    assert tracing.current() == ""
    finish(traced)
    outer, remote = receiver.one("outer"), receiver.one("remote")
    assert place.startswith(f"00-{outer.trace}-{outer.id}-")
    assert receiver.above(receiver.one("waited")) == ["inner", "outer"]
    assert receiver.one("waited").seconds == pytest.approx(1, abs=0.01)
    assert (remote.trace, remote.parent, remote.links) == (OTHER[3:35], OTHER[36:52], (LATER[36:52],))


def test_a_call_is_below_the_span_around_and_nothing_is_below_a_call(traced: Iterator[Receiver]) -> None:
    receiver = next(traced)
    with tracing.call("call of nobody") as nowhere:
        assert nowhere == ""
    with tracing.span("reading", begins=False) as nowhere:
        assert nowhere == tracing.current() == ""
    with tracing.span("outer"), tracing.call("call", {"server.address": "a:1"}) as place:
        assert place
        assert place != tracing.current()
        with tracing.span("beside"):
            pass
    finish(traced)
    assert {span.name for span in receiver.spans} == {"outer", "call", "beside"}
    assert receiver.above(receiver.one("beside")) == ["outer"]
    assert receiver.one("call").attributes["server.address"] == "a:1"


def test_an_error_is_told_by_its_code_and_never_by_its_words(traced: Iterator[Receiver]) -> None:
    receiver = next(traced)
    for name, error in {"full": QueueFull("sesame"), "bug": ValueError("sesame"), "left": GeneratorExit()}.items():
        with suppress(QueueFull, ValueError, GeneratorExit), tracing.span(name):
            raise error
    finish(traced)
    told = {span.name: (span.failed, span.attributes.get("error.type")) for span in receiver.spans}
    assert told == {"full": (True, "QUEUE_FULL"), "bug": (True, "ValueError"), "left": (False, None)}
    assert receiver.bodies
    assert not any(b"sesame" in body for body in receiver.bodies)


async def test_a_stream_that_was_left_may_be_closed_elsewhere(traced: Iterator[Receiver]) -> None:
    receiver = next(traced)

    async def stream() -> AsyncIterator[int]:
        with tracing.span("stream"):
            yield 1
            yield 2

    numbers = stream()
    assert await asyncio.create_task(anext(numbers)) == 1  # type: ignore[arg-type]
    await asyncio.create_task(numbers.aclose())  # type: ignore[attr-defined]
    finish(traced)
    assert not receiver.one("stream").failed


def test_run_and_trial_are_told(traced: Iterator[Receiver]) -> None:
    receiver = next(traced)
    with structlog.contextvars.bound_contextvars(run="runs/a", trial="runs/a/rounds/0/trials/x", secret="sesame"):
        with tracing.span("trial"):
            tracing.note({"seal.state": "succeeded"})
    finish(traced)
    assert receiver.one("trial").attributes == {
        "seal.run": "runs/a",
        "seal.trial": "runs/a/rounds/0/trials/x",
        "seal.state": "succeeded",
    }


@pytest.mark.parametrize("trace", ["nonsense", "00-0-0-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\0"])
def test_a_place_that_is_none_is_passed_over(traced: Iterator[Receiver], trace: str) -> None:
    receiver = next(traced)
    with tracing.span("alone", trace=trace):
        pass
    finish(traced)
    assert receiver.one("alone").parent == ""


def test_whether_a_trace_is_kept_is_decided_where_it_begins(receiver: Receiver) -> None:
    running = sent(receiver, ratio=0)
    next(running)
    with tracing.span("dropped") as place:
        assert not int(place[-2:], 16) & 1
    with tracing.span("kept", trace=OTHER), tracing.span("kept too"):
        pass
    with tracing.span("dropped as well", trace=UNSAMPLED):
        pass
    finish(running)
    assert {span.name for span in receiver.spans} == {"kept", "kept too"}


def test_a_trace_goes_on_with_links_to_the_last_of_many() -> None:
    assert followed_by("", OTHER) == OTHER
    assert followed_by(OTHER, "") == OTHER
    assert followed_by(OTHER, LATER) == f"{OTHER} {LATER}"
    trace = "first"
    for number in range(100):
        trace = followed_by(trace, str(number))
    assert trace == "first 92 93 94 95 96 97 98 99"


async def test_the_queue_carries_a_trace_also_to_whoever_claims_a_message() -> None:
    server = FakeServer()

    def queue(name: str) -> Queue:
        client = FakeRedis(server=server, decode_responses=True)
        return Queue("redis://fake", consumer=name, client=client)

    first, second = queue("first"), queue("second")
    await first.put("run", ["a"], trace=OTHER)
    await first.put("run", ["b"])
    assert [(d.body, d.trace) for d in await first.take({"run": 2})] == [("a", OTHER), ("b", "")]
    await asyncio.sleep(0.003)  # fakeredis, unlike Redis, does not count what was read within this very millisecond
    claimed = await second.take_idle(["run"], 2, idle_seconds=0)
    assert [(d.body, d.trace, d.previous) for d in claimed] == [("a", OTHER, "first"), ("b", "", "first")]
    await first.close()
    await second.close()


def test_log_lines_name_the_trace(traced: Iterator[Receiver], capsys: pytest.CaptureFixture[str]) -> None:
    next(traced)
    handlers = logging.getLogger().handlers[:]
    configure_logging("test")
    try:
        with tracing.span("outer") as place:
            structlog.get_logger("a").info("inside")
        structlog.get_logger("a").info("outside")
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers[:] = handlers
    inside, outside = capsys.readouterr().err.splitlines()
    assert f'"trace_id": "{place[3:35]}"' in inside
    assert "trace_id" not in outside


def test_off_by_default_nothing_is_sent_or_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEAL_TRACES_ENDPOINT", raising=False)
    start_tracing("test", TracingSettings())()
    with tracing.span("outer") as place, tracing.call("call"):
        tracing.past("waited", 0, 1)
        tracing.note({"a": 1})
        assert place == tracing.current() == ""
    code = (
        "import sys, sealkit.client, sealkit.rpc.server; print(any(m.startswith('opentelemetry') for m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize("how", ["nobody there", "never answers"])
def test_an_endpoint_that_is_dead_holds_nobody_up(
    receiver: Receiver, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "_STOP_SECONDS", 0.2)
    monkeypatch.setattr("sealkit.observability.otel._EXPORT_SECONDS", 0.2)  # else its thread outlives the test
    receiver.hold = threading.Event()
    stop = start_tracing("test", TracingSettings(endpoint=closed_port() if how == "nobody there" else receiver.url))
    began = time.thread_time()
    for _ in range(5000):  # more than the exporter keeps
        with tracing.span("outer"):
            pass
    assert time.thread_time() - began < 5
    began = time.monotonic()
    stop()
    assert time.monotonic() - began < 2


def test_settings_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="http"):
        TracingSettings(endpoint="collector:4317")
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        TracingSettings(endpoint="http://a", ratio=2)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "sealkit.observability.otel", raising=False)
    with pytest.raises(InvalidConfig, match=r"pip install 'seal-suite\[tracing\]'"):
        start_tracing("test", TracingSettings(endpoint="http://a"))
