"""The HTTP service's errors and forms, byte for byte as OpenAI's API has them, where a client would hide them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import REGISTRY

from gateway.replies import Reply
from sealkit.errors import PermissionDenied, QuotaExceeded, Unauthenticated
from sealkit.observability.logs import configure_logging
from tests.contract.http_harness import Served, served
from tests.contract.tenants_harness import furnish
from tests.records import new_record

USER = {"role": "user", "content": "Which river?"}
CHAT = "/v1/chat/completions"


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Served]:
    database = new_record(tmp_path)
    await furnish(database, "", alias="notes")
    await furnish(database, "team-a", request_id="a", alias="theirs")
    await database.close()
    async with served(tmp_path, max_tokens=100) as made:
        yield made


def chat(**changes: Any) -> dict[str, Any]:
    return {"model": "notes", "messages": [USER], **changes}


BAD: list[tuple[dict[str, Any], str]] = [
    (chat(messages=[]), "messages"),
    (chat(messages="Which river?"), "messages"),
    (chat(messages=[{"role": "user"}]), "messages[0].content"),
    (chat(messages=[{"role": "user", "content": ""}]), "messages[0].content"),
    (chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]), "messages[0].content"),
    (chat(messages=[{"role": "tool", "content": "x"}]), "messages[0].role"),
    (chat(messages=[USER, {"role": "assistant", "content": "x"}]), "messages[1]"),
    (chat(messages=[{"role": "assistant", "content": "x"}, USER]), "messages[0]"),
    (chat(messages=[USER, {"role": "system", "content": "x"}, USER]), "messages[1]"),
    (chat(messages=[USER, {"role": "assistant", "content": "x"}] * 65 + [USER]), "messages[0]"),
    (chat(model=""), "model"),
    (chat(model=7), "model"),
    (chat(temperature=-0.1), "temperature"),
    (chat(temperature="hot"), "temperature"),
    (chat(top_p=0), "top_p"),
    (chat(max_tokens=0), "max_tokens"),
    (chat(max_tokens=101), "max_tokens"),
    (chat(max_completion_tokens=101), "max_completion_tokens"),
    (chat(n=2), "n"),
    (chat(stop=[""]), "stop[0]"),
    (chat(stop=["x"] * 17), "stop"),
    (chat(seed=2**63), "seed"),
    (chat(logprobs=True), "logprobs"),
    (chat(presence_penalty=0.5), "presence_penalty"),
    (chat(logit_bias={"7": 1}), "logit_bias"),
    (chat(tools=[{"type": "function", "function": {"name": "f"}}]), "tools"),
    (chat(response_format={"type": "xml"}), "response_format.type"),
    (chat(top_k=5), "top_k"),
    (chat(stream="yes"), "stream"),
]


async def test_what_is_wrong_with_a_request_is_named(service: Served) -> None:
    got = {}
    async with service.http() as http:
        for place, (body, _) in enumerate(BAD):
            response = await http.post(CHAT, json=body)
            error = response.json()["error"]
            assert error.keys() == {"message", "type", "param", "code"}
            got[place] = (response.status_code, error["type"], error["param"], error["param"] in error["message"])
    wanted = {place: (400, "invalid_request_error", param, True) for place, (_, param) in enumerate(BAD)}
    assert {place: (BAD[place], one) for place, one in got.items() if one != wanted[place]} == {}


async def test_what_changes_no_answer_is_ignored(service: Served) -> None:
    body = chat(
        user="u", metadata={"k": "v"}, store=False, service_tier="auto", presence_penalty=0, tools=[], logprobs=False,
        n=1, parallel_tool_calls=True, tool_choice="none", response_format={"type": "text"}, stop=None,
        messages=[USER, {"role": "assistant", "content": "x", "tool_calls": None, "audio": None}, USER],
    )  # fmt: skip
    async with service.http() as http:
        assert (await http.post(CHAT, json=body)).status_code == 200


async def test_bodies_that_are_no_requests(service: Served) -> None:
    told = {}
    async with service.http() as http:
        for body in (
            b"",
            b"{",
            b"[]",
            b"null",
            b'{"model": "a\\ud800"}',
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"temperature": NaN}',
        ):
            response = await http.post(CHAT, content=body, headers={"content-type": "application/json"})
            told[body[:20]] = (response.status_code, response.json()["error"]["type"])
        assert set(told.values()) == {(400, "invalid_request_error")}
        form = await http.post(CHAT, content=json.dumps(chat()), headers={"content-type": "text/plain"})
        assert (form.status_code, form.json()["error"]["code"]) == (415, "unsupported_content_type")


async def test_routes_and_methods_that_there_are_not(service: Served) -> None:
    async with service.http() as http:
        missing, method = await http.get("/v1/embeddings"), await http.get(CHAT)
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
        assert (method.status_code, method.headers["allow"]) == (405, "POST")
        assert (await http.get("/healthz")).text == "ok\n"
        assert (await http.get("/metrics")).status_code == 404, "metrics have a port of their own"


async def test_a_model_that_the_caller_may_not_see_does_not_exist(service: Served) -> None:
    async with service.http() as http:
        for model in ("ghosts", "theirs", "aliases/theirs", "policies/x", "../notes", "No such"):
            response = await http.post(CHAT, json=chat(model=model))
            error = response.json()["error"]
            assert (response.status_code, error["code"], error["param"]) == (404, "model_not_found", "model"), model
        acting = {"seal-tenant": "team-a"}
        assert (await http.post(CHAT, json=chat(model="theirs"), headers=acting)).status_code == 200
        listed = (await http.get("/v1/models", headers=acting)).json()["data"]
        assert [(one["id"], one["owned_by"]) for one in listed] == [("base", "seal"), ("theirs", "team-a")]
        bad = await http.get("/v1/models", headers={"seal-tenant": "Team A"})
        assert bad.status_code == 400


async def test_the_controllers_refusals_have_their_status(service: Served) -> None:
    faults = {
        Unauthenticated("not a known caller"): (401, "invalid_api_key", None, None),
        PermissionDenied("may not"): (403, "permission_denied", None, None),
        QuotaExceeded("quota device_seconds_a_day"): (429, "insufficient_quota", "1", "false"),
    }
    async with service.http() as http:
        for fault, wanted in faults.items():
            service.script.faults = {"answer": fault}
            got = await http.post(CHAT, json=chat())
            headers = got.headers.get("retry-after"), got.headers.get("x-should-retry")
            assert (got.status_code, got.json()["error"]["code"], *headers) == wanted


async def test_a_streams_events_are_lines_of_data_and_end_with_done(service: Served) -> None:
    async with service.http() as http:
        got = await http.post(CHAT, json=chat(stream=True))
        assert got.headers["content-type"].startswith("text/event-stream")
        assert got.headers["cache-control"] == "no-cache"
        blocks = got.text.split("\n\n")
        assert blocks[-2:] == ["data: [DONE]", ""]
        chunks = [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        assert {chunk["model"] for chunk in chunks} == {"notes"}
        service.script.faults = {"river?": Unauthenticated("was struck off the list")}
        broken = (await http.post(CHAT, json=chat(stream=True))).text.split("\n\n")
        assert json.loads(broken[-2].removeprefix("data: "))["error"]["code"] == "invalid_api_key"
        assert "[DONE]" not in broken[-2]


async def test_requests_are_counted_by_route_and_status(service: Served) -> None:
    def counted(route: str, status: str) -> float:
        return REGISTRY.get_sample_value("seal_http_requests_total", {"route": route, "status": status}) or 0.0

    before = counted(CHAT, "200"), counted("other", "404")
    async with service.http() as http:
        first = await http.post(CHAT, json=chat())
        await http.get("/v1/embeddings")
        assert len(first.headers["x-request-id"]) == 32
    assert (counted(CHAT, "200"), counted("other", "404")) == (before[0] + 1, before[1] + 1)


async def test_a_bug_is_answered_with_500_and_logged_with_the_id_of_the_request(
    service: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Reply, "whole", fails)
    configure_logging("gateway")
    async with service.http() as http:
        broken = await http.post(CHAT, json=chat())
        assert (await http.get("/healthz")).status_code == 200
    request_id = broken.headers["x-request-id"]
    assert (broken.status_code, broken.json()["error"]["code"]) == (500, "internal")
    assert request_id in broken.json()["error"]["message"]
    (logged,) = (line for line in map(json.loads, capsys.readouterr().err.splitlines()) if "exception" in line)
    assert logged["request_id"] == request_id
    assert "ZeroDivisionError: a bug" in logged["exception"]
