"""A request that the model fails on is refused alone; when the decoder can go on no more, its service ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs

from evaluator_svc.service import EvaluatorService
from generator_svc.editors import Editors
from generator_svc.service import GeneratorService
from sealkit.backends.decoding.engine import Engine
from sealkit.backends.decoding.row import Row
from sealkit.backends.decoding.stable import StableEngine
from sealkit.backends.models import ModelSettings
from sealkit.backends.transformers import TransformersBackend
from sealkit.errors import FailedPrecondition, GpuMemory, InvalidInput, Unavailable
from sealkit.rpc.server import ServerSettings, run
from sealkit.store import AdapterStore
from sealkit.types import Prompt, PromptFormat, Sampling

GOOD = [Prompt(user=f"the town {name}", format=PromptFormat.PLAIN) for name in ("of Ossel", "by the river", "and Ida")]
BAD = Prompt(user="the town that breaks everything, and then some", format=PromptFormat.PLAIN)
SAMPLING = Sampling(temperature=0, max_tokens=12)


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """The log, kept from being written: tracebacks with tensors in them take seconds."""
    with capture_logs() as entries:
        yield entries


class Panic(BaseException):
    """Like a panic in Rust: no Exception."""


def make_backend(model: Path, tmp_path: Path, **options: Any) -> TransformersBackend:
    return TransformersBackend(
        ModelSettings(model=str(model), device="cpu"), AdapterStore(tmp_path.as_uri()), max_rows=4, **options
    )


def failing_on(length: int, fault: BaseException, first_tokens: int) -> Callable[..., Any]:
    """An engine's `_logits` that fails whenever a row of this prompt's length is in it, from its nth token on."""
    whole = Engine._logits

    def logits(self: Engine, slots: Sequence[int], *args: Any, **options: Any) -> Any:
        for slot, end in zip(slots, options.get("row_ends") or [1] * len(slots), strict=True):
            row = self._slots[slot] if slot < len(self._slots) else None
            if end and row and len(row.prompt) == length and len(row.tokens) >= first_tokens:
                raise fault
        return whole(self, slots, *args, **options)

    return logits


@pytest.mark.parametrize("kind", [Engine, StableEngine])
@pytest.mark.parametrize("first_tokens", [0, 3])
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (IndexError("index out of range in self"), FailedPrecondition),
        (torch.OutOfMemoryError("CUDA out of memory"), GpuMemory),
        (Panic("called unwrap on None"), FailedPrecondition),
    ],
)
async def test_a_row_that_fails_alone_is_refused_and_the_others_are_as_ever(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Engine],
    first_tokens: int,
    fault: BaseException,
    told: type[Exception],
    logged: list[Any],
) -> None:
    backend = make_backend(model, tmp_path, deterministic="on" if kind is StableEngine else "off")
    await backend.start()
    try:
        before = [(await backend.generate(prompt, SAMPLING)).text for prompt in GOOD]
        length = len(await backend._render(BAD))
        assert length not in [len(await backend._render(prompt)) for prompt in GOOD]
        monkeypatch.setattr(Engine, "_logits", failing_on(length, fault, first_tokens))
        asked = [backend.generate(prompt, SAMPLING) for prompt in (GOOD[0], BAD, *GOOD[1:], BAD)]
        got = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20)
        assert [type(got[1]), type(got[4])] == [told, told]
        assert str(fault) in str(got[1])
        assert [getattr(one, "text", one) for one in (got[0], *got[2:4])] == before
        assert (await backend.generate(GOOD[0], SAMPLING)).text == before[0]
        assert [entry["exc_info"] for entry in logged if entry["event"] == "row_failed_alone"] == [fault, fault]
    finally:
        await backend.close()
    await asyncio.wait_for(backend.ended(), 5)


async def test_a_task_and_a_text_that_fail_alone_are_refused(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch, logged: list[Any]
) -> None:
    def broken(_engine: Engine) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(FailedPrecondition, match="ZeroDivisionError: a bug"):
        await asyncio.wrap_future(backend._loop.do(broken))
    assert [entry["event"] for entry in logged] == ["task_failed"]
    before = [(await backend.generate(prompt, SAMPLING)).text for prompt in GOOD]
    accept = Row.accept

    def refuses(self: Row, token: int, *more: Any) -> None:
        accept(self, token, *more)
        if self.sampling.seed == 99:
            raise Panic("the grammar is lost")

    monkeypatch.setattr(Row, "accept", refuses)
    asked = [backend.generate(prompt, SAMPLING) for prompt in GOOD]
    asked.append(backend.generate(GOOD[0], SAMPLING.changed(seed=99)))
    *texts, lost = await asyncio.gather(*asked, return_exceptions=True)
    assert [getattr(one, "text", one) for one in texts] == before
    assert isinstance(lost, FailedPrecondition)


async def test_a_token_without_an_embedding_is_refused_by_name(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend._held.tokenizer.add_tokens([f"<more{n}>" for n in range(200)])
    prompt = Prompt(user="the <more199>", format=PromptFormat.PLAIN)
    for asked in (backend.generate(prompt, SAMPLING), backend.divergence(["fine", "the <more199>"])):
        with pytest.raises(InvalidInput, match=r"contains '<more199>' \(token \d+\)"):
            await asked
    assert (await backend.generate(GOOD[0], SAMPLING)).usage.completion_tokens


@pytest.mark.parametrize("fault", [RuntimeError("device-side assert\nsee the manual"), Panic(), SystemExit(0)])
@pytest.mark.parametrize("service", ["generator", "evaluator"])
def test_a_service_whose_decoder_died_ends_with_one_line_and_exit_code_1(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    fault: BaseException,
    service: str,
) -> None:
    backend = make_backend(model, tmp_path)
    ends: list[Any] = []

    async def start() -> None:
        await TransformersBackend.start(backend)

        def dead(*_args: Any, **_options: Any) -> Any:
            raise fault

        backend._held.model.forward = dead  # the model is lost, whatever it is asked
        ends.append(asyncio.ensure_future(backend.generate(GOOD[0], SAMPLING)))

    monkeypatch.setattr(backend, "start", start)

    def make() -> Any:
        settings = ServerSettings(log_level="ERROR", listen="127.0.0.1:0", grace_seconds=1)
        if service == "generator":
            return GeneratorService(backend, Editors(())), settings
        return EvaluatorService(backend, kept_verdicts=9), settings

    assert run(make) == 1
    said = capfd.readouterr().err.splitlines()
    assert [line for line in said if line.startswith(f"{service} died: ")] == said[-1:]
    with pytest.raises(Unavailable, match="the decoder stopped"):
        ends[0].result()
