"""A client that is not ours: `buf curl` finds the services by reflection, asks for health, creates a run, watches it,
and is told of bad input field by field."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.stack.support import RunningStack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SERVICE = "seal.controller.v1.ControllerService"
BUF = Path(sys.executable).parent / "buf"


def curl(url: str, data: dict[str, Any] | None = None, *words: str) -> subprocess.CompletedProcess[str]:
    """`buf curl` over plaintext HTTP/2; the schema comes from the server's reflection."""
    body = ["--data", json.dumps(data)] if data is not None else []
    return subprocess.run(
        [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *words, *body, url],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def messages(output: str) -> list[dict[str, Any]]:
    """The JSON messages that a call printed one after the other."""
    decoder, found, rest = json.JSONDecoder(), [], output.strip()
    while rest:
        message, end = decoder.raw_decode(rest)
        found.append(message)
        rest = rest[end:].lstrip()
    return found


def test_buf_curl_runs_seal(stack: RunningStack) -> None:
    base = f"http://{stack.address}"

    services = curl(base, None, "--list-services").stdout.split()
    assert {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= set(services)
    health = curl(f"{base}/grpc.health.v1.Health/Check", {"service": SERVICE})
    assert messages(health.stdout) == [{"status": "SERVING"}], health.stderr

    refused = curl(f"{base}/{SERVICE}/CreateRun", {"config": {}, "display_name": "x" * 300})
    assert refused.returncode != 0
    assert json.loads(refused.stderr)["code"] == "invalid_argument"
    for field in ("request_id", "display_name"):
        assert field in refused.stderr, "every faulty field is named"

    record = {"title": "T", "context": "The lake of T is deep.", "questions": [{"question": "How?", "answer": "deep"}]}
    config = {"rounds": 1, "contexts_per_round": 1, "editor": {"k": 1, "sampling": {"max_tokens": 8}},
              "inner_loop": {"optimisation": {"epochs": 1}}, "evaluation": {"retention_limit": 1}}  # fmt: skip
    created = curl(f"{base}/{SERVICE}/CreateRun", {"request_id": "from-buf", "config": config, "records": [record]})
    assert created.returncode == 0, created.stderr
    name = messages(created.stdout)[0]["run"]["name"]

    watched = curl(f"{base}/{SERVICE}/WatchRun", {"name": name})
    events = [message["event"] for message in messages(watched.stdout)]
    assert events[-1]["runStateChanged"]["state"] == "RUN_STATE_SUCCEEDED", watched.stdout
    assert sum("trialFinished" in event for event in events) == 2, "one self-edit and the raw passage"
    seen = [int(event["cursor"]) for event in events]
    assert seen == sorted(set(seen)), "in order, none twice"
