"""`seal policies`: list, show, get."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from seal_cli.options import DEFAULT_DATA, Address, Data, Limit, connect
from sealkit.names import full_name

app = typer.Typer(help="Show policies: the versions of the model that writes self-edits.", no_args_is_help=True)


@app.command("list")
def list_policies(limit: Limit = 20, address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """Policies, newest first."""
    from seal_cli.console import moment, share
    from seal_cli.tables import print_listing

    with connect(address, data) as client:
        rows = [
            (
                policy.name,
                policy.parent,
                "" if policy.round is None else str(policy.round),
                str(len(policy.trials)),
                share(policy.held_out_accuracy),
                share(policy.forgetting),
                policy.gate.value,
                moment(policy.create_time),
            )
            for policy in islice(client.list_policies(), limit)
        ]
    print_listing(("policy", "from", "round", "trials", "held-out accuracy", "forgetting", "gate", "created"), rows)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="policies/…")], address: Address = "", data: Data = DEFAULT_DATA
) -> None:
    """One policy in words: its parent, the trials that trained it, what it forgot, the gate's decision."""
    from seal_cli.console import moment, out, share

    with connect(address, data) as client:
        policy = client.get_policy(full_name("policies", name))
    kl = f"{policy.divergence.on_fixed_text:.4f} nats per token" if policy.divergence else ""
    facts = {
        "policy": policy.name,
        "from": policy.parent or "the base model",
        "round": "" if policy.round is None else f"{policy.round} of {policy.run}",
        "adapter": policy.adapter.digest if policy.adapter else "none",
        "trained on": ", ".join(policy.trials),
        "gate": f"{policy.gate.value}: {policy.gate_reason}".removesuffix(": "),
        "KL to the base": kl,
        "held-out accuracy": share(policy.held_out_accuracy),
        "accuracy": ", ".join(f"{context} {score:.2f}" for context, score in policy.scores.items()),
        "created": moment(policy.create_time),
    }
    for label, value in facts.items():
        if value:
            out.print(f"{label:<18} {value}", markup=False, soft_wrap=True)


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="policies/…")], address: Address = "", data: Data = DEFAULT_DATA
) -> None:
    """One policy with all of its fields, as JSON."""
    from seal_cli.console import out

    with connect(address, data) as client:
        out.print_json(client.get_policy(full_name("policies", name)).model_dump_json())
