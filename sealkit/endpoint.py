"""One client for OpenAI-compatible HTTP endpoints: bounded retries, deadlines, a circuit breaker, a limit on concurrent
calls. The key never appears in messages."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from sealkit.breaker import CircuitBreaker
from sealkit.errors import (
    DeadlineExceeded,
    EndpointDenied,
    EndpointRefused,
    InvalidConfig,
    ResourceExhausted,
    SealError,
    Unavailable,
)
from sealkit.reasoning import split_unknown

_BUSY = 429
_AWAY = frozenset({502, 503, 504})
_MOST_BYTES = 64 << 20
"""Most bytes of one reply."""
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
_SHOWN = 300
"""Characters of an endpoint's own message that an error quotes."""


class EndpointOptions(BaseModel):
    """Address and timeouts of an endpoint. Contains no key: `api_key_env` and `api_key_file` name its source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(description="Base URL; paths are appended to it.")
    api_key_env: str = Field("", description="Environment variable that holds the API key; empty: none.")
    api_key_file: str = Field("", description="File that holds the API key; empty: none.")
    connect_seconds: float = Field(5, gt=0)
    answer_seconds: float = Field(120, gt=0, description="Timeout of one attempt, up to the whole reply.")
    deadline_seconds: float = Field(300, gt=0, description="Timeout of one call, with all attempts and waits.")
    retries: int = Field(4, ge=0, le=20, description="Attempts after the first.")
    backoff_seconds: float = Field(0.5, gt=0, description="Longest first wait; doubled with each attempt.")
    longest_wait_seconds: float = Field(30, gt=0, description="A longer Retry-After ends the call.")
    concurrency: int = Field(16, ge=1, description="Concurrent requests; more have to wait.")
    breaker_failures: int = Field(
        32,
        ge=1,
        description="Consecutive failures that open the circuit breaker. More than `concurrency`, because concurrent "
        "requests fail together.",
    )
    breaker_seconds: float = Field(15, gt=0, description="Seconds that the circuit breaker stays open.")

    @field_validator("url")
    @classmethod
    def _base(cls, url: str) -> str:
        """The message does not quote the URL: it may hold a password."""
        if not re.match(r"https?://", url):
            raise ValueError("an endpoint's URL begins with http:// or https://, as in http://host:8000/v1")
        if re.search(r"[@?#]", url):
            raise ValueError(
                "an endpoint's URL has no user, password, query or fragment; name the key's variable with api_key_env, "
                "or its file with api_key_file"
            )
        try:
            parts = urlsplit(url)
            if not parts.hostname or re.search(r"\s", url) or parts.port == 0:
                raise ValueError
        except ValueError:
            raise ValueError("not a URL of the form http://host:port/v1, with a port of at most 65535") from None
        return url


@dataclass(frozen=True, slots=True)
class Chat:
    """The text of a chat completion, whether its token limit cut it off, and its tokens; 0 if the endpoint does not
    report them. `reasoning`: what a thinking model wrote before the text."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    cut: bool = False
    reasoning: str = ""


