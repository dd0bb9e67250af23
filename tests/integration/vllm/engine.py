"""A real vLLM on this machine's CPU, a proxy before it that fails as told, and the three services in this process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx

from evaluator_svc.evaluate import Evaluator
from generator_svc.sampler import sample
from sealkit.backends.base import Backend
from sealkit.rpc.protocols import TrainerInfo
from sealkit.types import Completion, Evaluation, EvaluationRequest, ModelInfo, Policy, Prompt, Sampling
from tests.serving import Answer, HttpServer
from trainer_svc.build import Built

ROOT = Path(__file__).parents[3]
VENV = Path(os.environ.get("SEAL_VLLM_VENV", ROOT / ".venv-vllm"))
MODEL = Path(os.environ.get("SEAL_VLLM_MODEL", ROOT / ".seal/models/smollm2-135m-instruct"))
NAME = "base"


def say(figure: str) -> None:
    """What a person wants to see of a run; `make test-vllm` shows it."""
    print(figure)  # noqa: T201


def new_folder(path: Path) -> Path:
    """Made where it was not."""
    path.mkdir(parents=True)
    return path


class VllmProcess:
    """`vllm serve` with all its children, which end with it."""

    def __init__(self, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns before it is ready."""
        environment = os.environ | {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
        }  # fmt: skip
        words = ["serve", str(MODEL), "--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(self._port)]
        words += ["--enforce-eager", "--dtype", "float32", "--max-model-len", "2048"]
        words += ["--enable-lora", "--max-loras", "4", "--max-lora-rank", "64"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [VENV / "bin/vllm", *words], env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self, seconds: float = 400) -> float:
        """Until it answers; how long that took."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            assert self._process is not None
            assert self._process.poll() is None, f"vLLM ended at its start; see {self._log}"
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return time.monotonic() - began
            except OSError:
                time.sleep(0.5)
        raise TimeoutError(f"vLLM is not up after {seconds} s; see {self._log}")

    def kill(self) -> None:
        """At once, children and all."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@dataclass
class FaultyProxy(HttpServer):
    """Hands requests on. `faults` maps (end of a path, its how-manieth request) to what happens instead: `500`, `drop`,
    `hang`, `wrong` (another adapter's weights are loaded, and 200 is said), or `kill` (the server dies)."""

    behind: VllmProcess | None = None
    faults: dict[tuple[str, int], str] = field(default_factory=dict)
    decoy: str = ""
    """Folder of the wrong weights."""
    happened: list[str] = field(default_factory=list)
    _seen: dict[str, int] = field(default_factory=dict)
    _restart: asyncio.Task[Any] | None = None

    async def reply(self, path: str, body: dict[str, Any]) -> Answer:  # type: ignore[override]
        assert self.behind is not None
        end = path.rpartition("/")[2]
        self._seen[end] = self._seen.get(end, 0) + 1
        fault = self.faults.get((end, self._seen[end]), "")
        if fault:
            self.happened.append(f"{fault} at {end} {self._seen[end]}")
        if fault == "500":
            return 500, "EngineDeadError"
        if fault == "drop":
            return None
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "wrong":
            body = body | {"lora_path": self.decoy}
        if fault == "kill":
            self.behind.kill()
            self._restart = asyncio.create_task(self._start_again())
        try:
            async with httpx.AsyncClient(timeout=300) as client:
                answer = await client.request("POST" if body else "GET", f"{self.behind.url}{path}", json=body or None)
        except httpx.HTTPError:
            return None
        return answer.status_code, answer.text

    async def _start_again(self) -> None:
        assert self.behind is not None
        await asyncio.sleep(2)
        await asyncio.to_thread(self.behind.start)
        await asyncio.to_thread(self.behind.wait)


class LocalServices:
    """Generator, trainer and evaluator as a controller calls them: text comes from `backend`, adapters from `built`."""

    def __init__(self, backend: Backend, built: Built) -> None:
        self._backend = backend
        self._built = built
        self._evaluator = Evaluator(backend, kept_verdicts=10_000)
        self.train_adapter = built.trainer.train_adapter
        self.train_policy = built.trainer.train_policy
        self.join_adapters = built.trainer.join_adapters
        self.route_adapters = built.trainer.route_adapters
        self.evaluations: list[Evaluation] = []

    async def info(self) -> ModelInfo:
        return self._backend.info

    async def trainer_info(self) -> TrainerInfo:
        info = self._built.trainer.info
        return TrainerInfo(model=info, target_modules=("q_proj",), engine_version="1", max_concurrent_jobs=4)

    async def sample(
        self,
        policy: Policy,
        prompts: Sequence[tuple[str, Prompt, Sequence[int]]],
        sampling: Sampling,
        *,
        editor: str = "",
    ) -> AsyncIterator[Completion]:
        async def write(prompt: Prompt, own: Sampling) -> Any:
            return await self._backend.generate(prompt, own, policy=policy)

        async for completion in sample(write, prompts, sampling):
            yield completion

    async def evaluate(self, request: EvaluationRequest) -> Evaluation:
        return await self._evaluator.evaluate(request)

    async def close(self) -> None: ...
