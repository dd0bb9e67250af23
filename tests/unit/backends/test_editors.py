"""Outside editors: what they are asked, where their keys come from, and that keys stay where they are."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from generator_svc.editors import Editors, read_editors
from generator_svc.sampler import sample
from sealkit.errors import EndpointDenied, InvalidConfig, SealError, UnknownEditor
from sealkit.faults import fault_of
from sealkit.types import FinishReason, Prompt, Sampling, Shot
from tests.serving import Answer, HttpServer, serving

KEY = "sk-outside-0123456789abcdef"
PROMPT = Prompt(system="Be brief.", shots=(Shot(user="one?", assistant="1"),), user="two?")


@dataclass
class FakeChat(HttpServer):
    finish: str = "stop"

    def reply(self, path: str, body: dict[str, Any]) -> Answer:
        choice = {"message": {"role": "assistant", "content": "2, surely"}, "finish_reason": self.finish}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 4}}


@pytest.fixture
async def chat() -> AsyncIterator[FakeChat]:
    server = FakeChat()
    async with serving(server):
        yield server


def listing(folder: Path, url: str, more: str = 'api_key_env = "OUTSIDE_KEY"') -> str:
    file = folder / "editors.toml"
    file.write_text(f'[[editor]]\nname = "outside"\nmodel = "big"\nurl = "{url}/v1"\nbackoff_seconds = 0.001\n{more}\n')
    return str(file)


@pytest.fixture
async def editors(chat: FakeChat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Editors]:
    monkeypatch.setenv("OUTSIDE_KEY", KEY)
    found = read_editors(listing(tmp_path, chat.url))
    yield found
    await found.close()


async def test_a_prompt_becomes_a_chat(editors: Editors, chat: FakeChat) -> None:
    sampling = Sampling(
        temperature=0.5, top_p=0.9, max_tokens=64, seed=2**40, stop=("END",), json_schema='{"type": "null"}'
    )
    said = await editors.write("outside", PROMPT, sampling)
    assert chat.requests == [
        (
            "/v1/chat/completions",
            {
                "model": "big", "max_tokens": 64, "temperature": 0.5, "top_p": 0.9, "seed": 0, "stop": ["END"],
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "one?"},
                    {"role": "assistant", "content": "1"},
                    {"role": "user", "content": "two?"},
                ],
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "completion", "schema": {"type": "null"}},
                },
            },
        )
    ]  # fmt: skip
    assert chat.headers[0]["authorization"] == f"Bearer {KEY}"
    assert (said.text, said.finish_reason) == ("2, surely", FinishReason.STOP)
    assert (said.usage.prompt_tokens, said.usage.completion_tokens, said.usage.device_seconds) == (11, 4, 0)


async def test_an_answer_that_was_cut_says_so(editors: Editors, chat: FakeChat) -> None:
    chat.finish = "length"
    assert (await editors.write("outside", PROMPT, Sampling())).finish_reason is FinishReason.LENGTH


async def test_an_endpoint_without_seeds_is_sent_none(chat: FakeChat, tmp_path: Path) -> None:
    editors = read_editors(listing(tmp_path, chat.url, "seeds = false"))
    await editors.write("outside", PROMPT, Sampling(seed=3))
    assert "seed" not in chat.requests[0][1]
    assert "authorization" not in chat.headers[0]
    await editors.close()


async def test_an_editor_that_nobody_listed_is_refused(editors: Editors) -> None:
    with pytest.raises(UnknownEditor, match="'gpt'; there are: outside"):
        await editors.write("gpt", PROMPT, Sampling())


async def test_a_key_comes_from_a_file_too(chat: FakeChat, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    editors = read_editors(listing(tmp_path, chat.url, f'api_key_file = "{tmp_path}/key"'))
    await editors.write("outside", PROMPT, Sampling())
    assert chat.headers[0]["authorization"] == f"Bearer {KEY}"
    await editors.close()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (f'api_key = "{KEY}"', "api_key: Extra inputs are not permitted"),
        ('api_key_env = "NOT_SET"', r"\$NOT_SET holds no API key"),
        ('api_key_file = "/nowhere"', "cannot be read from /nowhere"),
        ('[[editor]]\nname = "outside"\nmodel = "b"\nurl = "http://h"', "duplicate editor outside"),
        ("= ", "cannot be read"),
    ],
)
def test_a_list_that_is_none_is_refused_without_its_keys(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message) as raised:
        read_editors(listing(tmp_path, "http://host", more))
    assert KEY not in str(raised.value)


def test_no_file_is_no_editor() -> None:
    assert read_editors("").names == []


@pytest.mark.parametrize("answer", [(401, f"Incorrect API key provided: {KEY}"), (500, KEY), (200, KEY), (400, KEY)])
async def test_no_key_is_in_what_is_logged_recorded_or_said(
    editors: Editors, chat: FakeChat, answer: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A recorded fault is `fault_of` the error; so what it holds is what ends in the database and on the wire."""
    caplog.set_level(logging.DEBUG)
    chat.broken["/v1/chat/completions"] = answer
    with pytest.raises(SealError) as raised:
        await editors.write("outside", PROMPT, Sampling())
    error: BaseException | None = raised.value
    shown = [json.dumps(fault_of(raised.value).model_dump(mode="json")), repr(vars(raised.value)), caplog.text]
    while error is not None:  # whoever logs it logs its causes too
        shown.append(str(error))
        error = error.__cause__ or error.__context__
    if answer[0] == 401:
        assert type(raised.value) is EndpointDenied
        assert "$OUTSIDE_KEY" in raised.value.message, "where the key is from is said, the key is not"
    captured = capfd.readouterr()
    assert KEY not in "\n".join([*shown, captured.out, captured.err, repr(editors.__dict__)])


async def test_completions_of_an_editor_come_for_each_context_and_index(editors: Editors, chat: FakeChat) -> None:
    async def write(prompt: Prompt, sampling: Sampling) -> Any:
        return await editors.write("outside", prompt, sampling)

    found = [c async for c in sample(write, [("a", PROMPT, [0, 1]), ("b", PROMPT, [0])], Sampling())]
    assert sorted((c.context_id, c.index) for c in found) == [("a", 0), ("a", 1), ("b", 0)]
    assert len({body["seed"] for _, body in chat.requests}) == 3
