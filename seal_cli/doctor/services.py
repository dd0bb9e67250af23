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
    if config and held:
        lines.append(_context(held, config))
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
        yield Line(what, same, found, "" if same else "give all SEAL_*_MODEL the same model")


def _context(held: Mapping[str, ModelInfo], config: RunConfig) -> Line:
    reads = min(info.context_length for info in held.values())
    writes = max(config.editor.sampling.max_tokens, config.evaluation.sampling.max_tokens)
    found = f"{reads} tokens; the config samples up to {writes}"
    return Line(
        "context length", writes < reads, found,
        "" if writes < reads else "lower max_tokens, or serve the model with a longer context (--max-model-len)",
    )  # fmt: skip
