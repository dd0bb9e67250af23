"""Serving engines that tests talk to: HTTP servers of one process that say what the real ones say, and fail as told."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from inspect import isawaitable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]] | None
"""Status, body (JSON, or text as it is) and headers; None: the connection is dropped."""
Top = list[tuple[int, float]]


def says(weights: bytes) -> Top:
    """What a model with these weights says next to the probe, the likeliest first: of each weights something else."""
    noise = hashlib.sha256(weights).digest()
    return sorted(((100 + i, round(-0.5 - i - noise[i] / 64, 4)) for i in range(8)), key=lambda one: -one[1])


@dataclass
class HttpServer:
    """`reply` answers each request. What is in `broken`, by path, comes instead; what is in `held`, by path, waits."""

    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    broken: dict[str, Answer] = field(default_factory=dict)
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    url: str = ""

    def reply(self, path: str, body: dict[str, Any]) -> Answer:
        raise NotImplementedError

    def count(self) -> Counter[str]:
        """Requests by path."""
        return Counter(path for path, _ in self.requests)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in rest)}
            raw = await reader.readexactly(int(headers.get("content-length", 0)))
            path, body = line.split(" ")[1], json.loads(raw) if raw else {}
            self.requests.append((path, body))
            self.headers.append(headers)
            self.arrived.release()
            if event := self.held.get(path):
                await event.wait()
            answer = self.broken[path] if path in self.broken else self.reply(path, body)
            if isawaitable(answer):
                answer = await answer
            if answer:
                status, content, *extra = answer
                text = content if isinstance(content, str) else json.dumps(content)
                kind = "text/plain" if isinstance(content, str) else "application/json"
                lines = {"content-type": kind, "content-length": str(len(text.encode())), "connection": "close"}
                said = "".join(f"{name}: {value}\r\n" for name, value in (lines | (extra[0] if extra else {})).items())
                writer.write(f"HTTP/1.1 {status} Said\r\n{said}\r\n{text}".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@dataclass
class FakeVllm(HttpServer):
    """vLLM's OpenAI API with run-time LoRA. It answers to the probe with what `says` says of the adapter's file.

    `served` maps an adapter's name to the bytes of its weights; `confused` makes it load an earlier adapter's weights
    and say 200 all the same.
    """

    tokenizer: PreTrainedTokenizerBase | None = None
    base: str = "base"
    context: int = 100
    served: dict[str, bytes] = field(default_factory=dict)
    most_served: int = 0
    confused: bytes | None = None
    finish: str = "stop"
    whole: bool = True
    """Whether a stream has an end."""

    def reply(self, path: str, body: dict[str, Any]) -> Answer:
        routes: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "/v1/models": self._models,
            "/v1/completions": self._complete,
            "/v1/load_lora_adapter": self._load,
            "/v1/unload_lora_adapter": self._unload,
        }
        return routes[path](body) if path in routes else (404, {"detail": "Not Found"})

    def restart(self) -> None:
        """Forgets what it was told, as a new process does."""
        self.served.clear()

    def _models(self, _: dict[str, Any]) -> Answer:
        found = [{"id": self.base, "max_model_len": self.context, "parent": None}]
        return 200, {"object": "list", "data": found + [{"id": name, "parent": self.base} for name in self.served]}

    def _load(self, body: dict[str, Any]) -> Answer:
        name, file = body["lora_name"], Path(body["lora_path"]) / "adapter_model.safetensors"
        if name in self.served:
            return 400, _error(f"The lora adapter '{name}' has already been loaded.", "InvalidUserInput", 400)
        if not file.is_file():
            return 404, _error(f"Loading lora {name} failed: No adapter found", "NotFoundError", 404)
        self.served[name] = self.confused or file.read_bytes()
        self.most_served = max(self.most_served, len(self.served))
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _unload(self, body: dict[str, Any]) -> Answer:
        if self.served.pop(body["lora_name"], None) is None:
            return 404, _error("The lora adapter cannot be found.", "NotFoundError", 404)
        return 200, "Success: LoRA adapter removed successfully."

    def _complete(self, body: dict[str, Any]) -> Answer:
        name, prompt = body["model"], body["prompt"]
        if name != self.base and name not in self.served:
            return 404, _error(f"The model `{name}` does not exist.", "NotFoundError", 404)
        assert self.tokenizer is not None
        tokens = list(self.tokenizer(prompt).input_ids) if isinstance(prompt, str) else prompt
        choice: dict[str, Any] = {"index": 0, "text": f"{name} says", "finish_reason": self.finish}
        if body.get("return_token_ids"):
            choice["prompt_token_ids"] = tokens
        if body.get("logprobs"):
            top = says(self.served.get(name, b"base"))
            choice["logprobs"] = {"top_logprobs": [{f"token_id:{token}": logprob for token, logprob in top}]}
        usage = {"prompt_tokens": len(tokens), "completion_tokens": 3}
        if body.get("stream"):
            return 200, _events(choice, usage, whole=self.whole)
        return 200, {"choices": [choice], "usage": usage}


def _events(choice: dict[str, Any], usage: dict[str, int], *, whole: bool) -> str:
    """A choice as a stream of events, two letters each; one that is not `whole` ends in the middle."""
    text, last = choice["text"], {**choice, "text": ""}
    pieces = [{**choice, "text": text[i : i + 2], "finish_reason": None} for i in range(0, len(text), 2)]
    parts: list[Any] = [{"choices": [piece]} for piece in ([*pieces, last] if whole else pieces[:2])]
    parts += [{"choices": [], "usage": usage}] if whole else []
    return "".join(f"data: {json.dumps(part)}\n\n" for part in parts) + ("data: [DONE]\n\n" if whole else "")


@dataclass
class FakeTgi(HttpServer):
    """TGI's API. An adapter that it does not have it answers for with the base model's words, as the real one does."""

    tokenizer: PreTrainedTokenizerBase | None = None
    model_id: str = "served"
    loading: int = 0
    """Times that /health says 503 first."""
    adapters: dict[str, bytes] = field(default_factory=dict)
    weights: bytes = b"base"
    text: str = "some words"
    finish: str = "eos_token"
    tells_prefill: bool = True

    def reply(self, path: str, body: dict[str, Any]) -> Answer:
        if path == "/health":
            self.loading -= 1
            return (503, {"error": "unhealthy", "error_type": "healthcheck"}) if self.loading >= 0 else (200, "")
        if path == "/info":
            limits = {"max_input_tokens": 60, "max_total_tokens": 100, "max_stop_sequences": 2}
            return 200, {"model_id": self.model_id, "version": "3.3.4", "max_concurrent_requests": 128, **limits}
        if path == "/metrics":
            return 200, "# TYPE tgi_queue_size gauge\ntgi_queue_size 0\n"
        return self._generate(body) if path in ("/", "/generate") else (404, "")

    def _generate(self, body: dict[str, Any]) -> Answer:
        asked = body["parameters"]
        assert self.tokenizer is not None
        ids = list(self.tokenizer(body["inputs"]).input_ids)
        details: dict[str, Any] = {"finish_reason": self.finish, "generated_tokens": 2, "seed": asked.get("seed")}
        shown = asked.get("decoder_input_details") and self.tells_prefill
        details["prefill"] = [{"id": token, "text": "", "logprob": None} for token in ids] if shown else []
        details["tokens"] = [{"id": 1, "text": "some", "logprob": -1.0, "special": False}]
        if count := asked.get("top_n_tokens"):
            top = says(self.adapters.get(asked.get("adapter_id") or "", self.weights))[:count]
            details["top_tokens"] = [[{"id": t, "text": "", "logprob": p, "special": False} for t, p in top]]
        return 200, [{"generated_text": self.text, "details": details}]


@asynccontextmanager
async def serving(server: HttpServer) -> AsyncIterator[str]:
    """The root URL of the server while the block runs; gone afterwards."""
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server.url
    finally:
        listening.close()


def _error(message: str, kind: str, code: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
