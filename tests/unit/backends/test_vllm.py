"""Adapters on a vLLM server: loaded once, proven, counted, and gone on every path out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sealkit.backends.lora import WEIGHTS_FILE, concatenate, dump_adapter
from sealkit.backends.models import describe_model
from sealkit.backends.openai import OpenAIBackend, ServedModel
from sealkit.backends.probe import probe_gap
from sealkit.backends.vllm import VllmAdapters, VllmOptions, read_likely
from sealkit.endpoint import EndpointOptions
from sealkit.errors import (
    AdapterMismatch,
    AdapterNotFound,
    DeadlineExceeded,
    EndpointRefused,
    InvalidInput,
    LimitExceeded,
    QueueFull,
    SealError,
    Unavailable,
)
from sealkit.reasoning import Said
from sealkit.types import AdapterRef, Policy, Prompt, Sampling, digest_of
from tests.serving import FakeVllm, serving
from tests.unit.backends.conftest import Make, Shelf

TOWN = Prompt(user="the town")
GREEDY = Sampling(temperature=0, max_tokens=5)
LOAD, UNLOAD, COMPLETE = "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/completions"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lora"


@pytest.fixture
async def make(vllm: FakeVllm, model: Path, shelf: Shelf, folder: Path) -> AsyncIterator[Make]:
    made: list[OpenAIBackend] = []

    async def one(*, answer_seconds: float = 30, **options: Any) -> OpenAIBackend:
        adapters = VllmAdapters(shelf.store, VllmOptions(folder=str(folder), **{"owner": "me", "slots": 2} | options))
        quick = EndpointOptions(url=f"{vllm.url}/v1", backoff_seconds=0.001, retries=1, answer_seconds=answer_seconds)
        made.append(OpenAIBackend(ServedModel(model=str(model), served_as="base"), quick, adapters))
        await made[-1].start()
        return made[-1]

    yield one
    for backend in made:
        await backend.close()


async def ask(backend: OpenAIBackend, adapter: AdapterRef | None, policy: AdapterRef | None = None) -> str:
    return (await backend.generate(TOWN, GREEDY, policy=Policy(name="p", adapter=policy), adapter=adapter)).text


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_server_adds_no_sampling_of_its_own_and_ends_where_we_do(
    make: Make, vllm: FakeVllm, model: Path
) -> None:
    await ask(await make(), None)
    asked = vllm.requests[-1][1]
    assert asked["stop_token_ids"] == sorted(describe_model(str(model)).end_ids)
    neutral = {"top_k": -1, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
    assert {name: asked[name] for name in neutral} == neutral


async def test_an_adapter_is_loaded_once_for_many_and_named_by_its_digest(
    make: Make, vllm: FakeVllm, shelf: Shelf, folder: Path
) -> None:
    backend, ref = await make(), shelf.put("a")
    name = f"seal-me-{digest_of(ref.digest)[:16]}"
    assert set(await asyncio.gather(*(ask(backend, ref) for _ in range(20)))) == {f"{name} says"}
    assert vllm.count()[LOAD] == 1
    assert vllm.served == {name: shelf.bytes_of("a")}
    await backend.close()
    assert (vllm.served, left(folder)) == ({}, [])


async def test_a_policy_and_a_trial_are_one_adapter_proven_by_what_the_trainer_saw_of_both(
    make: Make, vllm: FakeVllm, shelf: Shelf
) -> None:
    backend, policy, trial = await make(), shelf.put("policy", rank=3), shelf.put("trial", rank=5, over="policy")
    await ask(backend, trial, policy)
    joined = concatenate(shelf.weights("policy"), shelf.weights("trial"))
    assert list(vllm.served.values()) == [dump_adapter(joined, shelf.info.name)[WEIGHTS_FILE]]


async def test_the_one_unused_for_longest_goes(make: Make, vllm: FakeVllm, shelf: Shelf) -> None:
    backend, refs = await make(slots=2), [shelf.put(name) for name in "abc"]
    for ref in (refs[0], refs[1], refs[0], refs[2]):
        await ask(backend, ref)
    assert sorted(vllm.served.values()) == sorted([shelf.bytes_of("a"), shelf.bytes_of("c")])
    assert vllm.most_served == 2


async def test_more_adapters_than_slots_wait_and_all_are_answered(make: Make, vllm: FakeVllm, shelf: Shelf) -> None:
    backend, refs = await make(slots=2), [shelf.put(f"a{i}") for i in range(7)]
    said = await asyncio.wait_for(asyncio.gather(*(ask(backend, ref) for ref in refs * 4)), 30)
    assert said == [f"seal-me-{digest_of(ref.digest)[:16]} says" for ref in refs * 4]
    assert vllm.most_served == 2


async def test_who_is_asked_is_not_evicted(make: Make, vllm: FakeVllm, shelf: Shelf) -> None:
    backend, one, two = await make(slots=1), shelf.put("a"), shelf.put("b")
    await ask(backend, one)
    vllm.held[COMPLETE] = asyncio.Event()
    running = asyncio.create_task(ask(backend, one))
    while vllm.count()[COMPLETE] < 4:
        await vllm.arrived.acquire()
    waiting = asyncio.create_task(ask(backend, two))
    await asyncio.sleep(0)
    assert vllm.count()[UNLOAD] == 0
    vllm.held.pop(COMPLETE).set()
    assert await running != await waiting
    assert vllm.most_served == 1


async def test_one_that_leaves_and_is_asked_for_again_comes_back(make: Make, vllm: FakeVllm, shelf: Shelf) -> None:
    backend, one, two = await make(slots=1), shelf.put("a"), shelf.put("b")
    for _ in range(3):
        await asyncio.gather(ask(backend, one), ask(backend, two), ask(backend, one))
    assert vllm.most_served == 1


async def test_a_rank_that_the_server_does_not_take_is_refused_with_what_to_do(
    make: Make, vllm: FakeVllm, shelf: Shelf, folder: Path
) -> None:
    backend = await make(max_rank=6)
    with pytest.raises(LimitExceeded, match="--max-lora-rank 8"):
        await ask(backend, shelf.put("b", over="a"), shelf.put("a"))
    assert (vllm.count()[LOAD], left(folder)) == (0, [])


async def test_an_adapter_named_twice_or_of_another_base_is_refused(make: Make, shelf: Shelf) -> None:
    backend, ref = await make(), shelf.put("a")
    with pytest.raises(InvalidInput, match="name it once"):
        await ask(backend, ref, ref)
    with pytest.raises(AdapterMismatch, match="trained on base model"):
        await ask(backend, shelf.put("b", base_model={"digest": "ab" * 32}))
    with pytest.raises(AdapterNotFound):
        await ask(backend, AdapterRef(digest=digest_of("none")))


async def test_a_server_that_says_200_with_other_weights_is_caught_and_left_without_them(
    make: Make, vllm: FakeVllm, shelf: Shelf, folder: Path
) -> None:
    backend, ref = await make(), shelf.put("a")
    vllm.confused = shelf.bytes_of("b")
    with pytest.raises(AdapterMismatch, match="the probe differs by") as raised:
        await ask(backend, ref)
    assert raised.value.metadata["digest"] == ref.digest
    assert (vllm.served, left(folder)) == ({}, [])
    vllm.confused = None
    assert await ask(backend, ref)


async def test_a_server_that_answers_with_the_base_model_is_caught(make: Make, vllm: FakeVllm, shelf: Shelf) -> None:
    backend = await make()
    vllm.confused = b"base"
    with pytest.raises(AdapterMismatch):
        await ask(backend, shelf.put("a"))


@pytest.mark.parametrize("probe", [[[100, 0.0], [999, -50.0]], [[999, float("nan")]]])
async def test_a_probe_far_off_or_no_number_is_no_proof(make: Make, shelf: Shelf, probe: Any) -> None:
    with pytest.raises(AdapterMismatch):
        await ask(await make(), shelf.put("a", probe_top=probe))


async def test_what_an_earlier_process_left_goes_and_what_is_anothers_stays(
    make: Make, vllm: FakeVllm, folder: Path
) -> None:
    mine, others = f"seal-me-{'0' * 16}", [f"seal-me-too-{'0' * 16}", "seal-me-x", "somebody"]
    vllm.served |= dict.fromkeys([mine, *others], b"old")
    for name in (mine, *others):
        (folder / name).mkdir(parents=True)
    await make()
    assert sorted(vllm.served) == left(folder) == sorted(others)


async def test_a_server_that_does_not_see_the_folder_is_told_of(make: Make, shelf: Shelf) -> None:
    with pytest.raises(EndpointRefused, match="vLLM must see"):
        await ask(await make(folder_there="/nowhere"), shelf.put("a"))


async def test_a_name_that_the_server_still_has_is_replaced(make: Make, vllm: FakeVllm, shelf: Shelf) -> None:
    backend, ref = await make(), shelf.put("a")
    vllm.served[f"seal-me-{digest_of(ref.digest)[:16]}"] = b"of an earlier life"
    await ask(backend, ref)
    assert list(vllm.served.values()) == [shelf.bytes_of("a")]


async def test_a_restarted_server_is_given_its_adapters_again(make: Make, vllm: FakeVllm, shelf: Shelf) -> None:
    backend, ref = await make(), shelf.put("a")
    await ask(backend, ref)
    vllm.restart()
    outcomes = await asyncio.gather(*(ask(backend, ref) for _ in range(5)), return_exceptions=True)
    assert any(isinstance(outcome, Unavailable) and "restarted" in outcome.message for outcome in outcomes)
    assert await ask(backend, ref)
    assert list(vllm.served.values()) == [shelf.bytes_of("a")]


async def test_who_leaves_while_it_loads_leaves_it_to_the_others(make: Make, vllm: FakeVllm, shelf: Shelf) -> None:
    backend, ref = await make(slots=1), shelf.put("a")
    vllm.held[LOAD] = asyncio.Event()
    first, second = (asyncio.create_task(ask(backend, ref)) for _ in range(2))
    while not vllm.count()[LOAD]:
        await vllm.arrived.acquire()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    vllm.held.pop(LOAD).set()
    assert await second
    assert vllm.count()[LOAD] == 1
    assert await ask(backend, shelf.put("b")), "the slot of one that nobody uses is free"


async def test_a_load_that_nobody_waits_for_frees_its_slot_when_it_fails(
    make: Make, vllm: FakeVllm, shelf: Shelf
) -> None:
    backend, one, two = await make(slots=1), shelf.put("a"), shelf.put("b")
    vllm.held[LOAD] = asyncio.Event()
    vllm.broken[LOAD] = 500, "no"
    alone = asyncio.create_task(ask(backend, one))
    while not vllm.count()[LOAD]:
        await vllm.arrived.acquire()
    alone.cancel()
    waiting = asyncio.create_task(ask(backend, two))
    await asyncio.sleep(0)
    vllm.held.pop(LOAD).set()
    vllm.broken.clear()
    assert await asyncio.wait_for(waiting, 10)


@pytest.mark.parametrize("answer", [(500, "out of memory"), None, (200, "Success")])
async def test_a_load_that_fails_says_why_even_where_unloading_fails_too(
    make: Make, vllm: FakeVllm, shelf: Shelf, folder: Path, answer: Any
) -> None:
    backend, ref = await make(), shelf.put("a")
    vllm.broken = {LOAD: answer, UNLOAD: (500, "neither")}
    with pytest.raises(Unavailable) as raised:  # a 200 that loaded nothing is a name that the server does not know
        await ask(backend, ref)
    assert "neither" not in raised.value.message
    assert left(folder) == []
    vllm.broken.clear()
    assert await ask(backend, ref)


async def test_a_server_that_hangs_ends_in_an_error(make: Make, vllm: FakeVllm, shelf: Shelf) -> None:
    backend, ref = await make(answer_seconds=0.2), shelf.put("a")
    await ask(backend, ref)
    vllm.held[COMPLETE] = asyncio.Event()
    with pytest.raises(DeadlineExceeded):
        await ask(backend, ref)
    vllm.held.pop(COMPLETE).set()
    assert await ask(backend, ref)


async def test_a_server_killed_in_the_middle_is_a_typed_error_and_no_obstacle_to_closing(
    model: Path, shelf: Shelf, folder: Path
) -> None:
    from transformers import AutoTokenizer

    server = FakeVllm(tokenizer=AutoTokenizer.from_pretrained(model))
    async with serving(server):
        adapters = VllmAdapters(shelf.store, VllmOptions(folder=str(folder), owner="me"))
        options = EndpointOptions(url=f"{server.url}/v1", backoff_seconds=0.001, retries=1)
        backend = OpenAIBackend(ServedModel(model=str(model), served_as="base"), options, adapters)
        await backend.start()
        refs = [shelf.put(name) for name in "ab"]
        await ask(backend, refs[0])
    outcomes = await asyncio.gather(*(ask(backend, ref) for ref in refs * 3), return_exceptions=True)
    assert all(isinstance(outcome, SealError) for outcome in outcomes)
    await asyncio.wait_for(backend.close(), 20)
    assert left(folder) == []


def test_a_gap_counts_what_the_server_leaves_out_as_its_least_likely() -> None:
    assert probe_gap([(1, -1.0), (2, -9.0)], {1: -1.0, 3: -2.0}) == 0
    assert probe_gap([(1, -1.0), (2, -2.0)], {1: -1.0, 3: -5.0}) == pytest.approx(3 / 2**0.5)
    assert probe_gap([(1, -1.0)], {1: -1.5}) == 0.5


def test_an_answer_without_probabilities_is_an_error() -> None:
    with pytest.raises(Unavailable, match="no log-probabilities"):
        read_likely({"choices": [{"text": "x"}]})


async def test_an_answer_is_passed_on_as_it_comes_of_a_proven_adapter(make: Make, vllm: FakeVllm, shelf: Shelf) -> None:
    backend, notes, pieces = await make(), Policy(name="p", adapter=shelf.put("notes")), list[Said]()
    whole = await backend.generate(TOWN, GREEDY, policy=notes)
    got = await backend.generate(TOWN, GREEDY, policy=notes, on_text=pieces.append)
    assert got.text == whole.text == "".join(piece.text for piece in pieces)
    assert len(pieces) > 3
    assert (got.finish_reason, got.usage.completion_tokens) == (whole.finish_reason, 3)
    assert vllm.count()[LOAD] == 1, "loaded once, and held while it answers"
    vllm.confused = shelf.bytes_of("notes")
    told = list[Said]()
    with pytest.raises(AdapterMismatch):
        await backend.generate(TOWN, GREEDY, policy=Policy(name="q", adapter=shelf.put("other")), on_text=told.append)
    assert told == [], "not a word of an adapter that is not proven"


async def test_a_stream_that_breaks_off_is_an_error(make: Make, vllm: FakeVllm) -> None:
    backend, pieces = await make(), list[Said]()
    vllm.whole = False
    with pytest.raises(Unavailable, match="in the middle"):
        await backend.generate(TOWN, GREEDY, on_text=pieces.append)
    assert "".join(piece.text for piece in pieces) == "base"
    vllm.broken[COMPLETE] = (429, {"error": "busy"}, {"retry-after": "7"})
    with pytest.raises(QueueFull) as full:
        await backend.generate(TOWN, GREEDY, on_text=pieces.append)
    assert full.value.retry_after == 7
