"""The HTTP client of endpoints, against a small server: what is tried again, what is not, and what stays secret."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sealkit.breaker import CircuitBreaker
from sealkit.endpoint import Endpoint, EndpointOptions
from sealkit.errors import (
    DeadlineExceeded,
    EndpointDenied,
    EndpointRefused,
    InvalidConfig,
    ResourceExhausted,
    SealError,
    Unavailable,
)

KEY = "sk-very-secret-0123456789"
Answer = tuple[int, dict[str, str], str] | None
"""Status, headers, body; None: the connection is dropped."""


@dataclass
class Server:
    """Answers with what `script` holds, in order, the last again and again; keeps what it was sent."""

    script: list[Answer] = field(default_factory=lambda: [(200, {}, "{}")])
    requests: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    hold: asyncio.Event | None = None
    at_once: int = 0
    most_at_once: int = 0
    url: str = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in rest)}
            body = (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
            answer = self.script[min(len(self.requests), len(self.script) - 1)]
            self.requests.append((line, headers, body))
            self.arrived.release()
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
            if self.hold:
                await self.hold.wait()
            self.at_once -= 1
            if answer:
                status, extra, text = answer
                lines = {"content-length": str(len(text.encode())), "connection": "close", **extra}
                said = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
                writer.write(f"HTTP/1.1 {status} Said\r\n{said}\r\n{text}".encode())
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    found = Server()
    listening = await asyncio.start_server(found.handle, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    async with listening:
        yield found


Make = Callable[..., Endpoint]


@pytest.fixture
async def make(server: Server) -> AsyncIterator[Make]:
    made: list[Endpoint] = []

    def one(**options: Any) -> Endpoint:
        quick = {"url": server.url, "backoff_seconds": 0.001, "retries": 2}
        made.append(Endpoint(EndpointOptions(**{**quick, **options})))
        return made[-1]

    yield one
    for endpoint in made:
        await endpoint.close()


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_what_may_pass_is_tried_again(server: Server, make: Make, status: int) -> None:
    server.script = [(status, {}, "later"), (200, {}, '{"a": 1}')]
    assert await make().json("POST", "/x", {"q": "ü"}) == {"a": 1}
    assert len(server.requests) == 2
    line, headers, body = server.requests[1]
    assert line == "POST /v1/x HTTP/1.1"
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {"q": "ü"}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, EndpointRefused) for status in (302, 400, 404)),
        *((status, EndpointDenied) for status in (401, 403)),
        (500, Unavailable),
    ],
)
async def test_what_will_not_pass_is_not(server: Server, make: Make, status: int, error: type[SealError]) -> None:
    server.script = [(status, {"location": "http://127.0.0.1:1/"}, "no such model 'm'")]
    with pytest.raises(error, match=f"{status}: no such model 'm'") as raised:
        await make().text("GET", "/x")
    assert len(server.requests) == 1
    assert raised.value.metadata == {"status": str(status)}


@pytest.mark.parametrize(("status", "error"), [(429, ResourceExhausted), (503, Unavailable)])
async def test_retries_are_bounded(server: Server, make: Make, status: int, error: type[SealError]) -> None:
    server.script = [(status, {}, "later")]
    with pytest.raises(error, match="later"):
        await make(retries=2).text("GET", "/x")
    assert len(server.requests) == 3


async def test_a_wait_longer_than_allowed_is_handed_on_to_the_caller(server: Server, make: Make) -> None:
    server.script = [(429, {"retry-after": "90"}, "later")]
    with pytest.raises(ResourceExhausted) as raised:
        await make(longest_wait_seconds=30).text("GET", "/x")
    assert raised.value.retry_after == 90
    assert len(server.requests) == 1


@pytest.mark.parametrize("value", ["Wed, 21 Oct 2099 07:28:00 GMT", "99999"])
async def test_a_retry_after_is_a_number_or_a_date(server: Server, make: Make, value: str) -> None:
    server.script = [(503, {"retry-after": value}, "later")]
    with pytest.raises(Unavailable) as raised:
        await make().text("GET", "/x")
    assert raised.value.retry_after is not None
    assert raised.value.retry_after > 90_000


async def test_a_date_to_retry_after_counts_from_the_date_of_the_response(server: Server, make: Make) -> None:
    """A clock that is decades off waits no longer."""
    dates = {"date": "Wed, 21 Oct 2099 07:26:30 GMT", "retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}
    server.script = [(503, dates, "later")]
    with pytest.raises(Unavailable) as raised:
        await make().text("GET", "/x")
    assert raised.value.retry_after == 90


async def test_a_retry_after_that_is_neither_is_passed_over(server: Server, make: Make) -> None:
    server.script = [(503, {"retry-after": "soon"}, "later"), (200, {}, "good")]
    assert await make().text("GET", "/x") == "good"


async def test_a_lost_connection_is_tried_again_only_where_that_does_no_harm(server: Server, make: Make) -> None:
    server.script = [None, (200, {}, "good")]
    with pytest.raises(Unavailable, match="the connection was lost"):
        await make().text("POST", "/x")
    assert len(server.requests) == 1
    server.requests.clear()
    assert await make().text("POST", "/x", repeatable=True) == "good"


async def test_nobody_there_is_said_with_the_url(make: Make) -> None:
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1/v1 does not answer.*is it running"):
        await make(url="http://127.0.0.1:1/v1", retries=1).text("GET", "/x")


async def test_one_attempt_and_the_whole_call_have_deadlines(server: Server, make: Make) -> None:
    server.hold = asyncio.Event()
    with pytest.raises(DeadlineExceeded, match=r"no answer in 0\.05 s$"):
        await make(answer_seconds=0.05).text("GET", "/x")
    with pytest.raises(DeadlineExceeded, match="retries included"):
        await make(deadline_seconds=0.05).text("GET", "/x")
    server.hold.set()


async def test_no_more_requests_at_once_than_allowed(server: Server, make: Make) -> None:
    server.hold, endpoint = asyncio.Event(), make(concurrency=2)
    calls = [asyncio.ensure_future(endpoint.text("GET", "/x")) for _ in range(6)]
    for _ in range(2):
        await server.arrived.acquire()
    server.hold.set()
    await asyncio.gather(*calls)
    assert (len(server.requests), server.most_at_once) == (6, 2)


async def test_the_breaker_spares_an_endpoint_that_is_down(server: Server, make: Make) -> None:
    server.script = [(500, {}, "broken")]
    endpoint = make(breaker_failures=3, breaker_seconds=60)
    for _ in range(3):
        with pytest.raises(Unavailable, match="broken"):
            await endpoint.text("GET", "/x")
    with pytest.raises(Unavailable, match="failed 3 times in a row") as raised:
        await endpoint.text("GET", "/x")
    assert len(server.requests) == 3
    assert 0 < (raised.value.retry_after or 0) <= 60


async def test_a_call_between_its_attempts_waits_for_the_breaker(server: Server, make: Make) -> None:
    server.script = [(503, {}, "later"), (200, {}, "good")]
    assert await make(breaker_failures=1, breaker_seconds=0.05, retries=3).text("GET", "/x") == "good"
    assert len(server.requests) == 2


async def test_a_request_that_is_refused_does_not_open_the_breaker(server: Server, make: Make) -> None:
    server.script = [(400, {}, "too long")]
    endpoint = make(breaker_failures=2)
    for _ in range(4):
        with pytest.raises(EndpointRefused):
            await endpoint.text("GET", "/x")


def test_after_a_while_one_may_try_and_its_outcome_decides() -> None:
    now = [0.0]
    breaker = CircuitBreaker("it", failures=1, seconds=10, clock=lambda: now[0])
    with breaker.attempt():
        breaker.failed()
    now[0] = 11
    with breaker.attempt():
        with pytest.raises(Unavailable), breaker.attempt():
            pass
        breaker.failed()
    with pytest.raises(Unavailable), breaker.attempt():
        pass
    now[0] = 22
    with breaker.attempt():
        breaker.succeeded()
    with breaker.attempt(), breaker.attempt():
        pass


CHAT = '{"choices": [{"message": {"content": "yes"}}], "usage": {"prompt_tokens": 7, "completion_tokens": 1}}'


async def test_a_chat_completion_comes_with_its_tokens(server: Server, make: Make) -> None:
    server.script = [(200, {}, CHAT)]
    said = await make().chat({"model": "m", "messages": []})
    assert (said.text, said.prompt_tokens, said.completion_tokens) == ("yes", 7, 1)
    assert server.requests[0][0].startswith("POST /v1/chat/completions ")


@pytest.mark.parametrize("text", ["<html>", "[]", "{}", '{"choices": []}', '{"choices": [{"message": "x"}]}'])
async def test_what_is_no_chat_completion_is_an_error_that_shows_it(server: Server, make: Make, text: str) -> None:
    server.script = [(200, {}, text)]
    with pytest.raises(Unavailable, match=r"a chat completion|with JSON|not an object"):
        await make().chat({"model": "m"})


@pytest.mark.parametrize("source", ["env", "file"])
async def test_the_key_is_sent_and_shows_up_nowhere(
    server: Server,
    make: Make,
    source: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SOME_KEY", KEY)
    (tmp_path / "key").write_text(f"{KEY}\n")
    options = {"api_key_env": "SOME_KEY"} if source == "env" else {"api_key_file": str(tmp_path / "key")}
    shown = [repr(EndpointOptions(url=server.url, **options)), EndpointOptions(url=server.url, **options).model_dump()]
    for status in (401, 400, 429, 500, 200):
        server.script = [(status, {}, f"you sent Bearer {KEY}")]
        with pytest.raises(SealError) as raised:
            await make(retries=0, **options).json("POST", "/x", {})
        shown += [str(raised.value), repr(raised.value), str(raised.value.metadata)]
    assert {headers["authorization"] for _, headers, _ in server.requests} == {f"Bearer {KEY}"}
    assert KEY not in f"{shown} {vars(make(**options))} {caplog.text}"


@pytest.mark.parametrize("value", ["", "  ", "a b", "schlüssel"])
def test_a_key_that_is_none_is_refused_without_being_shown(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", value)
    with pytest.raises(InvalidConfig, match=r"\$SOME_KEY") as raised:
        Endpoint(EndpointOptions(url="http://h/v1", api_key_env="SOME_KEY"))
    assert not value.strip() or value not in raised.value.message


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="nokey: FileNotFoundError"):
        Endpoint(EndpointOptions(url="http://h/v1", api_key_file=str(tmp_path / "nokey")))


@pytest.mark.parametrize("url", ["h:1", "ftp://h", "http://user:word@h/v1", "http://h/v1?key=1", ""])
def test_a_url_that_is_none_or_carries_a_secret_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        EndpointOptions(url=url)
