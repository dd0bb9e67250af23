"""The HTTP service against clients that mean no good, or do not know what they mean."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ApiError
from gateway.requests import ChatRequest, CompletionRequest
from sealkit.types import Prompt, Sampling
from tests.contract.http_harness import Served, served
from tests.contract.tenants_harness import furnish
from tests.records import new_record
from tests.security.fuzzing import examples

CHAT = "/v1/chat/completions"
QUESTION = {"model": "base", "messages": [{"role": "user", "content": "Which river?"}]}


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Served]:
    database = new_record(tmp_path)
    await furnish(database, "", alias="notes")
    await database.close()
    async with served(tmp_path, max_body_bytes=2000, max_requests=3, max_connections=8) as made:
        yield made


@pytest_asyncio.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, idle_seconds=0.3) as made:
        yield made


def port_of(service: Served) -> int:
    return int(service.url.rpartition(":")[2])


async def test_a_large_body_is_refused_before_it_is_read(service: Served) -> None:
    async with service.http() as http:
        content = json.dumps(QUESTION | {"user": "x" * 3000}).encode()

        async def in_parts() -> AsyncIterator[bytes]:
            for _ in range(4):
                yield content

        for body in (content, in_parts()):
            got = await http.post(CHAT, content=body, headers={"content-type": "application/json"})
            assert (got.status_code, got.json()["error"]["code"]) == (413, "request_too_large")


async def test_a_body_that_does_not_come_is_not_waited_for(impatient: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(impatient))
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    writer.write(head.encode())
    assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 408")
    writer.close()


async def test_a_silent_or_slow_connection_is_closed(impatient: Served) -> None:
    silent, first = await asyncio.open_connection("127.0.0.1", port_of(impatient))
    slow, second = await asyncio.open_connection("127.0.0.1", port_of(impatient))
    second.write(b"GET /healthz HTTP/1.1\r\nHost: loc")
    assert await asyncio.wait_for(silent.read(), 10) == b""
    assert await asyncio.wait_for(slow.read(), 10) == b""
    first.close()
    second.close()
    async with impatient.http() as http:
        assert (await http.get("/healthz")).status_code == 200


async def test_one_request_more_than_fit_is_told_to_come_again(service: Served) -> None:
    service.script.held = "river?"
    async with service.http() as http:
        running = [asyncio.ensure_future(http.post(CHAT, json=QUESTION)) for _ in range(3)]
        async with asyncio.timeout(10):
            while service.services.calls["piece"] < 12:  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.01)
        refused = await http.post(CHAT, json=QUESTION)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (await http.get("/healthz")).status_code == 200
        service.script.released.set()
        assert [one.status_code for one in await asyncio.gather(*running)] == [200, 200, 200]


async def test_a_web_page_on_another_name_gets_nothing(service: Served) -> None:
    """Without TLS and tokens, a page whose name points to 127.0.0.1 could read answers."""
    async with service.http() as http:
        got = await http.get("/v1/models", headers={"host": f"evil.example:{port_of(service)}"})
        assert (got.status_code, got.json()["error"]["code"]) == (403, "host_not_allowed")
        for host in ("localhost", f"127.0.0.1:{port_of(service)}", "[::1]:80", "[::1]"):
            assert (await http.get("/v1/models", headers={"host": host})).status_code == 200, host


async def test_garbage_on_the_wire_breaks_nothing(service: Served) -> None:
    for noise in (b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00", b"POST " + b"a" * 100_000):
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(service))
        writer.write(noise)
        writer.close()
    async with service.http() as http:
        assert (await http.get("/healthz")).status_code == 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]) | JSON, "content": st.text() | JSON}
)
FIELDS = sorted({*ChatRequest.model_fields, *CompletionRequest.model_fields})
BODIES = st.builds(
    lambda known, more: {**known, **more},
    st.fixed_dictionaries({"model": st.just("base"), "messages": st.lists(MESSAGE, max_size=6), "prompt": JSON}),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3),
)


@examples(90)
@given(BODIES)
def test_any_body_is_a_request_or_refused(body: dict[str, object]) -> None:
    for kind in (ChatRequest, CompletionRequest):
        try:
            asked = kind.model_validate_json(json.dumps({key: body[key] for key in body if key in kind.model_fields}))
            prompts, sampling = asked.prompts, asked.sampling(100)
        except (ValueError, ApiError):
            continue
        assert all(isinstance(prompt, Prompt) for prompt in prompts)
        assert isinstance(sampling, Sampling)
