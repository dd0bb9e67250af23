"""`seal policies`: list, show, get."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from seal_cli.options import DEFAULT_DATA, Address, AlwaysJson, AsJson, Data, Limit, connect
from sealkit.names import full_name

app = typer.Typer(help="Show policies: the versions of the model that writes self-edits.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="policies/…")]


@app.command("list")
def list_policies(limit: Limit = 20, as_json: AsJson = False, address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """Policies, newest first."""
    from seal_cli.console import moment, share, show_json
    from seal_cli.tables import print_listing

    with connect(address, data) as client:
        policies = list(islice(client.list_policies(), limit))
    if as_json:
        show_json(policies)
        return
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
        for policy in policies
    ]
    print_listing(("policy", "from", "round", "trials", "held-out accuracy", "forgetting", "gate", "created"), rows)


@app.command()
def show(name: Name, as_json: AsJson = False, address: Address = "", data: Data = DEFAULT_DATA) -> None:
    """One policy in words: its parent, the trials that trained it, what it forgot, the gate's decision."""
    from seal_cli import console
    from seal_cli.console import moment, share

    with connect(address, data) as client:
        policy = client.get_policy(full_name("policies", name))
    if as_json:
        console.show_json(policy)
        return
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
            console.show(f"{label:<18} {value}")


@app.command()
def get(name: Name, json: AlwaysJson = True, address: Address = "", data: Data = DEFAULT_DATA) -> None:  # noqa: ARG001
    """One policy with all of its fields, as JSON."""
    from seal_cli.console import show_json

    with connect(address, data) as client:
        show_json(client.get_policy(full_name("policies", name)))
