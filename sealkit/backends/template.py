"""Prompts as tokens: the chat template of a tokenizer, how it takes a conversation, and what ends a turn.

How a template behaves is not declared anywhere, so it is tried: a probe conversation is rendered, tokenized and decoded
again, once for each template.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from itertools import product
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import structlog
from jinja2 import TemplateError
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from sealkit.backends.checkpoint import json_of
from sealkit.backends.reasoning import answer_prompt, checked_kwargs, markers_of
from sealkit.errors import InvalidInput, InvalidModel
from sealkit.types import Prompt, PromptFormat, Shot

_log = structlog.get_logger(__name__)

DEFAULT_DATE = date(2024, 7, 26)
"""What the templates of Llama 3 take for today where there is no clock."""
_DIRECTIVES = "aAbBcCdDeFgGhHIjklmMnprRStTuUVwWxXyY"
_UNPADDED = "dHIjmMSy"
_TEMPLATE_FAULTS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What a template raises on messages that it is not made for."""
PROBE = Prompt(
    system="Ida keeps the lighthouse",
    shots=(Shot(user="Who keeps the lighthouse", assistant="The keeper is Ida"),),
    user="Since when does Ida keep it",
)
_ANSWER = "Since the year 1847"


@dataclass(frozen=True)
class Template:
    """How a chat template takes a conversation.

    `parts`: contents are lists of parts, because it leaves plain ones out; `system`: it takes a system turn, which else
    goes into the first user turn; `shots`: it takes earlier turns; `opening`: what comes before an answer, if the
    template does not write it as its generation prompt; `behind`: the special tokens behind a last answer; `between`:
    those between an answer and the next request.
    """

    parts: bool
    system: bool
    shots: bool
    opening: str = ""
    behind: tuple[int, ...] = ()
    between: tuple[int, ...] = ()

    def messages(self, prompt: Prompt) -> list[dict[str, Any]]:
        """The turns of `prompt`. Raises InvalidInput if it has shots, and the template takes none."""
        if prompt.shots and not self.shots:
            raise InvalidInput("the model's chat template takes one request alone; use format plain for shots")
        turns = [turn for shot in prompt.shots for turn in (("user", shot.user), ("assistant", shot.assistant))]
        turns.append(("user", prompt.user))
        if prompt.system and self.system:
            turns.insert(0, ("system", prompt.system))
        elif prompt.system:
            turns[0] = ("user", f"{prompt.system}\n\n{turns[0][1]}")
        return [self.message(role, text) for role, text in turns]

    def message(self, role: str, text: str) -> dict[str, Any]:
        """One turn."""
        return {"role": role, "content": [{"type": "text", "text": text}] if self.parts else text}


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, *, answering: bool = False) -> list[int]:
    """Token ids of `prompt`, up to where the completion begins; the same in training and in sampling. `answering` and
    errors: as in `rendered_text`."""
    text, special = rendered_text(tokenizer, prompt, answering=answering)
    return list(encode_text(tokenizer, text, special=special)["input_ids"])


def rendered_text(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, *, answering: bool = False) -> tuple[str, bool]:
    """`prompt` as text, and whether the tokenizer must add its special tokens to it.

    CHAT: the tokenizer's chat template with its generation prompt, each shot as two turns; PLAIN: system text, shots
    (request, then answer) and user text, separated by blank lines, with the tokenizer's special tokens in front. AUTO
    is CHAT if there is a template. With `answering`, a thinking model's chat prompt ends behind an empty reasoning: for
    texts that are trained on or constrained by a grammar. Raises InvalidInput if the template is missing, rejects the
    messages, or does not have one of the prompt's arguments; InvalidModel if it takes no conversation at all.
    """
    if prompt.format is PromptFormat.CHAT and not tokenizer.chat_template:
        raise InvalidInput("the prompt needs a chat template, but this model's tokenizer has none; use format plain")
    if prompt.format is PromptFormat.PLAIN or not tokenizer.chat_template:
        shots = [f"{shot.user}{shot.assistant}" for shot in prompt.shots]
        text = "\n\n".join([*([prompt.system] if prompt.system else []), *shots, prompt.user])
        return text, True
    template = template_of(tokenizer)
    messages, kwargs = template.messages(prompt), checked_kwargs(tokenizer, prompt.chat_template_kwargs)
    try:
        text = _rendered(tokenizer, messages, generate=True, **kwargs) + template.opening
        if answering and (markers := markers_of(tokenizer)):
            answered = _rendered(
                tokenizer, [*messages, template.message("assistant", _ANSWER)], generate=False, **kwargs
            )
            text = answer_prompt(markers, text, answered.rpartition(_ANSWER)[0])
    except _TEMPLATE_FAULTS as fault:
        raise InvalidInput(f"the model's chat template rejects the prompt: {fault}") from fault
    return text, False


