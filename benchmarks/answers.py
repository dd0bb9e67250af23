"""Answers of many aliases at once: `python -m benchmarks.answers --model FOLDER [--tokens 64] [--threads 1]`.

    T    Transformers and PEFT, one request after the other, in the order in which they came
    S    ours: HTTP, controller, evaluator, each a process; all requests at once

With 1, 4 and 16 aliases, one request to each, all sent at the same moment: tokens per second from then to the last
token, and the time to the first token of each request, waiting included. Adapters are random, rank 16 on all seven
projections; greedy. Both ways run in turn, `--repeats` times; the numbers are medians. How many of the texts of S are
those of T is counted too. `--tiny`: a tiny random model, to try the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import httpx2 as httpx
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.streamers import BaseStreamer

from benchmarks.answer_stack import AnswerStack, publish
from sealkit.backends.models import describe_model
from sealkit.store import AdapterStore
from sealkit.testing.peft_reference import PeftReference
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import digest_of

ALIASES = (1, 4, 16)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
QUESTIONS = (
    "What is the name of the river that runs through the town?", "Who built the lighthouse, and when?",
    "Describe what a lighthouse is for.", "Which books did she write about the machine?",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """Of one burst of requests: seconds to each first token, seconds to the last of all, tokens, and the texts."""

    first: tuple[float, ...]
    seconds: float
    tokens: int
    texts: tuple[str, ...]


class _Clocked(BaseStreamer):
    """Notes when the first sampled token came."""

    def __init__(self) -> None:
        self.puts = 0
        self.first = 0.0

    def put(self, value: torch.Tensor) -> None:
        del value
        self.puts += 1
        if self.puts == 2:  # the first is the prompt
            self.first = time.perf_counter()

    def end(self) -> None: ...


class Plain:
    """Transformers and PEFT as they are, serving one request after the other."""

    def __init__(self, folder: Path, store: AdapterStore, adapters: dict[str, str], scratch: Path) -> None:
        from peft import PeftModel

        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for place, (name, digest) in enumerate(adapters.items()):
            at = scratch / name
            at.mkdir()
            for file, content in store.fetch(digest).items():
                (at / file).write_bytes(content)
            if place == 0:
                self._model = PeftModel.from_pretrained(self._model, at, adapter_name=name)
            else:
                self._model.load_adapter(str(at), adapter_name=name)
        self._model.eval()

    def serve(self, requests: Sequence[tuple[str, str]], tokens: int) -> Measured:
        """Serves (alias, question) one after the other; all came at the same moment."""
        began, first, sampled, texts = time.perf_counter(), [], 0, []
        for alias, question in requests:
            self._model.set_adapter(alias)
            ids: Any = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt",
                return_dict=True,
            )  # fmt: skip
            clocked = _Clocked()
            with torch.inference_mode():
                out = self._model.generate(**ids, do_sample=False, max_new_tokens=tokens, streamer=clocked)
            new = out[0, ids["input_ids"].shape[1] :]
            first.append(clocked.first - began)
            sampled += len(new)
            texts.append(str(self._tokenizer.decode(new, skip_special_tokens=True)))
        return Measured(tuple(first), time.perf_counter() - began, sampled, tuple(texts))


async def serve(url: str, requests: Sequence[tuple[str, str]], tokens: int) -> Measured:
    """Sends all requests to the HTTP service at once."""
    async with httpx.AsyncClient(base_url=url, timeout=3600, trust_env=False) as http:
        began = time.perf_counter()
        got = await asyncio.gather(*(_ask(http, alias, question, tokens, began) for alias, question in requests))
        seconds = time.perf_counter() - began
    return Measured(tuple(one[0] for one in got), seconds, sum(one[1] for one in got), tuple(one[2] for one in got))


async def _ask(http: httpx.AsyncClient, alias: str, question: str, tokens: int, began: float) -> tuple[float, int, str]:
    first, text, sampled = 0.0, "", 0
    body = {
        "model": alias, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": tokens,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            data = line.removeprefix("data: ")
            if not line.startswith("data: ") or data == "[DONE]":
                continue
            chunk = json.loads(data)
            if "error" in chunk:
                raise RuntimeError(chunk["error"]["message"])
            for choice in chunk["choices"]:
                if more := choice["delta"].get("content"):
                    first = first or time.perf_counter() - began
                    text += more
            if chunk.get("usage"):
                sampled = chunk["usage"]["completion_tokens"]
    return first or time.perf_counter() - began, sampled, text


def make_adapters(folder: Path, store: AdapterStore, count: int, *, rank: int, std: float) -> dict[str, str]:
    """`count` random adapters in the store: alias → digest."""
    arguments = {"r": rank, "lora_alpha": 2 * rank, "target_modules": TARGETS}
    reference = PeftReference(folder, {f"alias-{i}": arguments for i in range(count)}, std=std)
    base = describe_model(str(folder))[1].digest
    found = {}
    for i in range(count):
        name, digest = f"alias-{i}", digest_of("benchmarks.answers", i, rank, std)
        store.put(digest, reference.files(name), {"base_model": {"digest": base}})
        found[name] = digest
    return found


async def measure(model: Path, scratch: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each number of aliases and way."""
    store = AdapterStore(str(scratch / "store"))
    adapters = make_adapters(model, store, max(ALIASES), rank=16, std=0.02)
    plain = Plain(model, store, adapters, scratch)
    stack = AnswerStack(scratch, model, scratch / "store", threads=options.threads)
    await publish(stack.database, adapters, describe_model(str(model))[1].digest)
    for name in ("evaluator", "controller", "gateway"):
        stack.start(name)
    rows = []
    try:
        await stack.ready("evaluator", "controller", "gateway")
        every = [(alias, QUESTIONS[i % len(QUESTIONS)]) for i, alias in enumerate(adapters)]
        await serve(stack.url, every, 2)  # adapters are loaded and verified
        plain.serve(every[:1], 2)
        for count in ALIASES:
            found: dict[str, list[Measured]] = {"T": [], "S": []}
            for _ in range(options.repeats):
                found["T"].append(await asyncio.to_thread(plain.serve, every[:count], options.tokens))
                found["S"].append(await serve(stack.url, every[:count], options.tokens))
            same = sum(a == b for a, b in zip(found["T"][0].texts, found["S"][0].texts, strict=True))
            for way, got in found.items():
                rows.append(
                    {
                        "aliases": count,
                        "way": way,
                        "tokens_per_second": median(one.tokens / one.seconds for one in got),
                        "first_token_mean": median(mean(one.first) for one in got),
                        "first_token_last": median(max(one.first) for one in got),
                        "same_texts": same if way == "S" else None,
                    }
                )
    finally:
        stack.stop()
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| aliases at once | way | tokens/s | first token, mean (s) | first token, last (s) | texts as T's |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        same = "" if row["same_texts"] is None else f"{row['same_texts']} of {row['aliases']}"
        lines.append(
            f"| {row['aliases']} | {row['way']} | {row['tokens_per_second']:.1f} | {row['first_token_mean']:.2f} | "
            f"{row['first_token_last']:.2f} | {same} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path(".seal/models/smollm2-135m-instruct"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = make_tiny_model(scratch / "tiny") if options.tiny else options.model.resolve()
        rows = asyncio.run(measure(model, scratch, options))
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
