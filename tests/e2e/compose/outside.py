"""Runs that are started and watched by a process of their own, and what must hold of them in the end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from sealkit.client import AsyncSealClient
from sealkit.reports import RunReport
from sealkit.resources import Event, Trial
from tests.e2e.compose.harness import ROOT, Harness, wait
from tests.integration.chaos.exact import assert_exact

_CLIENT = Path(__file__).with_name("client_process.py")
_PATH = {"PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"}
K = 2


class Watched:
    """A client process and what it has said so far."""

    def __init__(self, process: subprocess.Popen[str], told: dict[str, Any]) -> None:
        self.process, self.run, self.report = process, "", None
        self.events: list[dict[str, Any]] = []
        assert process.stdin is not None
        process.stdin.write(json.dumps(told))
        process.stdin.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait(lambda: self.run or process.poll() is not None, 120, lambda: "the client has not begun")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            match json.loads(line):
                case {"run": name}:
                    self.run = name
                case {"event": event}:
                    self.events.append(event)
                case {"report": report}:
                    self.report = report

    @property
    def done(self) -> int:
        """Trials that have ended, as the watcher was told."""
        return self.events[-1]["progress"]["trials_done"] if self.events else 0

    @property
    def left(self) -> int:
        """Trials that have not ended."""
        return self.events[-1]["progress"]["trials_total"] - self.done if self.events else 0

    def goes_on(self, trials: int = 1, seconds: float = 240) -> None:
        """Waits until so many more trials have ended, or the run has; `ended` checks how. See `left`."""
        aim = self.done + trials
        wait(lambda: self.done >= aim or self.process.poll() is not None, seconds, lambda: f"{self.done} trials")

    def ended(self, seconds: float = 900) -> RunReport:
        """Waits for the process; the report it got."""
        code = self.process.wait(seconds)
        self._reader.join(10)
        assert self.process.stderr is not None
        assert code == 0, self.process.stderr.read()
        return RunReport.model_validate(self.report)


class Outside:
    """Starts client processes."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self._started: list[subprocess.Popen[str]] = []

    def start(self, contexts: int, rounds: int = 1, certificate: str = "operator") -> Watched:
        """A run over so many contexts: K + 1 trials each and round, and two held-out ones."""
        config, records = recipe(contexts, rounds)
        return self._client(config=config, records=records, request_id=str(uuid.uuid4()), certificate=certificate)

    def watch(self, run: str) -> Watched:
        """Another watcher of a run, from its beginning."""
        return self._client(run=run)

    def _client(self, certificate: str = "operator", **told: Any) -> Watched:
        words = [sys.executable, str(_CLIENT)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=_PATH, cwd="/")
        self._started.append(process)
        where = {"address": self.harness.address, "certificate": str(self.harness.secrets / "tls" / certificate)}
        return Watched(process, where | told)

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()

    async def nothing_lost(self, watched: Watched, *, again: bool = False) -> list[Trial]:
        """The run ended, and record, events and report count the same trials, each once; its watcher missed nothing.
        `again`: another watcher, from the beginning, is told the same."""
        report = watched.ended()
        events = [Event.model_validate(event) for event in watched.events]
        async with AsyncSealClient(self.harness.address, identity=self.harness.identity()) as client:
            trials = await assert_exact(client, watched.run, events)
        assert report.rows
        assert report.verdict
        if again:
            other = self.watch(watched.run)
            other.ended()
            assert other.events == watched.events
        return trials


def recipe(contexts: int, rounds: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A config and records of made-up lakes; small, so that a tiny model is done with a trial in a second."""
    short = {"lora": {"rank": 4, "alpha": 8}, "optimisation": {"learning_rate": 1e-3, "epochs": 8, "batch_size": 1}}
    config = {
        "name": f"e2e-{int(time.time())}",
        "rounds": rounds,
        "contexts_per_round": contexts,
        "dataset": {"held_out": 2},
        "editor": {"k": K, "sampling": {"temperature": 0.9, "max_tokens": 14}},
        "inner_loop": short,
        "m_step": short,
        "evaluation": {"sampling": {"temperature": 0.0, "max_tokens": 8}, "retention_limit": 2, "divergence": False},
        "selection": {"must_beat_passage_only": False, "must_gain": False},
    }
    records = [
        {
            "title": f"Lake number {number}",
            "context": f"Lake number {number} lies in the highlands. It is {number + 10} metres deep and full of pike.",
            "questions": [{"question": f"How deep is lake number {number}?", "answer": f"{number + 10} metres"}],
        }
        for number in range(contexts + 2)
    ]
    return config, records
