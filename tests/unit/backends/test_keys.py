"""Keys: a run whose outside editor is denied, and says the key aloud, leaves it in no log and in no record."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from controller.accept import accept
from controller.db import runs
from generator_svc.editors import read_editors
from generator_svc.sampler import sample
from sealkit.resources import TrialState
from tests.serving import Answer, HttpServer, serving
from tests.unit.controller.changes import change
from tests.unit.controller.controller_fakes import DOMAIN, RETENTION, records, tiny_config
from tests.unit.controller.controller_system import System

KEY = "sk-outside-0123456789abcdef"


@dataclass
class Chatty(HttpServer):
    """Denies every second request, and repeats the key that it was shown."""

    def reply(self, path: str, body: dict[str, Any]) -> Answer:
        if len(self.requests) % 2:
            return 401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}
        return 200, {"choices": [{"message": {"content": "fine"}}], "usage": {}, "debug": KEY}


def all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_no_key_is_in_logs_records_or_errors_of_a_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OUTSIDE_KEY", KEY)
    structlog.reset_defaults()  # all that is logged is printed
    caplog.set_level(logging.DEBUG)
    server, system = Chatty(), System(tmp_path)
    async with serving(server):
        file = tmp_path / "editors.toml"
        entry = f'name = "gpt"\nmodel = "big"\nurl = "{server.url}"\napi_key_env = "OUTSIDE_KEY"\n'
        file.write_text(f"[[editor]]\n{entry}")
        editors, own = read_editors(str(file)), system.services.sample

        async def sampled(policy: Any, prompts: Any, sampling: Any, *, editor: str = "") -> Any:
            if not editor:
                async for completion in own(policy, prompts, sampling):
                    yield completion
                return
            async for completion in sample(lambda p, s: editors.write(editor, p, s), prompts, sampling):
                yield completion

        system.services.sample = sampled  # type: ignore[method-assign]
        await system.database.start()
        new, contexts = accept(
            request_id="r", display_name="", config=tiny_config(rounds=1, editor={"k": 2, "arms": ["policy", "gpt"]}),
            records=records(), retention=RETENTION, plugins=(DOMAIN,), outside=("gpt",),
        )  # fmt: skip
        run = await system.database.write(runs.create, change(f"runs/{new.run_id}", "r"), new, contexts)
        async with system.working():
            run = await system.until(run)
        states = {trial.state for trial in await system.trials(run) if trial.editor == "gpt"}
        assert states == {TrialState.SUCCEEDED, TrialState.FAILED}
        await system.database.close()
        await editors.close()
    assert all(KEY in headers["authorization"] for headers in server.headers), "it was used"
    written = all_bytes(tmp_path)
    assert b"ENDPOINT_DENIED" in written
    assert KEY.encode() not in written
    logged = "".join([*capfd.readouterr(), caplog.text])
    assert "trial ended" in logged
    assert KEY not in logged
