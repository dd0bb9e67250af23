"""The model services: reachable, with the same base model, able to do what runs need."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from seal_cli.doctor.setup import MODEL_SERVICES, Line, Settings
from sealkit.config import RunConfig
from sealkit.errors import SealError
from sealkit.rpc.services import EvaluatorClient, GeneratorClient, TrainerClient
from sealkit.rpc.tls import Identity
from sealkit.types import ModelInfo

_CLIENTS = {"generator": GeneratorClient, "trainer": TrainerClient, "evaluator": EvaluatorClient}
_SECONDS = 8.0


async def check_services(settings: Settings, identity: Identity | None, config: RunConfig | None) -> list[Line]:
    """Checks everything that the services report."""
    asked = await asyncio.gather(
        *(_ask(name, address, identity) for name, address in settings.addresses.items()), return_exceptions=False
    )
    lines = [line for line, _ in asked]
    held = {name: info for name, (_, info) in zip(MODEL_SERVICES, asked, strict=True) if info is not None}
    if len(held) > 1:
        lines += [*_one_model(held)]
    if held:
        lines += [_context(held, config), *_facts(held)]
    if (info := held.get("generator")) and info.build.get("adapters") == "fixed":
        lines.append(
            Line(
                "adapters", False, "the generator takes none at run time",
                "runs that train the policy need backend vllm or transformers (SEAL_GENERATOR_BACKEND)",
            )
        )  # fmt: skip
    return lines


async def _ask(name: str, address: str, identity: Identity | None) -> tuple[Line, ModelInfo | None]:
    client = _CLIENTS[name](address, identity=identity)
    try:
        async with asyncio.timeout(_SECONDS):
            info = await client.info()
    except (SealError, TimeoutError) as error:
        fix = f"start it, or set SEAL_CONTROLLER_{name.upper()} to its address; its log says why it stopped"
        return Line(name, False, f"{address}: {str(error) or 'no answer'}", fix), None
    finally:
        await client.close()
    return Line(name, True, f"{address}: {info.name} in {info.dtype} on {info.device}"), info


def _one_model(held: Mapping[str, ModelInfo]) -> Iterable[Line]:
    for what, digests in (
        ("base model", {name: info.digest for name, info in held.items()}),
        ("tokenizer", {name: info.tokenizer_digest for name, info in held.items()}),
    ):
        same = len(set(digests.values())) == 1
        shown = ", ".join(f"{name} {digest[:12]}" for name, digest in digests.items())
        found = next(iter(digests.values()))[:12] if same else shown
        yield Line(what, same, found, "" if same else "give all SEAL_*_MODEL the same model, with the same files")
    dates = {name: date for name, info in held.items() if (date := info.build.get("template_date"))}
    if dates:
        same = len(set(dates.values())) == 1
        found = f"its template prints {next(iter(dates.values()))} as today's" if same else _by_service(dates)
        yield Line("template date", same, found, "" if same else "give all SEAL_*_TEMPLATE_DATE the same date")


def _facts(held: Mapping[str, ModelInfo]) -> Iterable[Line]:
    """What the services report about their models and caches; never a fault."""
    for fact, what, text in (
        ("unread_tokens", "tokens", "the tokenizer has more than the model reads ({}); texts with them are refused"),
        ("cache", "cache", "at most {}"),
    ):
        said = {name: info.build[fact] for name, info in held.items() if fact in info.build}
        if said:
            yield Line(what, True, text.format(_by_service(said)))


def _by_service(said: Mapping[str, str]) -> str:
    """One value for all, or each service with its own."""
    return (
        next(iter(said.values()))
        if len(set(said.values())) == 1
        else "; ".join(f"{name} {value}" for name, value in said.items())
    )


def _context(held: Mapping[str, ModelInfo], config: RunConfig | None) -> Line:
    shortest = min(held.values(), key=lambda info: info.context_length)
    reads, limit = shortest.context_length, shortest.build.get("context")
    found = f"{reads} tokens" + (f" ({limit})" if limit else "")
    if window := shortest.build.get("window"):
        found += f", window of {window}"
    if config is None:
        return Line("context length", True, found)
    writes = max(config.editor.sampling.max_tokens, config.evaluation.sampling.max_tokens)
    found += f"; the config samples up to {writes}"
    return Line(
        "context length", writes < reads, found,
        "" if writes < reads else "lower max_tokens, or serve the model with a longer context (--max-model-len)",
    )  # fmt: skip
