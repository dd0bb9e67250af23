"""Which tokens a training example has, and which carry loss."""

from __future__ import annotations

import pytest

from sealkit.backends.template import render_prompt
from sealkit.errors import ExampleTooLong, InvalidInput, NothingToLearn
from sealkit.testing.tiny import make_tiny_tokenizer
from sealkit.types import (
    LoraConfig,
    Optimisation,
    Prompt,
    PromptFormat,
    PromptLoss,
    Shot,
    TrainingExample,
    TrainingSpec,
)
from trainer_svc.encoding import encode, encode_spec


@pytest.fixture(scope="module")
def tokenizer():
    return make_tiny_tokenizer()


def labelled(tokenizer, encoded) -> str:
    return tokenizer.decode([encoded.ids[position] for position in encoded.labels])


def spec(*examples: TrainingExample, **options) -> TrainingSpec:
    return TrainingSpec(examples=examples, lora=LoraConfig(), optimisation=Optimisation(), **options)


def test_a_bare_text_carries_loss_from_its_second_token_to_its_end(tokenizer):
    encoded = encode(tokenizer, TrainingExample(text="The river Ossel is wide."), append_eos=True)
    assert tokenizer.decode(encoded.ids) == "The river Ossel is wide.<|im_end|>"
    assert encoded.labels == tuple(range(1, len(encoded.ids)))


def test_a_prompt_is_rendered_as_in_sampling_and_carries_no_loss(tokenizer):
    prompt = Prompt(user="Which river?", system="Be brief.")
    encoded = encode(tokenizer, TrainingExample(text="The Ossel.", prompt=prompt), append_eos=True)
    rendered = render_prompt(tokenizer, prompt)
    assert list(encoded.ids[: len(rendered)]) == rendered
    assert labelled(tokenizer, encoded) == "The Ossel.<|im_end|>"


def test_a_text_is_learned_behind_the_reasoning_that_a_prompt_opens_by_student_and_teacher():
    thinking = make_tiny_tokenizer()
    thinking.chat_template = thinking.chat_template.replace("assistant\n", "assistant\n<think>\n") + "{# </think> #}"
    shown = Prompt(user="The Ossel flows by. Which river?")
    example = TrainingExample(text="The Ossel.", prompt=Prompt(user="Which river?"), teacher_prompt=shown)
    encoded = encode(thinking, example, append_eos=True)
    assert encoded.teacher is not None
    for sequence, prompt in ((encoded, example.prompt), (encoded.teacher, shown)):
        asked = thinking.decode(render_prompt(thinking, prompt))
        assert thinking.decode(sequence.ids) == f"{asked}\n</think>\n\nThe Ossel.<|im_end|>"
        assert labelled(thinking, sequence) == "The Ossel.<|im_end|>"


def test_without_eos_the_text_is_the_end(tokenizer):
    prompt = Prompt(user="Which river?")
    encoded = encode(tokenizer, TrainingExample(text="The Ossel.", prompt=prompt), append_eos=False)
    assert labelled(tokenizer, encoded) == "The Ossel."


def test_spans_choose_characters_and_whole_tokens_that_overlap_them(tokenizer):
    text = "What is it? zq The answer is wide. zq"
    start = text.index("The answer")
    example = TrainingExample(text=text, loss_spans=((start, start + len("The answer")), (len(text) - 1, len(text))))
    encoded = encode(tokenizer, example, append_eos=False)
    carried = labelled(tokenizer, encoded)
    assert carried.replace(" ", "").startswith("Theanswer")
    assert carried.endswith("q")
    assert "What" not in carried
    assert "wide" not in carried
    assert encode(tokenizer, example, append_eos=True).labels[-1] == len(encoded.ids), "eos is a label all the same"


def shown(*, loss: PromptLoss, form: PromptFormat = PromptFormat.AUTO) -> TrainingExample:
    shots = (Shot(user="7 7", assistant="7"), Shot(user="7", assistant="7 7"))
    prompt = Prompt(user="8 8", system="Say 7 or 7 7.", shots=shots, format=form)
    return TrainingExample(text="8", prompt=prompt, prompt_loss=loss)


@pytest.mark.parametrize("form", [PromptFormat.PLAIN, PromptFormat.CHAT])
def test_the_answers_of_shots_may_carry_loss_and_not_what_looks_like_them(tokenizer, form):
    encoded = encode(tokenizer, shown(loss=PromptLoss.SHOTS, form=form), append_eos=True)
    plain = encode(tokenizer, shown(loss=PromptLoss.NONE, form=form), append_eos=True)
    assert encoded.ids == plain.ids
    assert labelled(tokenizer, encoded).replace(" ", "") == "7778<|im_end|>"
    before = tokenizer.decode(encoded.ids[: encoded.labels[0]])
    assert "7 7" in before.split("Say 7 or 7 7.")[1], "the first shot's question comes before the first label"


def test_the_whole_prompt_may_carry_loss(tokenizer):
    encoded = encode(tokenizer, shown(loss=PromptLoss.ALL), append_eos=True)
    assert encoded.labels == tuple(range(1, len(encoded.ids)))


def test_rehearsal_joins_the_examples(tokenizer):
    one, two = TrainingExample(text="The first text."), TrainingExample(text="The second text.")
    both = encode_spec(tokenizer, spec(one, rehearsal=(two,)), 512)
    assert both == tuple(encode(tokenizer, example, append_eos=True) for example in (one, two))


def test_too_long_an_example_is_named(tokenizer):
    with pytest.raises(ExampleTooLong, match="example 1 has") as failure:
        encode_spec(tokenizer, spec(TrainingExample(text="short"), TrainingExample(text="word " * 50)), 20)
    assert failure.value.metadata["limit"] == "20"


def test_a_single_token_teaches_nothing(tokenizer):
    with pytest.raises(NothingToLearn):
        encode_spec(tokenizer, spec(TrainingExample(text="a"), append_eos=False), 512)


@pytest.mark.parametrize("asked", [None, Prompt(user="Who built it?")], ids=["a bare text", "behind a prompt"])
@pytest.mark.parametrize("spans", [(), ((4, 9),)], ids=["all of it", "a span"])
def test_a_teacher_reads_the_same_label_tokens_behind_its_own_prompt(tokenizer, asked, spans):
    shown = Prompt(user="Nora Birk built the clock.\n\nWho built it?")
    example = TrainingExample(text="The Ossel is wide.", prompt=asked, teacher_prompt=shown, loss_spans=spans)
    encoded = encode(tokenizer, example, append_eos=True)
    rendered = render_prompt(tokenizer, shown)
    assert list(encoded.teacher.ids[: len(rendered)]) == rendered
    assert labelled(tokenizer, encoded.teacher) == labelled(tokenizer, encoded)
    assert len(encoded.teacher.labels) == len(encoded.labels) > 0
    assert tokenizer.decode(encoded.teacher.ids[len(rendered) :]) == "The Ossel is wide.<|im_end|>"


def test_a_distilled_prompt_cannot_carry_loss(tokenizer):
    asked = Prompt(user="Which river?")
    example = TrainingExample(text="The Ossel.", prompt=asked, teacher_prompt=asked, prompt_loss=PromptLoss.ALL)
    with pytest.raises(InvalidInput, match="prompt_loss"):
        encode(tokenizer, example, append_eos=True)


def test_a_teacher_prompt_has_to_fit_the_context(tokenizer):
    long = TrainingExample(text="The Ossel.", prompt=Prompt(user="Q?"), teacher_prompt=Prompt(user="word " * 200))
    with pytest.raises(ExampleTooLong):
        encode_spec(tokenizer, spec(long), context_length=64)
