"""Reasoning is kept apart: as transformers' own parser finds it, and at every backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from generator_svc.editors import read_editors
from sealkit.backends.models import ModelSettings
from sealkit.backends.openai import OpenAIBackend, ServedModel
from sealkit.backends.reasoning import ReasoningReader, markers_of
from sealkit.backends.remote import NoAdapters
from sealkit.backends.template import render_prompt, rendered_text
from sealkit.backends.tgi import TgiBackend, TgiOptions
from sealkit.backends.transformers import TransformersBackend
from sealkit.endpoint import EndpointOptions
from sealkit.errors import InvalidInput
from sealkit.reasoning import MARKERS, Said, split
from sealkit.store import AdapterStore
from sealkit.testing.tiny import make_tiny_model, make_tiny_tokenizer
from sealkit.types import Prompt, PromptFormat, Sampling, Shot
from tests.serving import Answer, FakeTgi, FakeVllm, HttpServer, serving

TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}BEGIN{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\nPROMPT{% endif %}"
)
OPTIONAL = TURNS.replace("BEGIN", "<think>\n\n</think>\n\n").replace(
    "PROMPT", "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)
"""As in hybrid models: the model opens its reasoning itself, unless it is turned off."""
FORCED = TURNS.replace("BEGIN", "").replace("PROMPT", "<think>\n") + "{# </think> #}"
"""As in models that always reason: the prompt opens it, and earlier turns have none."""
PLAIN = TURNS.replace("BEGIN", "").replace("PROMPT", "")
QUESTION = Prompt(user="Who built it?", shots=(Shot(user="Where is it?", assistant="In Durrow."),))
GREEDY = Sampling(temperature=0, max_tokens=6)


def tokenizer_of(template: str, *special: str) -> PreTrainedTokenizerFast:
    """`special`: texts that are special tokens."""
    made = make_tiny_tokenizer()
    made.add_tokens([AddedToken(text, special=True) for text in special])
    made.chat_template = template
    return made


COMPLETIONS = (
    "Nora Birk.",
    "<think>\nIt says Birk.\n</think>\n\nNora Birk.",
    "<think>It says Birk.</think>Nora Birk.",
    "<think>\n\n</think>\n\nNora Birk.",
    "<think>\nIt says Birk, or was it",
    "<think>",
    "<think>\nDone.\n</think>",
    "<think>One.</think>Nora <think>Two.</think>Birk.",
)
OPENED = (
    "It says Birk.\n</think>\n\nNora Birk.",
    "\n</think>\n\nNora Birk.",
    "It says Birk, or was it",
)


def test_answer_and_reasoning_are_those_of_transformers_parser() -> None:
    """`parse_response` is told the markers; where there is more than one reasoning it keeps the last."""
    faults = []
    for markers in MARKERS:
        region = {"open": markers.opening, "close": markers.closing, "content": "text"}
        fields = {"reasoning_content": region, "content": {"content": "text"}}
        schema = {"defaults": {"role": "assistant"}, "start_anchor": "assistant\n", "fields": fields}
        for begun, texts in (("", COMPLETIONS), ("<think>\n", OPENED)):
            prompt = f"assistant\n{begun}"
            for text in texts:
                prefix, own = (
                    part.replace("<think>", markers.opening).replace("</think>", markers.closing)
                    for part in (prompt, text)
                )
                theirs = make_tiny_tokenizer().parse_response(own, schema, prefix=prefix)
                ours = split(own, markers, opened=bool(begun))
                if ours.reasoning.split("\n\n")[-1] != theirs.get("reasoning_content", "").strip():
                    faults.append((own, ours, theirs))
                if text.count("</think>") < 2 and ours.text != theirs.get("content", "").strip():
                    faults.append((own, ours, theirs))
    assert faults == []


def test_what_no_parser_is_told_about() -> None:
    think = MARKERS[0]
    assert split("It says Birk.</think>Birk.", think) == ("Birk.", "It says Birk."), "the opening one was left out"
    assert split("<think>One.</think>Nora <think>Two.</think>Birk.", think) == ("Nora Birk.", "One.\n\nTwo.")
    assert split("<think>Hm.</think>\n<answer>\nBirk.\n</answer>", think) == ("Birk.", "Hm.")
    assert split(" <b> as it is ", think) == (" <b> as it is ", "")
    assert split("<think>Hm.</think>Birk.", None) == ("<think>Hm.</think>Birk.", "")


def test_a_model_is_known_by_its_template_or_its_tokens() -> None:
    found = {
        "plain": markers_of(tokenizer_of(PLAIN)),
        "template": markers_of(tokenizer_of(OPTIONAL)),
        "tokens": markers_of(tokenizer_of(PLAIN, "[THINK]", "[/THINK]")),
        "none": markers_of(make_tiny_tokenizer(chat=False)),
    }
    assert found == {"plain": None, "template": MARKERS[0], "tokens": MARKERS[1], "none": None}


def test_markers_that_are_special_tokens_are_seen_and_other_special_tokens_are_not() -> None:
    faults = []
    for markers in (MARKERS[0], MARKERS[1], MARKERS[2], MARKERS[4]):
        channels = "channel" in markers.opening
        special = ("<|channel|>", "<|message|>") if channels else (markers.opening, markers.closing)
        tokenizer = tokenizer_of(PLAIN + "{# " + markers.closing + " #}", *special)
        tokens = tokenizer(f"{markers.opening}It says Birk.<|im_end|>{markers.closing}Nora Birk.<|im_end|>").input_ids
        reader = ReasoningReader(tokenizer)
        said = reader.split(reader.text(tokens), [])
        if said != ("Nora Birk.", "It says Birk."):
            faults.append((markers, said))
        sent = tokenizer.decode(tokens, skip_special_tokens=False)
        if reader.without_special(reader.split(sent, [])) != ("Nora Birk.", "It says Birk."):
            faults.append((markers, sent))
    assert faults == []


def test_an_answer_begins_where_the_template_begins_one_without_reasoning() -> None:
    """Expected: the template's own rendering of a turn that is already there."""
    faults = []
    for name, template, kwargs in (
        ("optional", OPTIONAL, {}),
        ("turned off", OPTIONAL, {"enable_thinking": False}),
        ("plain", PLAIN, {}),
    ):
        tokenizer = tokenizer_of(template)
        turns = [
            {"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "In Durrow."},
            {"role": "user", "content": "Who built it?"}, {"role": "assistant", "content": "NORA"},
        ]  # fmt: skip
        wanted = str(tokenizer.apply_chat_template(turns, tokenize=False, **kwargs)).partition("NORA")[0]
        text, _ = rendered_text(tokenizer, QUESTION.changed(chat_template_kwargs=kwargs), answering=True)
        if text != wanted:
            faults.append((name, text, wanted))
    assert faults == []
    forced = tokenizer_of(FORCED)
    asked, _ = rendered_text(forced, QUESTION)
    assert asked.endswith("assistant\n<think>\n")
    assert rendered_text(forced, QUESTION, answering=True)[0] == asked + "\n</think>\n\n"
    plain = QUESTION.changed(format=PromptFormat.PLAIN)
    assert rendered_text(forced, plain, answering=True) == rendered_text(forced, plain)


def test_arguments_reach_the_template_and_one_that_it_does_not_have_is_refused() -> None:
    tokenizer = tokenizer_of(OPTIONAL)
    off = render_prompt(tokenizer, QUESTION.changed(chat_template_kwargs={"enable_thinking": False}))
    on = render_prompt(tokenizer, QUESTION.changed(chat_template_kwargs={"enable_thinking": True}))
    assert tokenizer.decode(off) == tokenizer.decode(on) + "<think>\n\n</think>\n\n"
    for name in ("enable_thinkin", "thinking", "messages", "add_generation_prompt", "tokenize"):
        with pytest.raises(InvalidInput, match=name):
            render_prompt(tokenizer, QUESTION.changed(chat_template_kwargs={name: False}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the markers of Magistral, whose prompt opens them if it is asked to."""
    made = make_tiny_model(tmp_path_factory.mktemp("thinking") / "model", hidden=16, layers=1, context=128, vocab=514)
    template = PLAIN.replace("assistant\n{% endif %}", "assistant\n{% if think %}[THINK]{% endif %}{% endif %}")
    tokenizer_of(template, "[THINK]", "[/THINK]").save_pretrained(made)
    return made


async def test_what_is_decoded_inside_the_reasoning_is_no_text(folder: Path, tmp_path: Path) -> None:
    backend = TransformersBackend(ModelSettings(model=str(folder), device="cpu"), AdapterStore(tmp_path.as_uri()))
    await backend.start()
    opened = QUESTION.changed(chat_template_kwargs={"think": True})
    thought, plain = await backend.generate(opened, GREEDY), await backend.generate(QUESTION, GREEDY)
    schema = '{"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}'
    constrained = await backend.generate(opened, GREEDY.changed(json_schema=schema, max_tokens=40))
    assert backend.info.build["reasoning"] == "[THINK]"
    await backend.close()
    assert (thought.text, bool(thought.reasoning), thought.usage.completion_tokens) == ("", True, 6)
    assert (plain.reasoning, bool(plain.text)) == ("", True)
    assert (constrained.reasoning, constrained.text[0]) == ("", "{"), "a grammar constrains the answer"


async def test_a_server_is_asked_for_markers_that_it_would_leave_out(folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)

    class Thinking(FakeVllm):
        def reply(self, path: str, body: dict[str, Any]) -> Answer:
            status, answer = super().reply(path, body)
            if isinstance(answer, dict) and "choices" in answer:
                shown = "[THINK]It says Birk.[/THINK]Nora Birk.<|im_end|>"
                hidden = "It says Birk.Nora Birk."
                answer["choices"][0]["text"] = hidden if body.get("skip_special_tokens", True) else shown
            return status, answer

    server = Thinking(tokenizer=tokenizer)
    async with serving(server):
        options = EndpointOptions(url=f"{server.url}/v1")
        backend = OpenAIBackend(ServedModel(model=str(folder), served_as="base"), options, NoAdapters(""))
        await backend.start()
        said = await backend.generate(QUESTION, GREEDY)
        await backend.close()
    assert (said.text, said.reasoning) == ("Nora Birk.", "It says Birk.")


async def test_tgis_tokens_show_the_markers(folder: Path, tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    sampled = tokenizer("[THINK]It says Birk.[/THINK]Nora Birk.<|im_end|>").input_ids

    class Thinking(FakeTgi):
        def reply(self, path: str, body: dict[str, Any]) -> Answer:
            status, answer = super().reply(path, body)
            if isinstance(answer, list):
                answer[0]["generated_text"] = "It says Birk.Nora Birk."
                tokens = [{"id": token, "text": "", "logprob": 0.0, "special": False} for token in sampled]
                answer[0]["details"]["tokens"] = tokens
            return status, answer

    server = Thinking(tokenizer=tokenizer)
    async with serving(server):
        store = AdapterStore(tmp_path.as_uri())
        model = ServedModel(model=str(folder), served_as="served")
        backend = TgiBackend(model, EndpointOptions(url=server.url), TgiOptions(), store)
        await backend.start()
        said = await backend.generate(QUESTION, GREEDY)
        await backend.close()
    assert (said.text, said.reasoning) == ("Nora Birk.", "It says Birk.")


async def test_an_outside_editor_s_reasoning_is_apart_in_a_field_or_in_its_text(tmp_path: Path) -> None:
    class Chat(HttpServer):
        message: dict[str, Any]

        def reply(self, path: str, body: dict[str, Any]) -> Answer:
            return 200, {"choices": [{"message": self.message, "finish_reason": "length"}], "usage": {}}

    server = Chat()
    cases: dict[str, tuple[dict[str, Any], Said]] = {
        "reasoning_content": ({"content": "Birk.", "reasoning_content": "Hm."}, Said("Birk.", "Hm.")),
        "reasoning": ({"content": "Birk.", "reasoning": "Hm."}, Said("Birk.", "Hm.")),
        "cut": ({"content": None, "reasoning": "Hm, or"}, Said("", "Hm, or")),
        "text": ({"content": "<think>Hm.</think>\nBirk."}, Said("Birk.", "Hm.")),
        "closed": ({"content": "Hm.</think>\nBirk."}, Said("Birk.", "Hm.")),
        "cut text": ({"content": "<think>Hm, or"}, Said("", "Hm, or")),
        "none": (
            {"content": "A tag such as <think> is text.", "reasoning": None},
            Said("A tag such as <think> is text."),
        ),
    }
    found = {}
    async with serving(server):
        listed = '[[editor]]\nname = "e"\nmodel = "m"\nchat_template_kwargs = { enable_thinking = true }\n'
        (tmp_path / "editors.toml").write_text(f'{listed}url = "{server.url}/v1"\n')
        editors = read_editors(str(tmp_path / "editors.toml"))
        for name, (message, _) in cases.items():
            server.message = message
            said = await editors.write("e", QUESTION, GREEDY)
            found[name] = Said(said.text, said.reasoning)
        await editors.close()
    assert found == {name: wanted for name, (_, wanted) in cases.items()}
    assert server.requests[0][1]["chat_template_kwargs"] == {"enable_thinking": True}