def encode_text(
    tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool, **options: Any
) -> dict[str, list[Any]]:
    """The tokenizer's lists for `text`, one item a token. `special`: with the special tokens that it puts in front of a
    text; those that it would put behind (an end of text, before which nothing has been said) are left out."""
    encoded = tokenizer(text, add_special_tokens=special, **options)
    behind = _behind(tokenizer) if special else 0
    return {name: list(values)[: len(values) - behind] for name, values in encoded.items()}


def text_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a plain text, with the special tokens in front of it."""
    return list(encode_text(tokenizer, text, special=True)["input_ids"])


def template_of(tokenizer: PreTrainedTokenizerBase) -> Template:
    """How the tokenizer's chat template takes a conversation. Raises InvalidModel if it takes none, or the tokenizer
    does not read what it writes."""
    known = _inspected.get(tokenizer)
    if known is None or known[0] != tokenizer.chat_template:
        known = _inspected[tokenizer] = (tokenizer.chat_template, _inspect(tokenizer))
    return known[1]


def pin_date(tokenizer: PreTrainedTokenizerBase, today: date) -> bool:
    """Makes a chat template that prints today's date print `today`, whenever it is rendered. Returns whether it prints
    one."""
    templates = tokenizer.chat_template
    named = templates if isinstance(templates, dict) else {"default": templates}
    if not any("strftime_now" in str(template) for template in named.values()):
        return False
    pinned = {name: _clock_at(today) + template for name, template in named.items()}
    tokenizer.chat_template = pinned if isinstance(templates, dict) else pinned["default"]
    return True


def end_tokens(path: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end a completion: the tokenizer's, those of the generation config, and that which the chat
    template puts behind an answer, if it is none of these. Raises InvalidModel."""
    if tokenizer.eos_token_id is None:
        raise InvalidModel(f"the tokenizer of {path} has no end-of-sequence token; set eos_token in its config")
    ends = {int(tokenizer.eos_token_id), *_configured_ends(path, config)}
    if not tokenizer.chat_template:
        return frozenset(ends)
    template = template_of(tokenizer)
    for found in (template.behind, template.between):
        if ends.intersection(found):
            break
        if found:
            ends.add(found[0])
            break
    else:
        _log.warning("turns_end_without_a_token", model=str(path))
    return frozenset(ends)


_inspected: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[Any, Template]] = WeakKeyDictionary()
_appended: WeakKeyDictionary[PreTrainedTokenizerBase, int] = WeakKeyDictionary()


