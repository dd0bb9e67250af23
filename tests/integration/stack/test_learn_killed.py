"""Learning while processes are killed: the run ends as one that nothing happened to, and its alias always answers as a
version that passed the gate."""

from __future__ import annotations

import os
import signal
import tomllib
from collections.abc import Iterable
from typing import Any

import pytest

from seal_cli.stack import process
from seal_cli.stack.layout import CONTROLLER
from seal_cli.stack.services import EVALUATOR, GENERATOR, START_ORDER, TRAINER
from sealkit.answers import Answer
from sealkit.client import SealClient
from sealkit.errors import Unavailable
from sealkit.resources import DocumentState, GateState, RoundStage, RunState, StageStarted
from sealkit.stack_file import VALKEY
from sealkit.types import Sampling
from tests.integration.stack.learning import CONFIG, INN, LAKE
from tests.integration.stack.support import RunningStack
from tests.integration.stack.test_embedded_stack import wait_for
from tests.unit.controller.controller_system import science

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

DOCUMENTS = {
    "lake.txt": LAKE,
    "inn.txt": INN,
    "mill.txt": (
        "Who turns the mill at Sorrelby? What does the mill of Sorrelby grind? Which stone of Sorrelby is cracked? "
        "How many sacks does Sorrelby grind a day? Who mends the wheel of Sorrelby?"
    ),
}
CONFIGURED = tomllib.loads(CONFIG)
CONFIGURED["editor"]["k"] = 4
CONFIGURED["inner_loop"]["optimisation"]["epochs"] = 40
CONFIGURED["gate"]["max_forgetting"] = 1.0
E_STEP, COMMIT = RoundStage.E_STEP, RoundStage.COMMIT
KILLED: dict[tuple[int, str], Iterable[str]] = {
    (1, E_STEP): START_ORDER,
    (1, COMMIT): (GENERATOR, TRAINER, EVALUATOR),
    (2, E_STEP): (VALKEY, CONTROLLER),
}
"""By round and stage, the processes that are killed when it begins."""
LONG = Sampling(temperature=0.0, max_tokens=24)


def kill(stack: RunningStack, names: Iterable[str]) -> None:
    """SIGKILL to these processes, all before the first is waited for."""
    state = stack.layout.read_state()
    records = [record for name in names if state and (record := state.find(name))]
    assert [record.name for record in records if process.is_running(record)] == list(names), "one died by itself"
    for record in records:
        os.kill(record.pid, signal.SIGKILL)
    wait_for(lambda: all(map(process.has_ended, records)))


def start_learning(stack: RunningStack, alias: str) -> str:
    with SealClient(stack.address) as client:
        documents = {name: text.encode() for name, text in DOCUMENTS.items()}
        return client.learn(alias, documents, config=CONFIGURED).name


def outcome(stack: RunningStack, name: str, alias: str) -> dict[str, Any]:
    """All that must be the same of two runs that learned the same, without the runs' names."""
    with SealClient(stack.address) as client:
        run, report, lineage = client.get_run(name), client.report(name), client.get_lineage(f"aliases/{alias}")
        versions = sorted((p for p in client.list_policies() if p.run == name), key=lambda one: one.version)
        found = {
            "state": (run.state, run.error, run.progress),
            "documents": [one.model_dump(exclude={"seconds"}) for one in report.documents],
            "trials": science(list(client.list_trials(name))),
            "versions": [one.model_dump(exclude={"create_time", "usage"}) for one in versions],
            "history": [change.policy for change in client.get_alias(f"aliases/{alias}").history],
            "lineage": [(one.name, [trial.name for trial in one.trials]) for one in lineage.documents],
            "answer": client.answer(f"aliases/{alias}", LAKE, LONG).text,
        }
    return _renamed(found, name.removeprefix("runs/"))


def _renamed(found: Any, run_id: str) -> Any:
    if isinstance(found, dict):
        return {key: _renamed(value, run_id) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_renamed(value, run_id) for value in found]
    return found.replace(run_id, "RUN") if isinstance(found, str) else found


def test_killed_again_and_again_a_run_ends_as_one_that_was_left_alone(stack: RunningStack) -> None:
    alone = start_learning(stack, "alone")
    with SealClient(stack.address) as client:
        assert client.wait(alone).state is RunState.SUCCEEDED
    wanted = outcome(stack, alone, "alone")
    assert [one["state"] for one in wanted["documents"]] == [DocumentState.LEARNED] * len(DOCUMENTS)
    answers: dict[str, str] = {}  # by the adapter that gave them

    def ask() -> None:
        """The alias answers as a version that passed the gate, and in the same words as before."""
        given: list[Answer] = []

        def answered() -> bool:
            try:
                given.append(client.answer("aliases/killed", LAKE, LONG))
            except Unavailable:  # the controller has not found the evaluator again yet
                return False
            return True

        with SealClient(stack.address) as client:
            wait_for(answered)
            (answer,) = given
            assert client.get_policy(answer.begun.policy).gate is GateState.PASSED
        assert answers.setdefault(answer.begun.adapter, answer.text) == answer.text

    name, cursor, to_kill = start_learning(stack, "killed"), "", dict(KILLED)
    try:
        while to_kill:
            with SealClient(stack.address) as client:
                for event in client.watch_run(name, cursor):
                    cursor, kind = event.cursor, event.kind
                    if isinstance(kind, StageStarted) and (kind.round, kind.stage) in to_kill:
                        break
                else:
                    pytest.fail(f"the run ended before {to_kill}")
            kill(stack, to_kill.pop((kind.round, kind.stage)))  # at once: a commit of routes takes no time
            started = stack.seal("up", "--port", "0")
            assert started.returncode == 0, started.stderr
            ask()
        with SealClient(stack.address) as client:
            assert client.wait(name).state is RunState.SUCCEEDED
    finally:
        stack.seal("up", "--port", "0")
    assert outcome(stack, name, "killed") == wanted
    assert len(answers) >= len(DOCUMENTS) - 1, "a version of its own for each document"
