"""The live page in front of a made-up controller."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from gateway.app import make_app
from gateway.settings import GatewaySettings
from sealkit.errors import Unauthenticated
from sealkit.resources import (
    AnswerBegun,
    CallerInfo,
    Event,
    Fault,
    Load,
    ReplicaState,
    Run,
    RunLoad,
    RunProgress,
    RunState,
    RunStateChanged,
    RunWaiting,
    ServiceReplica,
    StageStarted,
    Trial,
    TrialFinished,
    TrialState,
)
from sealkit.rpc.controller_calls import Page
from sealkit.types import AnswerDelta, AnswerEnd, FinishReason, ModelInfo, Occupancy
from tests.unit.report_page.runs import NOW, FakeClient

ORIGIN = {"origin": "http://localhost"}
RUN = "runs/demo-1"
FILES = {"ca": "ca.crt", "cert": "tls.crt", "key": "tls.key"}


class FakeController:
    """The asyncio client over `FakeClient`'s run. `calls`: what was asked, with the token that came along."""

    def __init__(self, *, hostile: bool = False, runs: int = 1, trials: int = 36, tokens: tuple[str, ...] = ()) -> None:
        self._has = FakeClient(hostile=hostile, trials=trials)
        self._tokens = tokens
        self._token = ""
        self.runs = [self._has.run.changed(name=f"runs/demo-{n}", state=RunState.RUNNING) for n in range(1, runs + 1)]
        self.trials = list(self._has.trials.values())
        self.calls: list[tuple[str, str, tuple[Any, ...]]] = []
        self.error: Exception | None = None

    def acting_for(self, token: str, tenant: str = "") -> FakeController:
        other = object.__new__(FakeController)
        vars(other).update(vars(self) | {"_token": token})
        return other

    def _note(self, call: str, *words: Any) -> None:
        self.calls.append((call, self._token, words))
        if self._tokens and self._token not in self._tokens:
            raise Unauthenticated("this token is nobody's")
        if self.error:
            raise self.error

    async def whoami(self) -> CallerInfo:
        self._note("whoami")
        return CallerInfo(name="reader", role="viewer")

    async def runs_page(self, token: str = "", size: int = 0) -> Page[Run]:
        self._note("runs_page", token, size)
        return _page(self.runs, token, size)

    async def trials_page(
        self, parent: str, token: str = "", size: int = 0, state: TrialState | None = None
    ) -> Page[Trial]:
        self._note("trials_page", parent, token, size, state)
        inside = re.compile(re.escape(parent) + "/")
        found = [t for t in self.trials if inside.match(t.name) and state in (None, t.state)]
        return _page(found, token, size)

    async def aliases_page(self, token: str = "", size: int = 0) -> Page[Any]:
        self._note("aliases_page", token, size)
        return _page(list(self._has.list_aliases()), token, size)

    async def get_run(self, name: str) -> Run:
        self._note("get_run", name)
        return self._has.get_run(name).changed(state=RunState.RUNNING)

    async def get_load(self) -> Load:
        self._note("get_load")
        text = self._has.text
        model = ModelInfo(
            name=f"tiny {text}", digest="ab" * 32, tokenizer_digest="", context_length=64, dtype="float32", device="cpu"
        )
        away = Fault(code=14, reason="UNAVAILABLE", message=f"no evaluator answers {text}")
        busy = Occupancy(running=3, capacity=16, waiting=1007, step_tokens=900, step_tokens_limit=1024)
        runs = [
            RunLoad(run=run.name, display_name=run.display_name, state=run.state, running=2, queued=1500, planned=4)
            for run in self.runs
        ]
        return Load(
            replicas=(
                ServiceReplica(
                    service="trainer", address="10.0.0.7:50052", state=ReplicaState.SERVING, base_model=model,
                    occupancy=busy,
                ),
                ServiceReplica(service="evaluator", state=ReplicaState.NOT_SERVING, error=away),
            ),
            runs=tuple(runs),
        )  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        async def call(*words: Any) -> Any:
            self._note(name, *words)
            return getattr(self._has, name)(*words)

        return call

    def events(self) -> list[Event]:
        """What happens in the run: it starts, waits, goes on, all its trials end, and so does it."""
        fault = Fault(code=14, reason="UNAVAILABLE", message=f"no trainer answers {self._has.text}")
        kinds = [
            RunStateChanged(state=RunState.RUNNING),
            StageStarted(round=0, stage="E-step"),
            RunWaiting(doing="training", error=fault),
            RunWaiting(doing="training"),
            *(TrialFinished(trial=trial) for trial in self.trials),
            RunStateChanged(state=RunState.SUCCEEDED),
        ]
        done = RunProgress(stage="round 1: E-step", rounds_total=2, trials_done=3, trials_total=40)
        return [Event(cursor=str(n), time=NOW, progress=done, kind=kind) for n, kind in enumerate(kinds, 1)]

    async def watch_run(
        self, name: str, cursor: str = "", *, latest: int = 0, on_wait: Callable[..., None]
    ) -> AsyncIterator[Event]:
        self._note("watch_run", name, cursor, latest)
        for event in self.events()[int(cursor or 0) :]:
            yield event

    async def stream_answer(self, alias: str, prompt: Any, sampling: Any) -> AsyncIterator[Any]:
        self._note("stream_answer", alias, prompt.user)
        yield AnswerBegun(alias=alias)
        yield AnswerDelta(text=f"{alias} says")
        yield AnswerEnd(finish_reason=FinishReason.STOP)


def browser(controller: FakeController, *, tls: Path | None = None) -> TestClient:
    """A browser in front of the gateway, on a stack with callers if there are `tls` files."""
    files = {f"tls_{name}": str(tls / file) for name, file in FILES.items()} if tls else {}
    app = make_app(GatewaySettings(**files), lambda: controller, asyncio.Event())  # type: ignore[arg-type, return-value]
    client = TestClient(app, base_url=f"{'https' if tls else 'http'}://localhost", follow_redirects=False)
    client.headers["accept"] = "text/html"
    return client


def _page(found: list[Any], token: str, size: int) -> Page[Any]:
    start = int(token or 0)
    more = len(found) > start + size
    return Page(found[start : start + size], str(start + size) if more else "")
