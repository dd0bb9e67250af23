"""`seal doctor`: every fault of a set-up is named, with how to fix it; nothing else is called bad."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import redis
from fakeredis import TcpFakeServer
from typer.testing import CliRunner

from seal_cli import certs
from seal_cli.doctor.setup import Line
from seal_cli.main import app
from sealkit.types import ModelInfo
from tests.serving import Answer, FakeVllm, HttpServer, serving

KEY = "sk-of-the-judge-0123456789"
INFO = ModelInfo(
    name="m", digest="ab" * 32, tokenizer_digest="cd" * 32, context_length=512,
    dtype="float32", device="cpu",
)  # fmt: skip


@dataclass
class Denying(HttpServer):
    def reply(self, path: str, body: dict[str, Any]) -> Answer:
        return 401, f"bad key {KEY}"


@pytest.fixture
def background() -> Iterator[Any]:
    """Runs servers beside the test: the command has an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    open_ones: list[Any] = []

    def serve(server: HttpServer) -> str:
        manager = serving(server)
        open_ones.append(manager)
        return asyncio.run_coroutine_threadsafe(manager.__aenter__(), loop).result(10)

    yield serve
    for manager in open_ones:
        asyncio.run_coroutine_threadsafe(manager.__aexit__(None, None, None), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("SEAL_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SEAL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "500")


class Client:
    """A model service that answers, or does not."""

    held: ClassVar[dict[str, ModelInfo | Exception]] = {}

    def __init__(self, address: str, **_: Any) -> None:
        self._address = address

    async def info(self) -> ModelInfo:
        found = self.held[self._address]
        if isinstance(found, Exception):
            raise found
        return found

    async def close(self) -> None: ...


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModelInfo | Exception]:
    names = ("generator", "trainer", "evaluator")
    monkeypatch.setattr("seal_cli.doctor.services._CLIENTS", dict.fromkeys(names, Client))
    for name in names:
        monkeypatch.setenv(f"SEAL_CONTROLLER_{name.upper()}", name)
    Client.held = dict.fromkeys(names, INFO)
    return Client.held


def bad(*words: str) -> tuple[int, list[str], str]:
    """Exit code, what is bad, and all that was shown."""
    ran = CliRunner().invoke(app, ["doctor", *words])
    return (
        ran.exit_code,
        [line[4:].partition(":")[0] for line in ran.output.split("\n") if line.startswith("bad ")],
        ran.output,
    )


def test_six_faults_are_all_named_with_their_fix(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, background: Any
) -> None:
    signer = certs.authority()
    certs.write(certs.issue(signer, "trainer", ["localhost"], days=-1), tmp_path / "old", ca=signer.cert)
    (tmp_path / "store").write_text("a file")
    (tmp_path / "editors.toml").write_text(
        '[[editor]]\nname = "gpt"\nmodel = "big"\nurl = "http://h/v1"\napi_key_env = "NOT_THERE"\n'
    )
    monkeypatch.setenv("THE_KEY", KEY)
    services["evaluator"] = INFO.model_copy(update={"digest": "ef" * 32})  # 1: another model
    faults = {
        "SEAL_CONTROLLER_REDIS_URL": "redis://:secret@127.0.0.1:1/0",  # 2
        "SEAL_CONTROLLER_DATABASE_URL": f"sqlite:///{tmp_path}/nowhere/record.db",  # 3
        "SEAL_TRAINER_STORE_URL": f"{tmp_path}/store/in",  # 4
        "SEAL_GENERATOR_EDITORS_FILE": f"{tmp_path}/editors.toml",  # 5: its key is not there
        "SEAL_EVALUATOR_JUDGE_URL": f"{background(Denying())}/v1",  # 6: it denies the key
        "SEAL_EVALUATOR_JUDGE_API_KEY_ENV": "THE_KEY",
        "SEAL_TRAINER_TLS_CA": f"{tmp_path}/old/ca.crt",  # 7: ended yesterday
        "SEAL_TRAINER_TLS_CERT": f"{tmp_path}/old/tls.crt",
        "SEAL_TRAINER_TLS_KEY": f"{tmp_path}/old/tls.key",
    }
    for name, value in faults.items():
        monkeypatch.setenv(name, value)
    code, named, shown = bad()
    assert code == 1
    assert sorted(named) == sorted(
        ["base model", "redis", "sql", "store", "editor gpt", "judge", "certificate of trainer"]
    )
    assert shown.count("→") == 7, "each with how to fix it"
    assert "$NOT_THERE holds no API key" in shown
    assert "evaluator efefefefefef" in shown
    assert KEY not in shown
    assert "secret" not in shown
    assert f"sqlite:///{tmp_path}/nowhere/record.db" in shown


def test_a_service_that_is_down_and_a_context_that_is_too_short_are_named(
    services: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealkit.errors import Unavailable

    services["trainer"] = Unavailable("nobody listens")
    file = tmp_path / "run.toml"
    file.write_text('name = "x"\n[dataset]\npath = "p.json"\n[editor]\nsampling = { max_tokens = 4096 }\n')
    (tmp_path / "p.json").write_text("[]")
    _, named, shown = bad("--config", str(file))
    assert {"trainer", "context length"} <= set(named)
    assert "512 tokens; the config samples up to 4096" in shown


def test_the_limits_of_the_models_are_told(services: dict[str, Any]) -> None:
    limits = {"context": "max_position_embeddings", "window": "16 tokens in 1 of 2 layers"}
    more = {"template_date": "2024-07-26", "unread_tokens": "1, from '<image>' on"}
    for name in services:
        services[name] = INFO.model_copy(update={"build": limits | more | {"cache": "1.50 GiB for 32 full texts"}})
    _, named, shown = bad()
    assert not {"context length", "template date", "tokens", "cache"}.intersection(named)
    assert "512 tokens (max_position_embeddings), window of 16 tokens in 1 of 2 layers" in shown
    assert "its template prints 2024-07-26 as today's" in shown
    assert "more than the model reads (1, from '<image>' on)" in shown
    assert "at most 1.50 GiB for 32 full texts" in shown
    services["trainer"] = INFO.model_copy(update={"build": {"template_date": "2031-01-02"}})
    _, named, shown = bad()
    assert "template date" in named
    assert "generator 2024-07-26; trainer 2031-01-02; evaluator 2024-07-26" in shown


def test_engines_that_cannot_do_what_a_run_asks_are_named(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch, background: Any
) -> None:
    services["generator"] = INFO.model_copy(update={"build": {"adapters": "fixed"}})
    engine = FakeVllm()
    engine.broken = {"/v1/load_lora_adapter": (404, {"detail": "Not Found"})}
    url = f"{background(engine)}/v1"
    for service, backend, model in (("GENERATOR", "vllm", "base"), ("EVALUATOR", "openai", "other")):
        monkeypatch.setenv(f"SEAL_{service}_BACKEND", backend)
        monkeypatch.setenv(f"SEAL_{service}_ENDPOINT_URL", url)
        monkeypatch.setenv(f"SEAL_{service}_ENDPOINT_MODEL", model)
        monkeypatch.setenv(f"SEAL_{service}_MODEL", "/not/here")
    engine.broken["/v1/completions"] = 200, {"choices": [{}], "usage": {}}
    _, named, shown = bad()
    assert named.count("evaluator's openai") == 2, "it loads no adapters, and it serves another model"
    assert "generator's vllm adapters" in named
    assert "adapters" in named
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in shown
    assert "does not serve 'other'; it serves base" in shown


def test_a_redis_that_answers_and_refuses_writes_is_bad(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = TcpFakeServer(("127.0.0.1", 0))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with redis.Redis(port=server.server_address[1]) as client:
        client.set("seal:trials:streams", "of another program")
        monkeypatch.setenv("SEAL_CONTROLLER_REDIS_URL", f"redis://127.0.0.1:{server.server_address[1]}/0")
        _, named, shown = bad()
        assert "redis" in named
        assert "answers and refuses: WRONGTYPE" in shown
        assert "→ another program uses the key" in shown
        assert client.keys() == [b"seal:trials:streams"], "what doctor writes it deletes"
        monkeypatch.setenv("SEAL_CONTROLLER_QUEUE", "mine")
        assert "redis" not in bad()[1]
    server.shutdown()
    server.server_close()


def test_a_good_set_up_is_called_good(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, background: Any
) -> None:
    async def fine(*_: Any) -> list[Line]:
        return [Line("redis", True, "fine")]

    monkeypatch.setattr("seal_cli.doctor.infrastructure.check_redis", fine)
    engine = FakeVllm()
    engine.broken["/v1/completions"] = 200, {"choices": [{}], "usage": {}}
    signer = certs.authority()
    certs.write(certs.issue(signer, "me", ["localhost"], days=90), tmp_path / "new", ca=signer.cert)
    good = {
        "SEAL_CONTROLLER_DATABASE_URL": f"sqlite:///{tmp_path}/record.db",
        "SEAL_TRAINER_STORE_URL": f"{tmp_path}/store",
        "SEAL_EVALUATOR_BACKEND": "vllm",
        "SEAL_EVALUATOR_ENDPOINT_URL": f"{background(engine)}/v1",
        "SEAL_EVALUATOR_ENDPOINT_MODEL": "base",
        "SEAL_TLS_CA": f"{tmp_path}/new/ca.crt",
        "SEAL_TLS_CERT": f"{tmp_path}/new/tls.crt",
        "SEAL_TLS_KEY": f"{tmp_path}/new/tls.key",
    }
    for name, value in good.items():
        monkeypatch.setenv(name, value)
    code, named, shown = bad()
    assert (code, named) == (0, []), shown
    assert "takes adapters at run time" in shown
    assert "certificate of this caller" in shown