class Endpoint:
    """Calls one endpoint. Its calls raise:

    Unavailable: no answer, or 5xx after all retries, or a reply that is not JSON. DeadlineExceeded: one attempt or the
    whole call took too long. ResourceExhausted: 429 after all retries; `retry_after` from the endpoint. EndpointDenied:
    401 or 403. EndpointRefused: any other 3xx or 4xx; `metadata["status"]` is the status code.
    """

    def __init__(self, options: EndpointOptions, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Sends nothing yet. Raises InvalidConfig if the URL is invalid or the key is missing."""
        self.url = options.url.rstrip("/")
        try:
            httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise InvalidConfig(f"{self.url!r} is not a URL: {error}") from error
        self._options = options
        self._key = read_api_key(options)
        self._slots = asyncio.Semaphore(options.concurrency)
        self._breaker = CircuitBreaker(self.url, failures=options.breaker_failures, seconds=options.breaker_seconds)
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._key.get_secret_value()}"} if self._key else {},
            timeout=httpx.Timeout(options.answer_seconds, connect=options.connect_seconds, pool=None),
            limits=httpx.Limits(max_connections=options.concurrency),
            transport=transport,
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def chat(self, body: Mapping[str, Any]) -> Chat:
        """`POST /chat/completions` with one choice; repeatable, so a lost connection is retried."""
        reply = await self.json("POST", "/chat/completions", body, repeatable=True)
        try:
            message = reply["choices"][0]["message"]
            said = split_unknown(str(message["content"] or ""))
            apart = message.get("reasoning_content") or message.get("reasoning") or ""
            usage = reply.get("usage") or {}
            tokens = [token_count(usage.get(kind)) for kind in ("prompt_tokens", "completion_tokens")]
            cut = reply["choices"][0].get("finish_reason") == "length"
            return Chat(said.text, tokens[0], tokens[1], cut, said.reasoning or str(apart))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise Unavailable(f"{self.url} did not answer with a chat completion: {self._shown(reply)}") from error

    async def json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, repeatable: bool = False
    ) -> dict[str, Any]:
        """Like `text`; the answer as a JSON object."""
        return self._object(await self.text(method, path, body, repeatable=repeatable), f"{self.url}{path}")

    def _object(self, text: str, url: str) -> dict[str, Any]:
        """A JSON object in a reply of `url`. Raises Unavailable."""
        try:
            value = json.loads(text)
            if _HALF_PAIR.search(text):  # JSON can contain half a surrogate pair; protobuf messages cannot
                value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
        except (ValueError, RecursionError) as error:
            raise Unavailable(f"{url} did not answer with JSON: {self._shown(text)}") from error
        if not isinstance(value, dict):
            raise Unavailable(f"{url} answered with JSON that is not an object: {self._shown(text)}")
        return value

    async def text(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, repeatable: bool = False
    ) -> str:
        """One call, `body` sent as JSON. Failed connections, 429, 502, 503 and 504 are retried; a connection that was
        lost after the request was sent only if the request is `repeatable`."""
        try:
            async with asyncio.timeout(self._options.deadline_seconds):
                for attempt in range(self._options.retries + 1):
                    outcome = await self._attempt(method, path, body, repeatable, first=attempt == 0)
                    if isinstance(outcome, str):
                        return outcome
                    wait = self._wait(attempt, outcome)
                    if attempt == self._options.retries or wait > self._options.longest_wait_seconds:
                        raise outcome
                    await asyncio.sleep(wait)
        except TimeoutError as error:
            seconds = self._options.deadline_seconds
            raise DeadlineExceeded(f"{self.url}{path} gave no answer in {seconds:g} s, retries included") from error
        raise AssertionError("the loop returns or raises")

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a streamed reply to `POST`, each a JSON object, up to `[DONE]`. Not retried: what came cannot
        be taken back."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._slots)
            stack.enter_context(self._breaker.attempt())
            url = f"{self.url}{path}"
            try:
                response = await stack.enter_async_context(self._client.stream("POST", url, json=body))
                if not response.is_success:
                    outcome = self._outcome(path, await self._whole(response, url))
                    assert not isinstance(outcome, str)
                    raise outcome
                async for event in self._events(response, url):
                    yield event
                self._breaker.succeeded()
            except httpx.TimeoutException as error:
                self._breaker.failed()
                raise DeadlineExceeded(f"{url} sent nothing for {self._options.answer_seconds:g} s") from error
            except httpx.HTTPError as error:
                self._breaker.failed()
                raise Unavailable(f"{url}: the connection was lost: {self._shown(error)}; is it running?") from None

    async def _events(self, response: httpx.Response, url: str) -> AsyncGenerator[dict[str, Any], None]:
        """The data of server-sent events, one line each, of a reply of bounded size."""
        rest, size = b"", 0
        async for part in response.aiter_bytes():
            size += len(part)
            if size > _MOST_BYTES:
                raise self._too_much(url)
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                data = line.strip().removeprefix(b"data:").strip()
                if not line.startswith(b"data:") or data == b"[DONE]":
                    continue
                event = self._object(data.decode("utf-8", "replace"), url)
                if event.get("error"):
                    raise Unavailable(f"{url} failed in the middle: {self._shown(event['error'])}")
                yield event

    async def _attempt(
        self, method: str, path: str, body: Mapping[str, Any] | None, repeatable: bool, *, first: bool
    ) -> str | SealError:
        """The reply, or a transient error; raises permanent ones. An open breaker fails new calls at once, and makes
        those between attempts wait."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._slots)
            try:
                stack.enter_context(self._breaker.attempt())
            except Unavailable as spared:
                if first:
                    raise
                return spared
            try:
                async with asyncio.timeout(self._options.answer_seconds):
                    response = await self._ask(method, f"{self.url}{path}", body)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                self._breaker.failed()
                return Unavailable(f"{self.url} does not answer: {self._shown(error)}; is it running?")
            except (TimeoutError, httpx.TimeoutException) as error:
                self._breaker.failed()
                raise DeadlineExceeded(
                    f"{self.url}{path} gave no answer in {self._options.answer_seconds:g} s"
                ) from error
            except httpx.HTTPError as error:
                self._breaker.failed()
                lost = Unavailable(f"{self.url}{path}: the connection was lost: {self._shown(error)}")
                if repeatable:
                    return lost
                raise lost from None
            return self._outcome(path, response)

    async def _ask(self, method: str, url: str, body: Mapping[str, Any] | None) -> httpx.Response:
        """The whole response. Raises Unavailable if it does not arrive."""
        async with self._client.stream(method, url, json=body) as response:
            return await self._whole(response, url)

    async def _whole(self, response: httpx.Response, url: str) -> httpx.Response:
        """A response that was begun, with its content. Raises Unavailable if that is too large."""
        parts, size = [], 0
        async for part in response.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > _MOST_BYTES:
                raise self._too_much(url)
        headers = {name: value for name, value in response.headers.items() if name != "content-encoding"}
        return httpx.Response(response.status_code, headers=headers, content=b"".join(parts))

    def _too_much(self, url: str) -> Unavailable:
        self._breaker.failed()
        return Unavailable(f"{url} answered with more than {_MOST_BYTES >> 20} MiB")

    def _outcome(self, path: str, response: httpx.Response) -> str | SealError:
        status = response.status_code
        if status >= 500:
            self._breaker.failed()
        else:
            self._breaker.succeeded()
        if response.is_success:
            return response.text
        metadata = {"status": str(status)}
        said = f"{self.url}{path} answered {status}: {self._shown(response.text)}"
        if status == _BUSY:
            return ResourceExhausted(said, metadata=metadata, retry_after=_retry_after(response))
        if status in _AWAY:
            return Unavailable(said, metadata=metadata, retry_after=_retry_after(response))
        if status >= 500:
            raise Unavailable(said, metadata=metadata)
        if status in (401, 403):
            held = (
                f"the key in {self._source()}" if self._key else "no key was sent; name one with api_key_env or _file"
            )
            raise EndpointDenied(f"{said} ({held})", metadata=metadata)
        raise EndpointRefused(said, metadata=metadata)

    def _wait(self, attempt: int, error: SealError) -> float:
        """Full jitter over an exponential bound, and never less than the endpoint asked for."""
        bound = min(self._options.longest_wait_seconds, self._options.backoff_seconds * 2**attempt)
        return max(random.uniform(0, bound), error.retry_after or 0)

    def _shown(self, said: object) -> str:
        """An endpoint's message, on one line, shortened, and without the key."""
        text = " ".join(str(said).split()) or type(said).__name__
        if self._key:
            text = text.replace(self._key.get_secret_value(), "***")
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"

    def _source(self) -> str:
        return self._options.api_key_file or f"${self._options.api_key_env}"


def read_api_key(options: EndpointOptions) -> SecretStr | None:
    """The key from the configured file or variable; None without either. Raises InvalidConfig if it is missing, empty,
    or not valid in a header."""
    if options.api_key_file:
        source = options.api_key_file
        try:
            key = Path(source).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidConfig(f"the API key cannot be read from {source}: {type(error).__name__}") from error
    elif options.api_key_env:
        source = f"${options.api_key_env}"
        key = os.environ.get(options.api_key_env, "").strip()
    else:
        return None
    if not key:
        raise InvalidConfig(f"{source} holds no API key; set it, or name another source")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidConfig(f"{source} does not contain an API key: it has characters that are not allowed in a header")
    return SecretStr(key)


def token_count(said: object) -> int:
    """A token count from an endpoint; 0 if it is not a number."""
    return int(said) if isinstance(said, int | float) and 0 <= said < 2**53 else 0


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of the Retry-After header, a number or a date (RFC 9110, 10.2.3); None without one. A date counts from
    the response's own one, because this machine's clock may be another."""
    value = response.headers.get("retry-after", "").strip()
    if not value:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
        return float(value)
    try:
        sent = response.headers.get("date")
        begins = parsedate_to_datetime(sent) if sent else datetime.now(UTC)
        return max(0.0, (parsedate_to_datetime(value) - begins).total_seconds())
    except (ValueError, TypeError):
        return None
