"""Which connections a set of NetworkPolicies allows, by Kubernetes' rules: a pod that a policy of a direction selects
is closed in that direction but for what some policy opens; a connection needs both its ends to allow it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """A pod with its labels and ports, or somebody in another namespace with that namespace's labels; both by pairs."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[tuple[str, int], ...] = ()
    namespace: tuple[tuple[str, str], ...] | None = None
    """None: that of the policies."""


def connections(policies: Iterable[Manifest], peers: Iterable[Peer]) -> Iterator[tuple[str, str, int]]:
    """Every (from, to, port) that is allowed between two of these, one of them in the policies' namespace, at the ports
    that the latter has."""
    policies, peers = list(policies), list(peers)
    for source in peers:
        for target in peers:
            ours = source.namespace is None or target.namespace is None
            for name, port in target.ports if ours and source is not target else ():
                goes = _opens(policies, source, "egress", "to", target, name, port)
                if goes and _opens(policies, target, "ingress", "from", source, name, port):
                    yield source.name, target.name, port


def _opens(policies: list[Manifest], owner: Peer, direction: str, whom: str, other: Peer, name: str, port: int) -> bool:
    mine = [
        policy["spec"]
        for policy in policies
        if direction.capitalize() in policy["spec"]["policyTypes"]
        and owner.namespace is None
        and _selects(policy["spec"]["podSelector"], owner.labels)
    ]
    rules = [rule for spec in mine for rule in spec.get(direction, ())]
    return not mine or any(
        any(entry.get("port") in (name, port) for entry in rule["ports"])
        and (whom not in rule or any(_is(one, other) for one in rule[whom]))
        for rule in rules
    )


def _is(allowed: Manifest, peer: Peer) -> bool:
    assert allowed.keys() <= {"podSelector", "namespaceSelector"}
    if "namespaceSelector" in allowed:
        there = peer.namespace is not None and _selects(allowed["namespaceSelector"], peer.namespace)
    else:
        there = peer.namespace is None
    return there and _selects(allowed.get("podSelector", {}), peer.labels)


def _selects(selector: Manifest, labels: tuple[tuple[str, str], ...]) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    assert all(expression["operator"] == "In" for expression in selector.get("matchExpressions", ()))
    has = dict(labels)
    return all(has.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        has.get(expression["key"]) in expression["values"] for expression in selector.get("matchExpressions", ())
    )
