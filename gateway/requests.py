"""Request bodies of OpenAI's API, converted to prompts and sampling settings.

https://platform.openai.com/docs/api-reference/chat/create and …/completions/create. What is not supported is refused,
unless it does not change the answer.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from gateway.errors import ApiError, model_not_found
from sealkit import limits
from sealkit.names import BASE_MODEL, alias_name
from sealkit.types import Prompt, PromptFormat, Sampling, Shot

_ALIAS = re.compile(r"(?:aliases/)?([a-z0-9][a-z0-9-]{0,62})")
_COMPLETION_TOKENS = 16
"""Tokens of a completion whose request names no number, as in OpenAI's API."""
_MOST_PROMPTS = 32


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _joined(content: object) -> object:
    """A message's content: text, or a list of parts of text."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    known = [text for text in texts if isinstance(text, str)]
    if len(known) < len(content):
        raise ValueError("only parts of type text are supported")
    return "".join(known)


def _empty(value: Any) -> Any:
    if value not in (None, False, 0, "", [], {}):
        raise ValueError("is not supported here; leave it out")
    return value


def _one_choice(value: Any) -> Any:
    if value not in (None, 1) or value is True:
        raise ValueError("only 1 is supported; send a request for each choice")
    return value


Text = Annotated[str, Field(min_length=1, max_length=limits.TEXT_CHARACTERS)]
Unsupported = Annotated[Any, AfterValidator(_empty)]
"""A field that is not supported: only values that mean the same as leaving it out are accepted."""
OnlyOne = Annotated[Any, AfterValidator(_one_choice)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Message(_Part):
    """A turn of a conversation. Unknown keys are ignored: clients send earlier answers back whole."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Text, BeforeValidator(_joined)]
    tool_calls: Unsupported = None
    function_call: Unsupported = None


class StreamOptions(_Part):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    """Ignored: there is none."""


class JsonSchema(_Part):
    model_config = ConfigDict(protected_namespaces=())

    name: str = ""
    description: str | None = None
    strict: bool | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")


class ResponseFormat(_Part):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @property
    def text(self) -> str:
        """The JSON Schema as text; empty for free text."""
        if self.type == "text":
            return ""
        schema = self.json_schema.schema_ if self.type == "json_schema" and self.json_schema else {"type": "object"}
        return json.dumps(schema)


class _Request(_Part):
    """What both kinds of request have."""

    model: str = Field(min_length=1, max_length=256)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=limits.STOP_CHARACTERS)], ...] | None,
        Field(max_length=limits.STOPS, strict=False),
        BeforeValidator(_listed),
    ] = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: OnlyOne = None
    logit_bias: Unsupported = None
    logprobs: Unsupported = None
    presence_penalty: Unsupported = None
    frequency_penalty: Unsupported = None
    # These do not change an answer.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def alias(self) -> str:
        """The alias that the request's model names; empty for the base model. Raises ApiError."""
        return alias_of(self.model)

    @property
    def shows_usage(self) -> bool:
        """Whether the stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def _sampling(self, most: int, default: int, *, asked: int | None, field: str, json_schema: str = "") -> Sampling:
        if asked is not None and asked > most:
            raise ApiError(400, f"{field}: at most {most} here, not {asked}", param=field, code="invalid_value")
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            max_tokens=asked or min(default, most),
            stop=self.stop or (),
            seed=secrets.randbits(63) if self.seed is None else self.seed % 2**64,
            json_schema=json_schema,
        )


class ChatRequest(_Request):
    """`POST /v1/chat/completions`."""

    messages: tuple[Message, ...] = Field(min_length=1, max_length=4 * limits.SHOTS)
    max_completion_tokens: int | None = Field(None, ge=1)
    response_format: ResponseFormat | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments for the model's chat template, such as `enable_thinking`; an extension that other servers have too."""
    tools: Unsupported = None
    functions: Unsupported = None
    tool_choice: Literal["none", "auto"] | None = None
    function_call: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: Unsupported = None
    modalities: tuple[Literal["text"], ...] | None = Field(None, strict=False)

    def sampling(self, most: int) -> Sampling:
        """How the answer is sampled, with at most `most` tokens. Raises ApiError if more are asked for."""
        named = "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"
        schema = self.response_format.text if self.response_format else ""
        asked = self.max_completion_tokens or self.max_tokens
        return self._sampling(most, most, asked=asked, field=named, json_schema=schema)

    @property
    def prompts(self) -> list[Prompt]:
        """The conversation as one prompt: its earlier turns are shots. Raises ApiError on a wrong order."""
        system = [message.content for message in self.messages if message.role in ("system", "developer")]
        turns: list[tuple[str, str]] = []
        for place, message in enumerate(self.messages):
            if message.role in ("system", "developer"):
                if turns:
                    raise _no_conversation(place, "a system message comes before all others")
            elif turns and turns[-1][0] == message.role:
                turns[-1] = (message.role, f"{turns[-1][1]}\n\n{message.content}")
            else:
                turns.append((message.role, message.content))
        last = len(self.messages) - 1
        if not turns or turns[-1][0] != "user":
            raise _no_conversation(last, "the last message is the user's, so that there is something to answer")
        if turns[0][0] != "user":
            raise _no_conversation(len(system), "the first message after the system's is the user's")
        texts = [text for _, text in turns]
        shots = [Shot(user=user, assistant=said) for user, said in zip(texts[:-1:2], texts[1::2], strict=True)]
        if len(shots) > limits.SHOTS:
            raise _no_conversation(0, f"at most {limits.SHOTS} earlier turns; leave out the oldest")
        return [
            Prompt(
                user=texts[-1],
                system="\n\n".join(system),
                shots=tuple(shots),
                chat_template_kwargs=self.chat_template_kwargs,
            )
        ]


class CompletionRequest(_Request):
    """`POST /v1/completions`: plain text goes on. Several prompts are answered at once."""

    prompt: Annotated[
        tuple[Text, ...], Field(min_length=1, max_length=_MOST_PROMPTS, strict=False), BeforeValidator(_listed)
    ]
    best_of: OnlyOne = None
    echo: Unsupported = None
    suffix: Unsupported = None

    def sampling(self, most: int) -> Sampling:
        """How the answer is sampled, with at most `most` tokens. Raises ApiError if more are asked for."""
        return self._sampling(most, _COMPLETION_TOKENS, asked=self.max_tokens, field="max_tokens")

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts."""
        return [Prompt(user=text, format=PromptFormat.PLAIN) for text in self.prompt]


def alias_of(model: str) -> str:
    """`aliases/{id}` of a model id; empty for the base model. Raises ApiError if no alias can have this name."""
    if model == BASE_MODEL:
        return ""
    if (found := _ALIAS.fullmatch(model)) is None:
        raise model_not_found(model)
    return alias_name(found[1])


def _no_conversation(place: int, message: str) -> ApiError:
    return ApiError(400, f"messages[{place}]: {message}", param=f"messages[{place}]", code="invalid_value")
