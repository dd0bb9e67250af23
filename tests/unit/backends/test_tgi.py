"""The backend on TGI, held to the shapes that TGI publishes: /, /health, /info, and the bodies of its errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from sealkit.backends.openai import ServedModel
from sealkit.backends.template import render_prompt
from sealkit.backends.tgi import TgiBackend, TgiOptions, parameters, plain_text
from sealkit.endpoint import EndpointOptions
from sealkit.errors import (
    AdapterMismatch,
    DeadlineExceeded,
    EndpointDenied,
    EndpointRefused,
    InvalidInput,
    InvalidModel,
    PromptTooLong,
    QueueFull,
    Unavailable,
    Unsupported,
)
from sealkit.types import AdapterRef, FinishReason, Policy, Prompt, Sampling, digest_of
from tests.serving import FakeTgi, serving
from tests.unit.backends.conftest import Make, Shelf

TOWN = Prompt(user="the town")
GREEDY = Sampling(temperature=0, max_tokens=5)


@pytest.fixture
async def tgi(model: Path) -> AsyncIterator[FakeTgi]:
    server = FakeTgi(tokenizer=AutoTokenizer.from_pretrained(model))
    async with serving(server):
        yield server


@pytest.fixture
async def make(tgi: FakeTgi, model: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    monkeypatch.setattr("sealkit.backends.tgi_client._POLL_SECONDS", 0.001)
    monkeypatch.setenv("HF_TOKEN", "hf_of_whoever_started_it")
    made: list[TgiBackend] = []

    def one(endpoint: dict[str, Any] | None = None, **options: Any) -> TgiBackend:
        quick = {"url": tgi.url, "backoff_seconds": 0.001, "retries": 2, "answer_seconds": 10} | (endpoint or {})
        served = ServedModel(model=str(model), served_as="served")
        made.append(TgiBackend(served, EndpointOptions(**quick), TgiOptions(**options), shelf.store))
        return made[-1]

    yield one
    for backend in made:
        await backend.close()


async def test_a_text_is_asked_for_in_tgis_own_words(make: Make, tgi: FakeTgi) -> None:
    backend = make()
    await backend.start()
    sampling = Sampling(
        temperature=0.7, top_p=0.9, max_tokens=7, seed=5, stop=("words", "x"), json_schema='{"type": "null"}'
    )
    said = await backend.generate(TOWN, sampling)
    path, body = tgi.requests[-1]
    asked = body["parameters"]
    assert path == "/"
    assert body["inputs"].endswith("assistant\n")
    wanted = {
        "details": True, "max_new_tokens": 7, "do_sample": True, "temperature": 0.7, "top_p": 0.9, "seed": 5,
        "stop": ["words", "x"], "return_full_text": False, "grammar": {"type": "json", "value": {"type": "null"}},
    }  # fmt: skip
    assert {name: value for name, value in asked.items() if value is not None} == wanted
    assert (said.text, said.finish_reason) == ("some ", FinishReason.STOP), "TGI leaves the stop string in"
    assert said.usage.completion_tokens == 2
    assert (backend.info.context_length, backend.info.build["adapters"]) == (100, "fixed")


def test_what_tgi_refuses_to_be_told_is_left_out() -> None:
    greedy = parameters(GREEDY, 99)
    assert (greedy["do_sample"], greedy["temperature"], greedy["seed"]) == (False, None, None)
    assert parameters(Sampling(temperature=1, top_p=1), 99)["top_p"] is None


async def test_a_model_that_is_still_loading_is_waited_for(make: Make, tgi: FakeTgi) -> None:
    tgi.loading = 3
    await make().start()
    assert tgi.count()["/health"] == 4


async def test_a_model_that_does_not_come_ends_the_wait(make: Make, tgi: FakeTgi) -> None:
    tgi.loading = 10**9
    with pytest.raises(Unavailable, match=r"not ready after 0.01 s"):
        await make(wait_seconds=0.01).start()


async def test_another_model_or_tokenizer_is_refused_at_the_start(make: Make, tgi: FakeTgi) -> None:
    tgi.model_id = "other"
    with pytest.raises(InvalidModel, match="serves 'other', not 'served'"):
        await make().start()
    tgi.model_id = "served"
    assert tgi.tokenizer is not None
    tgi.tokenizer = lambda text: type("Read", (), {"input_ids": [1, 2]})  # type: ignore[assignment]
    with pytest.raises(InvalidModel, match="tokenizes differently"):
        await make().start()
    tgi.tells_prefill = False
    await make().start()


@pytest.mark.parametrize(
    ("answer", "error", "asked"),
    [
        ((422, {"error": "Input validation error: `x`", "error_type": "validation"}), EndpointRefused, 1),
        ((429, {"error": "Model is overloaded", "error_type": "overloaded"}), QueueFull, 3),
        ((424, {"error": "Request failed during generation", "error_type": "generation"}), Unavailable, 3),
        ((500, {"error": "Incomplete generation", "error_type": "incomplete_generation"}), Unavailable, 3),
        ((503, "no server here"), Unavailable, 3),
        ((401, {"error": "who?"}), EndpointDenied, 1),
        ((400, {"error": "what?"}), EndpointRefused, 1),
        ((200, "<html>"), Unavailable, 3),
        (None, Unavailable, 3),
    ],
)
async def test_tgis_errors_are_typed_and_what_may_pass_is_tried_again(
    make: Make, tgi: FakeTgi, answer: Any, error: type[Exception], asked: int
) -> None:
    backend = make()
    await backend.start()
    before = tgi.count()["/"]
    tgi.broken["/"] = answer
    with pytest.raises(error) as raised:
        await backend.generate(TOWN, GREEDY)
    assert type(raised.value) is error
    assert tgi.count()["/"] - before == asked


async def test_a_server_that_hangs_ends_in_an_error(make: Make, tgi: FakeTgi) -> None:
    import asyncio

    backend = make({"answer_seconds": 0.3})
    await backend.start()
    tgi.held["/"] = asyncio.Event()
    with pytest.raises(DeadlineExceeded):
        await backend.generate(TOWN, GREEDY)
    tgi.held["/"].set()


async def test_adapters_that_tgi_was_started_with_are_proven_and_asked_for_by_their_id(
    make: Make, tgi: FakeTgi, shelf: Shelf
) -> None:
    ref = shelf.put("a")
    tgi.adapters["theta"] = shelf.bytes_of("a")
    backend = make(adapters={ref.digest: "theta"})
    await backend.start()
    await backend.generate(TOWN, GREEDY, policy=Policy(name="p", adapter=ref))
    assert tgi.requests[-1][1]["parameters"]["adapter_id"] == "theta"
    with pytest.raises(Unsupported, match="was not started with"):
        await backend.generate(TOWN, GREEDY, adapter=AdapterRef(digest=digest_of("trial")))


async def test_an_adapter_that_tgi_answers_for_with_its_base_is_caught(make: Make, shelf: Shelf) -> None:
    with pytest.raises(AdapterMismatch, match="--lora-adapters"):
        await make(adapters={shelf.put("a").digest: "unknown"}).start()


async def test_a_merged_policy_is_proven_and_stands_for_no_other_model(make: Make, tgi: FakeTgi, shelf: Shelf) -> None:
    ref = shelf.put("a")
    with pytest.raises(AdapterMismatch, match="as the merged model"):
        await make(merged=ref.digest).start()
    tgi.weights = shelf.bytes_of("a")
    backend = make(merged=ref.digest)
    await backend.start()
    assert (await backend.generate(TOWN, GREEDY, policy=Policy(name="p", adapter=ref))).text
    with pytest.raises(Unsupported, match="the bare base model"):
        await backend.generate(TOWN, GREEDY)


async def test_limits_of_the_server_are_kept_to(make: Make) -> None:
    backend = make()
    await backend.start()
    with pytest.raises(PromptTooLong):
        await backend.generate(Prompt(user="the town " * 40), GREEDY)
    with pytest.raises(InvalidInput, match="2 stop strings"):
        await backend.generate(TOWN, Sampling(stop=("a", "b", "c")))


async def test_the_key_is_sent_and_nobody_elses(
    make: Make, tgi: FakeTgi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await make().start()
    assert {headers["authorization"] for headers in tgi.headers} == {"Bearer none"}
    tgi.headers.clear()
    (tmp_path / "key").write_text("secret-of-tgi\n")
    backend = make({"api_key_file": str(tmp_path / "key")})
    await backend.start()
    assert {headers["authorization"] for headers in tgi.headers} == {"Bearer secret-of-tgi"}
    tgi.broken["/"] = 401, "bad key secret-of-tgi"
    with pytest.raises(EndpointDenied) as raised:
        await backend.generate(TOWN, GREEDY)
    assert "secret-of-tgi" not in raised.value.message


def test_a_chat_that_begins_with_the_token_that_tgi_adds_is_sent_without(model: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.bos_token = "<|im_start|>"
    begin = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", begin)]
    )
    wanted = render_prompt(tokenizer, TOWN)
    text, tokens = plain_text(tokenizer, TOWN)
    assert list(tokenizer(text).input_ids) == wanted
    assert (wanted[0], tokens) == (begin, wanted)
    assert wanted[1] != begin
