"""The clients in `examples/`, built from the protos: they learn documents, survive a broken stream, show errors whole,
and call over TLS."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from seal.controller.v1 import controller_pb2 as pb2
from seal.controller.v1 import resources_pb2 as res
from seal.type.v1 import answer_pb2

from seal_cli import certs
from sealkit.client import SealClient
from sealkit.errors import QuotaExceeded, Unavailable
from sealkit.rpc.authority import CallersFile
from sealkit.rpc.server import GrpcServer
from sealkit.rpc.settings import ServerSettings
from sealkit.rpc.status import status_of
from sealkit.types import Sampling
from tests.contract.fake_controller import FakeController
from tests.integration.chaos.harness import Proxy
from tests.integration.stack.client_examples import BUILD
from tests.integration.stack.support import RunningStack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

LEARN = """
task = "adapt"
passage_only = false
gate = { alias = "learned" }
domain = { options = { style = "questions" } }
editor = { k = 1, arms = ["base"], sampling = { max_tokens = 8 } }
exam = { samples = 1 }
evaluation = { retention_limit = 1 }
selection = { learn_from = ["base"], must_beat_passage_only = false }
held_out = { samples = 0 }
adapt = { commit = "consolidate" }
inner_loop = { start_from = "base" }
"""
QUESTION = "How is the lake?"


@dataclass(frozen=True)
class Example:
    """A built example, and the folder that it is run in."""

    command: list[str]
    folder: Path

    async def start(self, address: str, alias: str = "notes", **variables: str) -> asyncio.subprocess.Process:
        own = {key: value for key, value in os.environ.items() if not key.startswith("SEAL_")}
        return await asyncio.create_subprocess_exec(
            *self.command, "learn.toml", alias, QUESTION, "lake.md",
            cwd=self.folder, env=own | {"SEAL_ADDRESS": address} | variables,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def run(self, address: str, alias: str = "notes", **variables: str) -> tuple[int | None, str, list[str]]:
        """Its exit code, its stdout, and the lines of its stderr."""
        process = await self.start(address, alias, **variables)
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode().splitlines()


class Scripted(FakeController):
    """A controller whose watchers get one event of their run, and the others once they are `released`."""

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()
        self.happens(res.RUN_STATE_QUEUED, res.RUN_STATE_RUNNING, res.RUN_STATE_SUCCEEDED)
        self.failure: Exception | None = None

    async def CreateRun(self, request: pb2.CreateRunRequest, context: Any) -> pb2.CreateRunResponse:
        if self.failure:
            raise self.failure
        return await super().CreateRun(request, context)

    async def ListAliases(self, request: pb2.ListAliasesRequest, context: Any) -> pb2.ListAliasesResponse:
        page = int(request.page_token or 0)
        alias = res.Alias(name=f"aliases/a{page}", policy=f"policies/p{page}")
        return pb2.ListAliasesResponse(aliases=[alias], next_page_token="" if page else "1")

    async def WatchRun(self, request: pb2.WatchRunRequest, context: Any) -> AsyncIterator[pb2.WatchRunResponse]:
        async for response in super().WatchRun(request, context):
            if response.event.cursor != "1":
                await self.released.wait()
            yield response

    async def Answer(self, request: pb2.AnswerRequest, context: Any) -> AsyncIterator[pb2.AnswerResponse]:
        self.requests.append(request)
        yield pb2.AnswerResponse(begun=pb2.AnswerBegun(alias=request.alias))
        for word in ("It ", "is ", "deep."):
            yield pb2.AnswerResponse(delta=answer_pb2.AnswerDelta(text=word))
        yield pb2.AnswerResponse(end=answer_pb2.AnswerEnd())


class Guarded(Scripted):
    """The same, for callers in a file."""

    def __init__(self, callers: Path) -> None:
        super().__init__()
        self.authority = CallersFile(callers)


@asynccontextmanager
async def serving(controller: Scripted, settings: Mapping[str, Any] | None = None) -> AsyncIterator[str]:
    server = GrpcServer(controller, ServerSettings(listen="127.0.0.1:0", **settings or {}))
    await server.listen()
    await server.start()
    try:
        yield server.address
    finally:
        await server.stop(0)


@pytest.fixture(scope="session", params=BUILD)
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return BUILD[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def example(command: list[str], tmp_path: Path) -> Example:
    (tmp_path / "learn.toml").write_text(LEARN)
    (tmp_path / "lake.md").write_text("The lake of T is deep. Its water is amber.")
    return Example(command, tmp_path)


async def test_it_learns_a_document_and_asks_an_alias(example: Example, stack: RunningStack, adapted: str) -> None:
    code, out, err = await example.run(stack.address, adapted)
    assert (code, err) == (0, [])
    printed = out.split("\n")
    assert any(line.startswith(f"aliases/{adapted} policies/") for line in printed)
    stages = [line.split(" ", 2) for line in printed if line.startswith("runs/")]
    assert [int(cursor) for _, cursor, _ in stages] == list(range(1, len(stages) + 1))
    assert stages[-1][2] == "succeeded"
    assert any(line.startswith("lake.md ") and "NOT_ADOPTED" in line for line in printed), (
        "a random model answers no question of an exam right"
    )
    with SealClient(stack.address) as client:
        wanted = client.answer(f"aliases/{adapted}", QUESTION, Sampling(temperature=0, max_tokens=64))
        created = client.get_run(stages[0][0])
    assert out.endswith(f"\n{wanted.text}\n")
    assert created.config["gate"]["alias"] == "learned"


async def test_it_goes_on_after_a_broken_connection(example: Example) -> None:
    controller, proxy = Scripted(), Proxy()
    async with serving(controller) as address:
        proxy.target = int(address.rpartition(":")[2])
        process = await example.start(f"127.0.0.1:{await proxy.start()}")
        assert process.stdout is not None
        assert process.stderr is not None
        printed = [await process.stdout.readline() for _ in range(3)]
        proxy.refuse()
        proxy.heal()
        controller.released.set()
        printed += [line async for line in process.stdout]
        failed = await process.stderr.read()
        proxy.close()
    assert (await process.wait(), failed) == (0, b"")
    assert [line.decode().strip() for line in printed] == [
        "aliases/a0 policies/p0", "aliases/a1 policies/p1", "runs/r0 1", "runs/r0 2", "runs/r0 3", "It is deep.",
    ]  # fmt: skip
    created, watched, again, asked = controller.requests
    assert (created.documents[0].name, created.config["gate"]["alias"]) == ("lake.md", "learned")
    assert [watched.cursor, again.cursor] == ["", "1"]
    assert (asked.alias, asked.prompt.user) == ("aliases/notes", QUESTION)


async def test_it_shows_the_details_of_an_error(example: Example) -> None:
    controller = Scripted()
    controller.released.set()
    controller.failure = QuotaExceeded(
        "runs_at_once is used up", fields=(("runs_at_once", "2 of 2"),), metadata={"tenant": "team-a"}, retry_after=1.5
    )
    async with serving(controller) as address:
        refused = await example.run(address)
        controller.failure = None
        invalid = await example.run(address, "NOT AN ALIAS")
    assert (refused[0], "runs_at_once is used up" in refused[2][0]) == (1, True)
    assert sorted(refused[2][1:]) == [
        "quota runs_at_once: 2 of 2", "reason QUOTA_EXCEEDED", "tenant team-a", "try again after 1.5s",
    ]  # fmt: skip
    assert (invalid[0], [line for line in invalid[2] if line.startswith("field alias: ")] != []) == (1, True)


async def test_it_fails_if_the_run_does(example: Example) -> None:
    controller = Scripted()
    controller.released.set()
    last = controller.events[-1].run_state_changed
    last.state = res.RUN_STATE_FAILED
    last.error.CopyFrom(status_of(Unavailable("no trainer answers", metadata={"service": "trainer"})))
    async with serving(controller) as address:
        failed = await example.run(address)
        last.state = res.RUN_STATE_CANCELLED
        last.ClearField("error")
        cancelled = await example.run(address)
    assert (failed[0], failed[2][1:]) == (1, ["reason UNAVAILABLE", "service trainer"])
    assert (cancelled[0], "CANCELLED" in cancelled[2][0]) == (1, True)


async def test_it_calls_over_tls_with_a_token(example: Example, tmp_path: Path) -> None:
    certs.make(tmp_path / "pki", ["controller"], hosts=[], days=30)
    (tmp_path / "callers.toml").write_text(
        f'[[caller]]\nname = "nightly"\nrole = "admin"\ntoken_sha256 = "{hashlib.sha256(b"right").hexdigest()}"\n'
    )
    files = {f"tls_{kind}": str(tmp_path / "pki" / "controller" / name)
             for kind, name in (("ca", "ca.crt"), ("cert", "tls.crt"), ("key", "tls.key"))}  # fmt: skip
    controller = Guarded(tmp_path / "callers.toml")
    controller.released.set()
    async with serving(controller, {**files, "tls_client_certificates": False}) as address:
        results = {}
        for token in ("right", "wrong"):
            (tmp_path / token).write_text(f"{token}\n")
            results[token] = await example.run(
                address.replace("127.0.0.1", "localhost"),
                SEAL_TLS_CA=files["tls_ca"], SEAL_TOKEN_FILE=str(tmp_path / token),
            )  # fmt: skip
    code, out, err = results["right"]
    assert (code, out.endswith("\nIt is deep.\n"), err) == (0, True, [])
    code, out, err = results["wrong"]
    assert (code, out, "reason UNAUTHENTICATED" in err) == (1, "", True)
