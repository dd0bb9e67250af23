"""HTTP endpoints: serving engines, outside editors, the judge. Keys are used but never printed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from seal_cli.doctor.setup import Line, Settings
from sealkit.editors import read_entries
from sealkit.endpoint import Endpoint, EndpointOptions
from sealkit.errors import EndpointDenied, EndpointRefused, SealError

_PROBE = "Tokens agree where “quotes”, 1,234.5 and naïve words agree.\n"
_QUICK: dict[str, Any] = {"answer_seconds": 10, "deadline_seconds": 20, "retries": 1, "connect_seconds": 3}


async def check_endpoints(settings: Settings) -> list[Line]:
    """Checks every endpoint that the settings name."""
    lines = [line for service in ("generator", "evaluator") for line in await _backend(settings, service)]
    try:
        entries = read_entries(settings.get("GENERATOR_EDITORS_FILE"))
    except SealError as error:
        lines.append(Line("editors", False, error.message, "fix the file in SEAL_GENERATOR_EDITORS_FILE"))
        entries = ()
    for entry in entries:
        options = entry.model_copy(update=_QUICK)
        lines.append(await _model(f"editor {entry.name}", options, entry.model))
    offered = {name.strip() for name in settings.get("CONTROLLER_EDITORS").split(",") if name.strip()}
    if unknown := offered - {entry.name for entry in entries}:
        fix = "list them in the generator's editors file, or take them out of SEAL_CONTROLLER_EDITORS"
        lines.append(Line("editors", False, f"{', '.join(sorted(unknown))}: offered and not listed", fix))
    if settings.get("EVALUATOR_JUDGE_URL"):
        lines.append(await _judge(settings))
    return lines


async def _judge(settings: Settings) -> Line:
    names = ("url", "api_key_env", "api_key_file")
    try:
        options = EndpointOptions(**{name: settings.get(f"EVALUATOR_JUDGE_{name.upper()}") for name in names}, **_QUICK)
    except ValidationError as error:
        return Line("judge", False, error.errors()[0]["msg"], "fix SEAL_EVALUATOR_JUDGE_URL")
    return await _model("judge", options, settings.get("EVALUATOR_JUDGE_MODEL"))


async def _backend(settings: Settings, service: str) -> list[Line]:
    prefix = service.upper()
    backend = settings.get(f"{prefix}_BACKEND") or "transformers"
    what = f"{service}'s {backend}"
    lines = []
    if service == "evaluator" and backend in ("openai", "tgi"):
        fix = "set SEAL_EVALUATOR_BACKEND to vllm or transformers"
        lines.append(Line(what, False, "it loads no adapter at run time, and every trial needs one", fix))
    if backend == "transformers":
        return lines
    names = {name: settings.get(f"{prefix}_ENDPOINT_{name.upper()}") for name in ("url", "api_key_env", "api_key_file")}
    try:
        options = EndpointOptions(**names, **_QUICK)
    except ValidationError as error:
        return [*lines, Line(what, False, error.errors()[0]["msg"], f"fix SEAL_{prefix}_ENDPOINT_URL")]
    if backend == "tgi":
        return [*lines, await _asked(what, options, lambda endpoint: _tgi(endpoint))]
    model = settings.get(f"{prefix}_ENDPOINT_MODEL")
    lines.append(await _model(what, options, model))
    if lines[-1].good:
        folder = Path(settings.get(f"{prefix}_MODEL"))
        lines.append(await _asked(f"{what} tokenizer", options, lambda endpoint: _tokens(endpoint, model, folder)))
        if backend == "vllm":
            lines.append(await _asked(f"{what} adapters", options, _run_time_lora))
    return lines


async def _model(what: str, options: EndpointOptions, model: str) -> Line:
    async def ask(endpoint: Endpoint) -> tuple[bool, str, str]:
        served = [str(one.get("id")) for one in (await endpoint.json("GET", "/models")).get("data") or []]
        if model in served:
            return True, f"serves {model}", ""
        return (
            False,
            f"does not serve {model!r}; it serves {', '.join(served[:8]) or 'nothing'}",
            "fix the model's name",
        )

    return await _asked(what, options, ask)


async def _tgi(endpoint: Endpoint) -> tuple[bool, str, str]:
    said = await endpoint.json("GET", "/info")
    return True, f"TGI {said.get('version', '')} serves {said.get('model_id')}", ""


async def _tokens(endpoint: Endpoint, model: str, folder: Path) -> tuple[bool, str, str]:
    file = folder / "tokenizer.json"
    if not file.is_file():
        return True, f"not checked here: {file} is not on this machine; the service checks it at its start", ""
    from tokenizers import Tokenizer

    ours = Tokenizer.from_file(str(file)).encode(_PROBE).ids
    body = {"model": model, "prompt": _PROBE, "max_tokens": 1, "return_token_ids": True}
    reply = await endpoint.json("POST", "/completions", body)
    theirs = (reply.get("choices") or [{}])[0].get("prompt_token_ids")
    count = (reply.get("usage") or {}).get("prompt_tokens")
    if theirs == ours or (theirs is None and count in (None, len(ours))):
        return True, "tokenizes text like the trainer", ""
    return (
        False,
        "tokenizes text differently from the trainer's base model",
        "serve the model that SEAL_TRAINER_MODEL names",
    )


async def _run_time_lora(endpoint: Endpoint) -> tuple[bool, str, str]:
    try:
        await endpoint.text("POST", "/load_lora_adapter", {"lora_name": "seal-doctor", "lora_path": "/seal-doctor"})
    except EndpointRefused as error:
        if "detail" not in error.message:  # vLLM's own error, that the adapter does not exist: run-time loading is on
            return True, "takes adapters at run time", ""
    fix = "start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
    return False, "takes no adapters at run time", fix


async def _asked(
    what: str, options: EndpointOptions, ask: Callable[[Endpoint], Awaitable[tuple[bool, str, str]]]
) -> Line:
    try:
        endpoint = Endpoint(options)
    except SealError as error:
        return Line(what, False, error.message, "set the variable or file that the key is in")
    try:
        good, found, fix = await ask(endpoint)
        return Line(what, good, f"{endpoint.url} {found}", fix)
    except EndpointDenied as error:
        return Line(what, False, error.message, "give it a valid key")
    except SealError as error:
        return Line(what, False, error.message, "start it, or fix its URL")
    finally:
        await endpoint.close()
