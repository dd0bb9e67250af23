"""Chat templates and tokenizers as models have them: seen at load, handled, or refused by name. What a prompt should be
is what transformers' `apply_chat_template` makes of the messages that the template takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from sealkit.backends.models import LoadedModel, ModelSettings, describe_model, load_model
from sealkit.backends.probe import PROBE_TEXT, probe_tokens
from sealkit.backends.template import render_prompt, rendered_text, template_of, text_tokens
from sealkit.errors import InvalidInput, InvalidModel
from sealkit.testing.tiny import CHAT_TEMPLATE, END, START, make_tiny_model, make_tiny_tokenizer
from sealkit.types import Prompt, PromptFormat, Shot, TrainingExample
from trainer_svc.encoding import encode

PROMPT = Prompt(
    system="Answer in one word.", user="Which river?", shots=(Shot(user="Which town?", assistant="Veldermoor"),)
)
SYSTEM, FIRST, ANSWER, SECOND = (
    {"role": "system", "content": PROMPT.system}, {"role": "user", "content": "Which town?"},
    {"role": "assistant", "content": "Veldermoor"}, {"role": "user", "content": "Which river?"},
)  # fmt: skip
FOLDED = {"role": "user", "content": f"{PROMPT.system}\n\nWhich town?"}
_ASKED = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
DATED = "{%- macro day() %}{{ strftime_now('%d %b %Y') }}{% endmacro %}Today: {{ day() }}\n" + CHAT_TEMPLATE
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + CHAT_TEMPLATE
)
DROPS_SYSTEM = CHAT_TEMPLATE.replace("in messages %}", "in messages if m['role'] != 'system' %}", 1)
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}" + _ASKED
)
NO_OPENING = CHAT_TEMPLATE.removesuffix(_ASKED)
ONE_REQUEST = "{% if messages|length > 2 %}{{ raise_exception('One request only') }}{% endif %}" + CHAT_TEMPLATE


def tokenizer_of(template: str) -> PreTrainedTokenizerFast:
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def parts_of(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in messages]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("whole") / "m", hidden=16, layers=1, heads=2, kv_heads=1)


@pytest.fixture
def make(whole: Path, tmp_path: Path) -> Callable[[Callable[[PreTrainedTokenizerFast], None]], Path]:
    """A folder of the model, with a changed tokenizer."""

    def made(change: Callable[[PreTrainedTokenizerFast], None]) -> Path:
        folder = Path(shutil.copytree(whole, tmp_path / f"m{len(list(tmp_path.iterdir()))}"))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        (folder / "chat_template.jinja").unlink()
        change(tokenizer)
        tokenizer.save_pretrained(folder)
        return folder

    return made


def with_template(template: str | dict[str, str]) -> Callable[[PreTrainedTokenizerFast], None]:
    def change(tokenizer: PreTrainedTokenizerFast) -> None:
        tokenizer.chat_template = template

    return change


def load(folder: Path, **options: Any) -> LoadedModel:
    return load_model(ModelSettings(model=str(folder), device="cpu", dtype="float32", **options))


@pytest.mark.parametrize(
    ("template", "taken"),
    [
        (CHAT_TEMPLATE, [SYSTEM, FIRST, ANSWER, SECOND]),
        (NO_SYSTEM, [FOLDED, ANSWER, SECOND]),
        (DROPS_SYSTEM, [FOLDED, ANSWER, SECOND]),
        (PARTS, parts_of([SYSTEM, FIRST, ANSWER, SECOND])),
    ],
)
def test_a_conversation_is_given_as_the_template_takes_it(template: str, taken: list[dict[str, Any]]) -> None:
    tokenizer = tokenizer_of(template)
    wanted = tokenizer.apply_chat_template(taken, add_generation_prompt=True, tokenize=False)
    assert rendered_text(tokenizer, PROMPT) == (wanted, False)
    assert all(told in wanted for told in (PROMPT.system, "Which town?", "Veldermoor", "Which river?"))
    assert render_prompt(tokenizer, PROMPT) == tokenizer.apply_chat_template(
        taken, add_generation_prompt=True, return_dict=False
    )


def test_a_template_without_a_generation_prompt_gets_the_opening_of_its_answers() -> None:
    answered = tokenizer_of(NO_OPENING).apply_chat_template(
        [SYSTEM, FIRST, ANSWER, SECOND, {"role": "assistant", "content": "The Ossel"}], tokenize=False
    )
    assert rendered_text(tokenizer_of(NO_OPENING), PROMPT)[0] == answered.partition("The Ossel")[0]


def test_shots_that_a_template_does_not_take_are_refused_and_the_rest_goes_on() -> None:
    tokenizer = tokenizer_of(ONE_REQUEST)
    assert "Which river?" in rendered_text(tokenizer, PROMPT.changed(shots=()))[0]
    with pytest.raises(InvalidInput, match="one request alone"):
        rendered_text(tokenizer, PROMPT)
    assert "Veldermoor" in rendered_text(tokenizer, PROMPT.changed(format=PromptFormat.PLAIN))[0]


def test_a_template_that_takes_no_conversation_is_refused_at_load(
    make: Callable[[Callable[[PreTrainedTokenizerFast], None]], Path],
) -> None:
    templates = {
        "Never": "{{ raise_exception('Never') }}",
        "leaves out 'Who keeps the lighthouse'": "{{ messages[0]['content'] }}" + _ASKED,
        "leaves out": "{% for m in messages %}{{ m['text'] }}{% endfor %}" + _ASKED,
        "raises": "{{ 1 / 0 }}",
        "unknown tag": "{% nonsense %}",
    }
    wrong = []
    for told, template in templates.items():
        folder = make(with_template(template))
        for read in (load, lambda path: describe_model(str(path))):
            try:
                read(folder)
                wrong.append(f"{told}: loads")
            except InvalidModel as error:
                if told not in error.message or "takes no conversation" not in error.message:
                    wrong.append(f"{told}: {error.message}")
    with pytest.raises(InvalidModel, match="takes no conversation"):
        load(make(with_template({"tools": CHAT_TEMPLATE, "rag": CHAT_TEMPLATE})))  # none is the default
    assert not wrong


class _Clock:
    """The `datetime` that transformers' templates read."""

    @staticmethod
    def now() -> date:
        return date(2031, 1, 2)