def _behind(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens the tokenizer adds behind a text."""
    if tokenizer not in _appended:
        whole, bare = (list(tokenizer(PROBE.user, add_special_tokens=special).input_ids) for special in (True, False))
        starts = (at for at in range(len(whole) - len(bare) + 1) if whole[at : at + len(bare)] == bare)
        _appended[tokenizer] = next((len(whole) - len(bare) - at for at in starts), 0)
    return _appended[tokenizer]


def _rendered(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], *, generate: bool, **kwargs: Any
) -> str:
    chat: Any = list(messages)
    return str(tokenizer.apply_chat_template(chat, add_generation_prompt=generate, tokenize=False, **kwargs))


def _inspect(tokenizer: PreTrainedTokenizerBase) -> Template:
    reason = ""
    for shots, system, parts in product((True, False), (True, False), (False, True)):
        template = Template(parts=parts, system=system, shots=shots)
        prompt = PROBE if shots else PROBE.changed(shots=())
        try:
            text = _rendered(tokenizer, template.messages(prompt), generate=True)
            answered = _rendered(
                tokenizer, [*template.messages(prompt), template.message("assistant", _ANSWER)], generate=False
            )
        except _TEMPLATE_FAULTS as fault:
            reason = reason or f"it raises {fault}"
            continue
        if left_out := [piece for piece in _texts(prompt) if piece not in text]:
            reason = reason or f"it leaves out {left_out[0]!r}"
            continue
        if _ANSWER not in answered:
            reason = reason or "it leaves out the answer"
            continue
        _check_round_trip(tokenizer, text, prompt.user)
        before, _, behind = answered.rpartition(_ANSWER)
        between = text.partition(prompt.shots[0].assistant)[2].partition(prompt.user)[0] if shots else ""
        return Template(
            parts=parts,
            system=system,
            shots=shots,
            opening=_opening(tokenizer, template.messages(prompt), text, before),
            behind=tuple(_special(tokenizer, behind)),
            between=tuple(_special(tokenizer, between)),
        )
    raise InvalidModel(
        f"the model's chat template takes no conversation: {reason}; correct it, or remove it to use plain prompts"
    )


def _texts(prompt: Prompt) -> Iterator[str]:
    yield prompt.system
    for shot in prompt.shots:
        yield from (shot.user, shot.assistant)
    yield prompt.user


def _opening(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], text: str, before: str) -> str:
    """What precedes an answer in `before` and is missing in `text`, if the template has no generation prompt."""
    if _rendered(tokenizer, messages, generate=False) != text or not before.startswith(text):
        return ""
    opening = before[len(text) :]
    return opening if opening.strip() else ""


def _check_round_trip(tokenizer: PreTrainedTokenizerBase, text: str, part: str) -> None:
    """Raises InvalidModel if a rendered text's tokens lack `part` of it, or end with an end token that it has not."""
    ids = list(tokenizer(text, add_special_tokens=False).input_ids)
    again = "".join(str(tokenizer.decode(ids)).split()).casefold()
    if "".join(part.split()).casefold() not in again:
        raise InvalidModel(f"the model's tokenizer does not read what its chat template writes: {part!r} is lost in it")
    if ids[-1] == tokenizer.eos_token_id and not text.rstrip().endswith(str(tokenizer.eos_token)):
        raise InvalidModel(
            "the model's tokenizer adds an end token behind every text, also where none was asked for; set "
            "add_eos_token to false in its config"
        )


def _special(tokenizer: PreTrainedTokenizerBase, text: str) -> Iterator[int]:
    """The special tokens in a piece of a rendered text, in order."""
    special = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}
    return (int(token) for token in tokenizer(text, add_special_tokens=False).input_ids if token in special)


def _configured_ends(path: Path, config: PreTrainedConfig) -> Iterable[int]:
    """End tokens of the generation config as transformers finds it: its file, else the model's config."""
    file = path / "generation_config.json"
    if path.is_dir() and file.is_file():
        ends = json_of(file).get("eos_token_id")
    else:
        ends = GenerationConfig.from_model_config(config).eos_token_id
    ids = ends if isinstance(ends, list) else [ends]
    if strange := [i for i in ids if i is not None and (not isinstance(i, int) or isinstance(i, bool))]:
        raise InvalidModel(f"{file}: eos_token_id is {strange[0]!r}; give a token's number, or a list of them")
    return [i for i in ids if i is not None]


def _clock_at(today: date) -> str:
    """A template's own `strftime_now`, which hides the one that reads the clock."""
    at = datetime.combine(today, time())
    formats = [f"%-{letter}" for letter in _UNPADDED] + [f"%{letter}" for letter in _DIRECTIVES]
    steps = [("%%", "\\x00"), *((form, _quoted(at.strftime(form))) for form in formats), ("\\x00", "%")]
    chain = "".join(f"|replace('{form}', '{value}')" for form, value in steps)
    return "{%- macro strftime_now(format) %}{{ format" + chain + " }}{% endmacro %}\n"


def _quoted(text: str) -> str:
    return re.sub(r"(['\\])", r"\\\1", text).replace("\n", "\\n").replace("\t", "\\t")
