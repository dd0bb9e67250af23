"""What `seal alias export` writes answers in PEFT and in Transformers, without this project, as the alias does."""

from __future__ import annotations

from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from sealkit.client import SealClient
from sealkit.types import Sampling
from tests.integration.stack.support import RunningStack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

QUESTIONS = ("How is the lake?", "What is the title of the passage?", "Who keeps the lighthouse?")
TOKENS = 48


def answers(model: object, folder: Path) -> list[tuple[str, int]]:
    """Greedy answers and their numbers of tokens, the last one included that ends an answer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    given = []
    for question in QUESTIONS:
        turns = [{"role": "user", "content": question}]
        row = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        out = model.generate(**row, max_new_tokens=TOKENS, do_sample=False)[0, row["input_ids"].shape[1] :]  # type: ignore[attr-defined]
        given.append((tokenizer.decode(out, skip_special_tokens=True), len(out)))
    return given


def test_an_exported_alias_answers_as_the_alias_token_by_token(
    stack: RunningStack, adapted: str, tiny_model: Path, tmp_path: Path
) -> None:
    for folder, words in (("adapter", ()), ("whole", ("--merged",))):
        exported = stack.seal("alias", "export", adapted, folder, *words)
        assert exported.returncode == 0, exported.stderr
    greedy = Sampling(temperature=0, max_tokens=TOKENS)
    with SealClient(stack.address) as client:
        served = {
            alias: [client.answer(alias, question, greedy) for question in QUESTIONS]
            for alias in ("", f"aliases/{adapted}")
        }
    base, alias = ([(answer.text, answer.end.usage.completion_tokens) for answer in given] for given in served.values())
    assert all(one != other for one, other in zip(base, alias, strict=True)), "the adapter changes every answer"

    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert answers(plain, tiny_model) == base
    assert answers(PeftModel.from_pretrained(plain, str(tmp_path / "adapter")), tiny_model) == alias
    assert answers(AutoModelForCausalLM.from_pretrained(tmp_path / "whole"), tmp_path / "whole") == alias