def test_a_template_that_prints_the_date_prints_the_one_of_the_settings(
    make: Callable[[Callable[[PreTrainedTokenizerFast], None]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(with_template(DATED))
    texts, digests, facts = [], [], []
    for today in (None, date(2024, 7, 26), date(2025, 3, 9)):
        loaded = load(folder, **({"template_date": today} if today else {}))
        texts.append(rendered_text(loaded.tokenizer, PROMPT)[0].partition("\n")[0])
        digests.append(loaded.info.digest)
        facts.append(loaded.info.build["template_date"])
        described = describe_model(str(folder), **({"template_date": today} if today else {}))[1]
        assert (described.digest, described.build["template_date"]) == (digests[-1], facts[-1])
    assert texts == ["Today: 26 Jul 2024", "Today: 26 Jul 2024", "Today: 09 Mar 2025"]
    assert facts == ["2024-07-26", "2024-07-26", "2025-03-09"]
    assert (digests[0] == digests[1], digests[0] == digests[2]) == (True, False)
    assert "template_date" not in load(make(lambda _: None)).info.build
    # As transformers prints it on that day, whatever the format.
    form = "%A %a %B %b %d %-d %e %m %-m %Y %y %j %H:%M:%S %I%p 100%% %F %D"
    tokenizer = tokenizer_of("{{ strftime_now(" + repr(form) + ") }}\n" + CHAT_TEMPLATE)
    monkeypatch.setattr(chat_template_utils, "datetime", _Clock)
    theirs = tokenizer.apply_chat_template([SECOND], tokenize=False)
    dated = make(with_template(str(tokenizer.chat_template)))
    assert load(dated, template_date=date(2031, 1, 2)).tokenizer.apply_chat_template([SECOND], tokenize=False) == theirs


def test_the_token_behind_an_answer_ends_a_completion(
    make: Callable[[Callable[[PreTrainedTokenizerFast], None]], Path],
) -> None:
    def like_a_base_model(tokenizer: PreTrainedTokenizerFast) -> None:
        """Its own end of text is not what the template puts behind a turn."""
        tokenizer.eos_token = "<|pad|>"

    def headed(tokenizer: PreTrainedTokenizerFast) -> None:
        """The next turn's head ends the turn before it."""
        like_a_base_model(tokenizer)
        tokenizer.chat_template = (
            "{% for m in messages %}<|im_start|>{{ m['role'] + m['content'] }}{% endfor %}" + _ASKED
        )

    def channels(tokenizer: PreTrainedTokenizerFast) -> None:
        """A last answer ends with the end of text; between turns there is another token, that ends parts of turns."""
        tokenizer.chat_template = (
            "{% for m in messages %}{{ m['role'] + m['content'] }}{% if m['role'] == 'assistant' and loop.last %}"
            "<|im_end|>{% else %}<|pad|>{% endif %}{% endfor %}" + _ASKED
        )

    ids = make_tiny_tokenizer().convert_tokens_to_ids
    pad, start, end = ids("<|pad|>"), ids(START), ids(END)
    assert load(make(lambda _: None)).end_ids == {end}
    for change, more in ((like_a_base_model, {pad, end}), (headed, {pad, start}), (channels, {end})):
        folder = make(change)
        (folder / "generation_config.json").unlink()
        config = folder / "config.json"
        config.write_text(config.read_text().replace('"eos_token_id": 2', '"eos_token_id": null'))
        assert load(folder).end_ids == more, change.__name__


def test_what_a_tokenizer_adds_behind_a_text_is_not_read() -> None:
    def processing(single: str) -> PreTrainedTokenizerFast:
        tokenizer = make_tiny_tokenizer(chat=False)
        special = [(token, int(tokenizer.convert_tokens_to_ids(token))) for token in (START, END)]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=special)
        return tokenizer

    both, front = processing(f"{START} $A {END}"), processing(f"{START} $A")
    assert both("x").input_ids == [*front("x").input_ids, both.eos_token_id]
    prompt = Prompt(user="Which river?", format=PromptFormat.PLAIN)
    assert render_prompt(both, prompt) == front("Which river?").input_ids
    assert text_tokens(both, "a") == front("a").input_ids
    assert probe_tokens(both) == front(PROBE_TEXT).input_ids
    example = TrainingExample(text="The river is the Ossel.")
    assert encode(both, example, append_eos=True) == encode(front, example, append_eos=True)
    spanned = example.changed(loss_spans=((4, 9),))
    assert encode(both, spanned, append_eos=False) == encode(front, spanned, append_eos=False)


def test_a_tokenizer_that_loses_the_text_or_the_models_embedding_is_refused(
    make: Callable[[Callable[[PreTrainedTokenizerFast], None]], Path],
) -> None:
    def more_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
        tokenizer.add_tokens([f"<more{n}>" for n in range(160)])

    def used_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
        more_tokens(tokenizer)
        tokenizer.chat_template = CHAT_TEMPLATE.replace(END, "<more159>")

    def ends(tokenizer: PreTrainedTokenizerFast) -> None:
        more_tokens(tokenizer)
        tokenizer.eos_token = "<more159>"

    folder = make(more_tokens)
    loaded = load(folder)
    beyond = loaded.tokenizer("<more159>").input_ids
    more = beyond[0] + 1 - loaded.embedded
    assert loaded.embedded == 512
    for info in (loaded.info, describe_model(str(folder))[1]):
        assert info.build["unread_tokens"] == f"{more}, from '<more{160 - more}>' on"
    loaded.check_tokens("the prompt", loaded.tokenizer("the town").input_ids)
    with pytest.raises(InvalidInput, match=rf"the prompt contains '<more159>' \(token {beyond[0]}\)"):
        loaded.check_tokens("the prompt", beyond)
    for change in (used_tokens, ends):
        folder = make(change)
        for read in (load, lambda path: describe_model(str(path))):
            with pytest.raises(InvalidModel, match=r"'<more159>' as token \d+, but the model embeds only 512 tokens"):
                read(folder)


def test_how_a_template_behaves_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizer_of(NO_SYSTEM)
    first = template_of(tokenizer)
    assert template_of(tokenizer) is first
    tokenizer.chat_template = CHAT_TEMPLATE
    assert (first.system, template_of(tokenizer).system) == (False, True)
