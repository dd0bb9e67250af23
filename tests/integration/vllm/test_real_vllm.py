"""SEAL on a real vLLM: adapters of our trainer, loaded while it runs; and a round through everything that fails."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from controller.accept import accept
from controller.db import runs, trials
from controller.db.access import FULL_ACCESS
from seal_cli.export import export_version
from sealkit.backends.base import Backend
from sealkit.backends.factory import make_backend
from sealkit.backends.lora import dump_adapter, load_adapter
from sealkit.reports import Lineage
from sealkit.resources import GateState, PolicyVersion, Run, RunState, Trial, TrialState
from sealkit.routing import Route
from sealkit.store import AdapterStore
from sealkit.types import (
    AdapterRef,
    LoraConfig,
    Optimisation,
    Outcome,
    Policy,
    Prompt,
    Sampling,
    TrainingExample,
    TrainingResult,
    TrainingSpec,
)
from tests.integration.vllm.conftest import settings
from tests.integration.vllm.engine import MODEL, ROOT, FaultyProxy, LocalServices, VllmProcess, new_folder, say
from tests.serving import serving
from tests.unit.controller.changes import change
from tests.unit.controller.controller_system import System
from trainer_svc.build import Built

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

BASE = Policy(name="policies/base")
GREEDY = Sampling(temperature=0, max_tokens=8)
PASSAGES: list[dict[str, Any]] = json.loads((ROOT / "configs/demo/passages.json").read_text())
CONFIG: dict[str, Any] = {
    "name": "small",
    "rounds": 1,
    "contexts_per_round": 2,
    "domain": {"name": "knowledge", "options": {"min_letters": 1}},
    "editor": {"k": 2, "sampling": {"temperature": 0.7, "max_tokens": 16}},
    "inner_loop": {"lora": {"rank": 8, "alpha": 16}, "optimisation": {"learning_rate": 1.5e-3, "epochs": 4}},
    "evaluation": {"sampling": {"temperature": 0.0, "max_tokens": 4, "stop": ["\n"]}, "retention_limit": 1},
    "selection": {"must_gain": False, "must_beat_passage_only": False},
    "m_step": {"lora": {"rank": 8, "alpha": 16}, "optimisation": {"learning_rate": 3e-4, "epochs": 1}},
    "held_out": {"samples": 1},
}


async def trained(built: Built, passage: dict[str, Any], policy: Policy = BASE, *, rank: int) -> AdapterRef:
    spec = TrainingSpec(
        examples=(TrainingExample(text=f"{passage['title']}\n{passage['context']}"),),
        lora=LoraConfig(rank=rank, alpha=2 * rank),
        optimisation=Optimisation(learning_rate=1.5e-3, epochs=6),
        seed=1,
    )
    async for update in built.trainer.train_adapter(policy, spec, owner="test"):
        if isinstance(update, TrainingResult):
            return update.adapter
    raise AssertionError("no result")


async def test_greedy_answers_are_those_of_the_engine_in_process(
    served: Backend, local: Backend, trainer: Built
) -> None:
    one = await trained(trainer, PASSAGES[0], rank=16)
    policy = Policy(name="p", adapter=one)
    two = await trained(trainer, PASSAGES[1], policy, rank=8)
    prompts = [
        Prompt(user=f"Topic: {passage['title']}\n{question['question']}")
        for passage in PASSAGES[:2]
        for question in passage["questions"][:4]
    ]
    agreed, asked = 0, 0
    for under, adapter in ((None, None), (BASE, one), (policy, two)):
        answers = [
            await asyncio.gather(*(b.generate(p, GREEDY, policy=under, adapter=adapter) for p in prompts))
            for b in (served, local)
        ]
        agreed += sum(there.text == here.text for there, here in zip(*answers, strict=True))
        asked += len(prompts)
    say(f"greedy answers that agree: {agreed} of {asked}")
    assert agreed / asked >= 0.95


async def test_a_routed_version_is_served_by_the_adapter_of_each_passage(
    served: Backend, local: Backend, trainer: Built
) -> None:
    routes = [
        Route(adapter=await trained(trainer, passage, rank=rank), text=f"{passage['title']}\n{passage['context']}")
        for passage, rank in zip(PASSAGES[:2], (16, 8), strict=True)
    ]
    policy = Policy(name="p", adapter=await trainer.trainer.route_adapters(routes))
    general = Prompt(user="Name the capital of France.")
    prompts = [*(Prompt(user=passage["questions"][0]["question"]) for passage in PASSAGES[:2]), general]
    assert [await served.route(one, policy) for one in prompts] == [
        *(Policy(name="route", adapter=route.adapter) for route in routes),
        None,
    ]
    there, here, bare = [
        [one.text for one in await asyncio.gather(*(b.generate(p, GREEDY, policy=under) for p in prompts))]
        for b, under in ((served, policy), (local, policy), (served, None))
    ]
    assert there == here
    assert [one == other for one, other in zip(there, bare, strict=True)] == [False, False, True]


async def test_an_exported_version_answers_in_vllm_as_in_peft(
    vllm: VllmProcess, trainer: Built, store: str, tmp_path: Path
) -> None:
    adapter = await trained(trainer, PASSAGES[0], rank=16)
    version = PolicyVersion(
        name="policies/learn-1a2b3c4d-1", run="runs/learn-1a2b3c4d", version=1, adapter=adapter,
        gate=GateState.PASSED, gate_reason="", create_time=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    folder = tmp_path / "exported"
    found = Lineage(version=version, base_model=trainer.trainer.info.digest, documents=())
    export_version(found, folder, store=store, base=MODEL, merged=False, data=tmp_path)
    questions = [question["question"] for question in PASSAGES[0]["questions"]]
    async with httpx.AsyncClient(base_url=vllm.url, timeout=300) as client:
        loaded = await client.post("/v1/load_lora_adapter", json={"lora_name": "mine", "lora_path": str(folder)})
        assert loaded.status_code == 200, loaded.text
        there = []
        for question in questions:
            turns = [{"role": "user", "content": question}]
            body = {"model": "mine", "messages": turns, "temperature": 0, "max_tokens": GREEDY.max_tokens}
            answer = await client.post("/v1/chat/completions", json=body)
            there.append(answer.json()["choices"][0]["message"]["content"])
        await client.post("/v1/unload_lora_adapter", json={"lora_name": "mine"})
    here = await asyncio.to_thread(answers_in_peft, folder, questions)
    say(f"answers of an exported adapter that agree in vLLM and PEFT: {there}")
    assert there == here


def answers_in_peft(folder: Path, questions: list[str]) -> list[str]:
    """Greedy answers of as many tokens."""
    tokenizer: Any = AutoTokenizer.from_pretrained(MODEL)
    base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    model: Any = PeftModel.from_pretrained(base, str(folder))
    given: list[str] = []
    for question in questions:
        turns = [{"role": "user", "content": question}]
        row = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        out = model.generate(**row, max_new_tokens=GREEDY.max_tokens, do_sample=False)
        given.append(tokenizer.decode(out[0, row["input_ids"].shape[1] :], skip_special_tokens=True))
    return given


@pytest.fixture
async def system(tmp_path: Path) -> Any:
    made = System(tmp_path)
    await made.database.start()
    yield made
    await made.database.close()


async def a_round(system: System, services: LocalServices) -> tuple[Run, list[Trial]]:
    records = [
        p | {"questions": p["questions"][:2], "split": "heldout" if i == 2 else "train"}
        for i, p in enumerate(PASSAGES[:3])
    ]
    system.services = services  # type: ignore[assignment]
    new, contexts = accept(request_id="r", display_name="", config=CONFIG, records=records, retention=[], plugins=())
    run = await system.database.write(runs.create, change(f"runs/{new.run_id}", "r"), new, contexts)
    async with system.working(lease=60, concurrency=4):
        async with asyncio.timeout(800):
            while not (run := await system.run(run)).state.terminal:  # noqa: ASYNC110 - another process's record
                await asyncio.sleep(0.5)
    names = [trial.name for trial in await system.trials(run)]
    return run, [await system.database.read(trials.get, FULL_ACCESS, name) for name in names]


async def clean_round(vllm: VllmProcess, trainer: Built, store: str, folder: Path) -> tuple[Run, list[Trial]]:
    backend = make_backend(settings(store, vllm.url, folder / "lora"))
    await backend.start()
    system = System(folder)
    await system.database.start()
    try:
        return await a_round(system, LocalServices(backend, trainer))
    finally:
        await system.database.close()
        await backend.close()


async def test_a_round_comes_through_everything_that_fails(
    vllm: VllmProcess, trainer: Built, store: str, tmp_path: Path
) -> None:
    run, clean = await clean_round(vllm, trainer, store, new_folder(tmp_path / "clean"))
    assert run.state is RunState.SUCCEEDED
    assert {trial.state for trial in clean} == {TrialState.SUCCEEDED}
    assert all(trial.adapter for trial in clean)
    say(f"clean round: {len(clean)} trials, {sum(len(t.verdicts) for t in clean)} answers")

    decoy = new_folder(tmp_path / "decoy")
    wrong = await trained(trainer, PASSAGES[5], rank=8)
    weights = load_adapter(AdapterStore(store).fetch(wrong.digest))
    for name, content in dump_adapter(weights, MODEL.name).items():
        (decoy / name).write_bytes(content)
    proxy = FaultyProxy(behind=vllm, decoy=str(decoy))
    # The first two requests of a start are one for the models and one for the tokens.
    proxy.faults = {
        ("completions", 3): "500", ("completions", 5): "drop", ("load_lora_adapter", 2): "wrong",
        ("load_lora_adapter", 4): "500", ("completions", 18): "hang", ("completions", 26): "kill",
        ("unload_lora_adapter", 2): "500",
    }  # fmt: skip
    async with serving(proxy):
        folder = new_folder(tmp_path / "faulty")
        backend = make_backend(settings(store, proxy.url, folder / "lora", endpoint_seconds=45))
        await backend.start()
        system = System(folder)
        await system.database.start()
        run, faulty = await a_round(system, LocalServices(backend, trainer))
        await system.database.close()
        await backend.close()
    say(f"happened: {'; '.join(proxy.happened)}")
    assert {word.split()[0] for word in proxy.happened} == {"500", "drop", "wrong", "hang", "kill"}
    assert run.state is RunState.SUCCEEDED
    failed = [trial for trial in faulty if trial.state is not TrialState.SUCCEEDED]
    assert [(t.error.reason, t.accuracy, t.reward) for t in failed if t.error] == [("ADAPTER_MISMATCH", None, None)]
    compare(clean, faulty)


def compare(clean: list[Trial], faulty: list[Trial]) -> None:
    """What was answered in both runs about the same adapter was counted alike."""
    other = {(t.phase, t.policy, t.editor, t.context_id, t.completion, t.adapter.digest): t for t in clean if t.adapter}
    same = answers = 0
    for trial in faulty:
        if trial.state is not TrialState.SUCCEEDED or not trial.adapter:
            continue
        key = (trial.phase, trial.policy, trial.editor, trial.context_id, trial.completion, trial.adapter.digest)
        if (twin := other.get(key)) is None:
            continue
        for mine, theirs in zip(trial.verdicts, twin.verdicts, strict=True):
            answers += 1
            same += mine.outcome is theirs.outcome is not Outcome.UNGRADED
    say(f"answers about the same adapters that count alike: {same} of {answers}")
    assert answers >= 6
    assert same == answers
