"""The live page: what it shows, in pages; its headers; who may see it; its events. In a browser: tests/integration."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.page.views import MOST_WATCHED
from sealkit.errors import Unavailable, UnknownRun
from sealkit.shown import NOT_SHOWN
from tests.unit.gateway.page_fakes import ORIGIN, RUN, FakeController, browser
from tests.unit.report_page.runs import MARKUP
from tests.unit.report_page.test_page import Read

TRIAL = "/live/runs/demo-1/rounds/0/trials/c-0"
PAGES = ("/live/", "/live/runs/demo-1", "/live/runs/demo-1/findings", TRIAL, "/live/aliases/production")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.page.stream._PAUSE_SECONDS", 0.0)


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (tmp_path / name).touch()
    return tmp_path


def messages(body: str) -> list[tuple[str, str, Any]]:
    """Id, kind and data of the messages of a stream."""
    found = []
    for block in filter(None, body.split("\n\n")):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines())
        if "data" in fields:
            found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return found


def test_every_page_shows_what_the_controller_told() -> None:
    client = browser(FakeController())
    shown = {path: Read(client.get(path).text).text for path in PAGES}
    wanted = {
        "/live/": [
            "demo-1 running",
            "0 of 0",
            "production",
            "passed the gate",
            "old-1",
            "running 0 2 1,500 4",
            "trainer 10.0.0.7:50052 serving tiny",
            "3 of 16 1,007 900 of 1,024",
            "evaluator not serving",
        ],
        "/live/runs/demo-1": ["round", "Trials as they end", "c-0"],
        "/live/runs/demo-1/findings": ["0.550 [0.460, 0.640]", "gain", "BWT", "The RL step improved the self-edits"],
        TRIAL: ["The Ossel rises", "Training examples", "Where does q/1 rise?", "final loss 0.321"],
        "/live/aliases/production": ["demo-1-2", "passed the gate", "trained on 1 self-edits", "Ask both"],
    }
    assert {(path, text) for path, texts in wanted.items() for text in texts if text not in shown[path]} == set()


def test_every_response_has_the_headers() -> None:
    controller = FakeController()
    client = browser(controller)
    found = {path: client.get(path) for path in (*PAGES, "/live/live.css", "/live/live.js", "/live/nothing")}
    assert client.get("/").headers["location"] == client.get("/live").headers["location"] == "/live/"
    controller.error = Unavailable("the controller does not answer")
    found["error"] = client.get("/live/")
    assert {path: got.headers["content-security-policy"] for path, got in found.items()} == dict.fromkeys(found, POLICY)
    assert {got.headers["x-content-type-options"] for got in found.values()} == {"nosniff"}
    assert {path: got.headers["cache-control"] for path, got in found.items() if "live." not in path} == dict.fromkeys(
        [path for path in found if "live." not in path], "no-store"
    )
    assert (found["/live/nothing"].status_code, found["error"].status_code) == (404, 503)
    assert "the controller does not answer" in found["error"].text
    script = re.search(r'src="(/live/live\.js\?\w+)"', found["/live/"].text)
    assert script is not None, "another content has another address"
    client = browser(FakeController())
    assert client.get(script[1]).headers["content-type"].startswith("text/javascript")


def test_whatever_a_run_holds_is_text() -> None:
    plain, hostile = browser(FakeController()), browser(FakeController(hostile=True))
    for path in PAGES:
        got = hostile.get(path)
        read = Read(got.text)
        assert got.status_code == 200, path
        assert set(read.tags) <= set(Read(plain.get(path).text).tags), f"{path}: a text made an element"
        assert [a for a in read.attributes if a[1].startswith("on") or a[1] == "style"] == [], path
        assert {value.partition("?")[0] for _, name, value in read.attributes if name == "src"} == {"/live/live.js"}
        assert {found[0] for found in NOT_SHOWN.finditer(got.text)} - {"\n"} == set(), path
    events = messages(hostile.get("/live/events?run=demo-1").text)
    (news,) = [data for _, kind, data in events if kind == "run"]
    assert "\u202e" not in json.dumps(news, ensure_ascii=False)
    assert len(news["lines"][0]) <= 1000


def test_long_texts_are_cut_and_can_be_seen_whole() -> None:
    client = browser(FakeController(hostile=True))
    cut, whole = client.get(TRIAL).text, client.get(f"{TRIAL}?all=1").text
    assert MARKUP in Read(cut).text
    assert "more characters)" in cut
    assert f"{TRIAL}?all=1" in cut
    assert "more characters)" not in whole
    assert len(whole) > 100_000 > len(cut)
    assert not re.search("<script>|<img|\u202e", whole)


def test_lists_come_in_pages() -> None:
    controller = FakeController(runs=500, trials=5000)
    client = browser(controller)
    first = Read(client.get("/live/").text)
    second = Read(client.get(f"/live/?runs={MOST_WATCHED}").text)
    client.get("/live/runs/demo-1")
    client.get("/live/runs/demo-1/findings")
    assert "480 more runs" in first.text, "of the queue"
    rows = [
        {value for tag, name, value in read.attributes if (tag, name) == ("tr", "data-run")} for read in (first, second)
    ]
    assert [len(names) for names in rows] == [MOST_WATCHED, MOST_WATCHED]
    assert not rows[0] & rows[1]
    assert ("a", "href", f"?runs={MOST_WATCHED}#runs") in first.attributes
    watched = next(value for _, name, value in first.attributes if name == "data-watch")
    assert {f"runs/{run}" for run in watched.split()} == rows[0], "none that is shown stands still"
    sizes = {words[2] for call, _, words in controller.calls if call == "trials_page"}
    assert max(sizes) <= 500
    assert (
        sum(words[2] for call, _, words in controller.calls if call == "trials_page" and "/rounds/" in words[0]) <= 2000
    )


def test_a_stream_of_events_resumes_after_the_last_one() -> None:
    controller = FakeController(trials=300)
    client = browser(controller)
    whole = client.get("/live/events?run=demo-1")
    assert whole.headers["content-type"].startswith("text/event-stream")
    found = messages(whole.text)
    assert [kind for _, kind, _ in found][-2:] == ["run", "ended"]
    assert sum(data["ended"] for _, kind, data in found if kind == "run") == 300
    assert all(len(data["rows"]) <= 20 for _, kind, data in found if kind == "run"), "added up"
    news = found[0][2]
    assert news["waits"] == {"training": ""}, "it went on"
    assert "waiting (training): no trainer answers" in " ".join(news["lines"])
    assert news["rows"][0].startswith("<tr>")
    last = found[-2][0]
    assert last == "demo-1:305"
    assert [kind for _, kind, _ in messages(client.get("/live/events?run=demo-1&after=demo-1:305").text)] == ["ended"]
    resumed = client.get("/live/events?run=demo-1", headers={"last-event-id": "demo-1:304"})
    assert messages(resumed.text)[0][2]["state"] == "succeeded"
    assert messages(resumed.text)[0][2]["ended"] == 0
    for query in ("", "?run=../x", "?run=demo-1&after=1%0A2", "?" + "&".join(f"run=r{n}" for n in range(21))):
        assert client.get(f"/live/events{query}").status_code == 400, query
    assert ("watch_run", "", (RUN, "304", 30)) in controller.calls, "as many earlier events as the page has lines for"


def test_a_new_state_ends_what_a_run_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = FakeController(trials=1)
    started, _, waits, *_ = controller.events()
    for events, waited in (([started, waits], ["training"]), ([waits, started], [])):
        monkeypatch.setattr(controller, "events", lambda events=events: events)
        (_, _, news), *_ = messages(browser(controller).get("/live/events?run=demo-1").text)
        assert list(news["waits"]) == waited


def test_with_callers_the_page_asks_for_the_token_once(tls: Path) -> None:
    controller = FakeController(tokens=("good",))
    origin = {"origin": "https://localhost"}
    client = browser(controller, tls=tls)
    for path in (*PAGES, "/live/events?run=demo-1"):
        got = client.get(path)
        assert (got.status_code, 'type="password"' in got.text) == (401, True), path
        assert got.headers["content-security-policy"] == POLICY
    assert controller.calls == [], "without a token nothing is asked"
    assert "sign in" in client.get("/live/events?run=demo-1", headers={"accept": "*/*"}).json()["error"]["message"]
    wrong = client.post("/live/session", data={"token": "bad"}, headers=origin)
    assert (wrong.status_code, "nobody" in wrong.text, wrong.headers.get("set-cookie")) == (401, True, None)
    form = {"token": "good", "target": "/live/runs/demo-1?trials=50"}
    got = client.post("/live/session", data=form, headers=origin)
    assert (got.status_code, got.headers["location"]) == (303, form["target"])
    cookie = got.headers["set-cookie"]
    assert cookie.startswith("__Secure-seal-token=good;")
    assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/live"} <= set(cookie.split("; "))
    assert {client.get(path).status_code for path in PAGES} == {200}
    assert {token for call, token, _ in controller.calls if call != "whoami"} == {"good"}
    assert client.get("/v1/models").status_code == 401, "the cookie is the page's only"
    for target in ("https://evil.example/", "//evil.example", "/live/\\evil", "/live/\r\nx: y"):
        got = client.post("/live/session", data={"token": "good", "target": target}, headers=origin)
        assert got.headers["location"] == "/live/", target
    client.post("/live/session/end", headers=origin)
    assert client.get("/live/").status_code == 401


def test_only_the_page_itself_asks_and_only_on_a_name_of_this_machine() -> None:
    body = {"model": "aliases/production", "messages": [{"role": "user", "content": "Which river?"}], "stream": True}
    controller = FakeController()
    client = browser(controller)
    for headers in ({}, {"origin": "https://evil.example"}, {"origin": "null"}, {"origin": "http://["}):
        for path in ("/live/answers", "/live/session", "/live/session/end"):
            got = client.post(path, json=body, headers=headers)
            assert (got.status_code, got.json()["error"]["code"]) == (403, "origin_not_allowed"), (path, headers)
    assert client.post("/live/answers", data={"a": "b"}, headers=ORIGIN).status_code == 415, "no form asks"
    for path in PAGES:
        assert client.get(path, headers={"host": "evil.example"}).status_code == 403, path
    assert controller.calls == []
    got = client.post("/live/answers", json=body, headers=ORIGIN)
    assert "aliases/production says" in got.text
    assert got.text.endswith("data: [DONE]\n\n")
    assert controller.calls == [("stream_answer", "", ("aliases/production", "Which river?"))]


def test_an_error_is_a_page_for_people_and_json_for_scripts() -> None:
    controller = FakeController()
    controller.error = UnknownRun("there is no run <b>x</b>")
    client = browser(controller)
    got = client.get("/live/runs/x")
    assert (got.status_code, "there is no run &lt;b&gt;x&lt;/b&gt;" in got.text) == (404, True)
    got = client.get("/live/events?run=x", headers={"accept": "text/event-stream"})
    assert (got.status_code, got.json()["error"]["code"]) == (404, "unknown_run")
