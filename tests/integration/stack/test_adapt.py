"""Adaptation through real services with a random tiny model: commits are exact, the alias points to the last one."""

import json
from pathlib import Path

import pytest

from sealkit.store import AdapterStore
from tests.integration.stack.support import SMALL_ADAPTATION, RunningStack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_contexts_are_learned_in_a_row_published_and_rolled_back(stack: RunningStack, tmp_path: Path) -> None:
    seal = stack.seal
    questions = [{"question": "How is the lake?", "answer": "deep"}]
    passages = [{"title": f"T{n}", "context": f"The lake of T{n} is deep.", "questions": questions} for n in range(2)]
    (tmp_path / "passages.json").write_text(json.dumps(passages))
    (tmp_path / "adapt.toml").write_text(SMALL_ADAPTATION)

    ran = seal("adapt", "adapt.toml", "--alias", "lakes", timeout=250)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 contexts to learn" in ran.stdout
    assert "2 of 2 contexts were committed" in ran.stdout, ran.stdout

    name = ran.stdout.partition(":")[0]
    report = json.loads(seal("runs", "report", name, "--json").stdout)
    assert len(report["continual"]["matrix"]) == 3
    first, second = report["policies"][1:]
    assert [policy["gate"] for policy in (first, second)] == ["passed", "passed"]
    assert first["divergence"]["on_fixed_text"] > 0
    store = AdapterStore(stack.layout.store.as_uri())
    assert store.manifest(second["adapter"]["digest"])["joined"][0] == first["adapter"]["digest"]

    listed = dict(line.split("\t")[:2] for line in seal("alias", "list").stdout.splitlines())
    assert listed["aliases/lakes"] == second["name"]
    assert first["name"] in seal("alias", "rollback", "lakes").stdout
    assert len(seal("alias", "show", "lakes").stdout.splitlines()) == 3
    refused = seal("alias", "rollback", "lakes")
    assert (refused.returncode, "no policy before" in refused.stderr) == (1, True)
    unknown = seal("alias", "show", "nobody")
    assert (unknown.returncode, "nobody" in unknown.stderr) == (2, True)
    assert "passed" in seal("policies", "show", second["name"]).stdout
