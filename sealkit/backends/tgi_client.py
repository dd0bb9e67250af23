"""`huggingface_hub`'s client for one TGI server, with this suite's errors, retries, limits and circuit breaker."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx2 as httpx
from huggingface_hub import AsyncInferenceClient, TextGenerationOutput
from huggingface_hub.errors import (
    HfHubHTTPError,
    InferenceTimeoutError,
    OfflineModeIsEnabled,
    OverloadedError,
    TextGenerationError,
    ValidationError,
)

from sealkit.breaker import CircuitBreaker
from sealkit.endpoint import EndpointOptions, read_api_key
from sealkit.errors import (
    DeadlineExceeded,
    EndpointDenied,
    EndpointRefused,
    InvalidConfig,
    QueueFull,
    SealError,
    Unavailable,
)

_NO_KEY = "none"
"""Sent as the token if no key is set: without a token the client sends the login of the user who started it."""
_POLL_SECONDS = 2.0
_SHOWN = 300

T = TypeVar("T")


class TgiClient:
    """Calls one server. Its calls raise Unavailable (not reachable, or the model failed: 424, 5xx), DeadlineExceeded,
    QueueFull (429 after all retries), EndpointDenied (401, 403), EndpointRefused (422 and any other 4xx), InvalidConfig
    if HF_HUB_OFFLINE forbids the call."""

    def __init__(self, options: EndpointOptions) -> None:
        """Sends nothing yet. Raises InvalidConfig if the key is missing."""
        self.url = options.url.rstrip("/")
        self._options = options
        key = read_api_key(options)
        self._key = key.get_secret_value() if key else ""
        self._client = AsyncInferenceClient(
            model=self.url, provider="hf-inference", token=self._key or _NO_KEY, timeout=options.answer_seconds
        )
        self._slots = asyncio.Semaphore(options.concurrency)
        self._breaker = CircuitBreaker(self.url, failures=options.breaker_failures, seconds=options.breaker_seconds)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def wait(self, seconds: float) -> None:
        """Waits until the server's model is ready. Raises Unavailable after `seconds`."""
        ends = time.monotonic() + seconds
        while True:
            try:
                if await self._call(self._client.health_check):
                    return
                last = "its model is not ready"
            except (Unavailable, DeadlineExceeded) as error:
                last = error.message
            if time.monotonic() >= ends:
                raise Unavailable(f"{self.url} is not ready after {seconds:g} s: {last}")
            await asyncio.sleep(min(_POLL_SECONDS, max(0.0, ends - time.monotonic())))

    async def info(self) -> dict[str, Any]:
        """`GET /info`."""
        return await self._retried(self._client.get_endpoint_info)

    async def generate(self, text: str, **parameters: Any) -> TextGenerationOutput:
        """`POST /` with these parameters, `details` among them."""
        reply = await self._retried(lambda: self._client.text_generation(text, stream=False, **parameters))
        if not isinstance(reply, TextGenerationOutput):
            raise Unavailable(f"{self.url} answered without details; is it TGI?")
        return reply

    async def _retried(self, call: Callable[[], Awaitable[T]]) -> T:
        """Retries transient errors, after a wait with full jitter."""
        options = self._options
        for attempt in range(options.retries + 1):
            try:
                async with self._slots:
                    with self._breaker.attempt():
                        return await self._counted(call)
            except (QueueFull, Unavailable) as error:
                if attempt == options.retries:
                    raise
                bound = min(options.longest_wait_seconds, options.backoff_seconds * 2**attempt)
                wait = max(random.uniform(0, bound), error.retry_after or 0)
            await asyncio.sleep(wait)
        raise AssertionError("the loop returns or raises")

    async def _counted(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            answer = await self._call(call)
        except (Unavailable, DeadlineExceeded):
            self._breaker.failed()
            raise
        except SealError:
            self._breaker.succeeded()
            raise
        self._breaker.succeeded()
        return answer

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._options.answer_seconds):
                return await call()
        except (TimeoutError, InferenceTimeoutError) as error:
            raise DeadlineExceeded(f"{self.url} gave no answer in {self._options.answer_seconds:g} s") from error
        except OfflineModeIsEnabled as error:
            raise InvalidConfig(f"HF_HUB_OFFLINE is set, so {self.url} cannot be asked; unset it") from error
        except (TextGenerationError, HfHubHTTPError, httpx.HTTPError) as error:
            raise self._typed(error) from error
        except (KeyError, TypeError, ValueError) as error:
            raise Unavailable(f"{self.url} did not answer as TGI does: {self._shown(error)}") from error

    def _typed(self, error: Exception) -> SealError:
        said = f"{self.url}: {self._shown(error)}"
        if isinstance(error, OverloadedError):
            return QueueFull(f"{said}; start TGI with a higher --max-concurrent-requests", metadata={"status": "429"})
        if isinstance(error, ValidationError):
            return EndpointRefused(said, metadata={"status": "422"})
        if isinstance(error, TextGenerationError) or not isinstance(error, HfHubHTTPError):
            return Unavailable(said)
        status = error.response.status_code
        metadata = {"status": str(status)}
        if status == 429:
            return QueueFull(said, metadata=metadata)
        if status in (401, 403):
            return EndpointDenied(said, metadata=metadata)
        return (Unavailable if status >= 500 or status == 424 else EndpointRefused)(said, metadata=metadata)

    def _shown(self, said: object) -> str:
        """On one line, cut, and without the key."""
        text = " ".join(str(said).split()) or type(said).__name__
        text = text.replace(self._key, "***") if self._key else text
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
