"""Trials made again by real services with the tiny model: identical on the same build, and what differs on another."""

import json
from pathlib import Path

import pytest

from seal_cli.stack.layout import Layout
from tests.integration.stack.support import Seal

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

RUN = """
name = "small"
rounds = 1
contexts_per_round = 1
[domain.options]
min_letters = 1
[dataset]
path = "passages.json"
[editor]
k = 2
sampling = { temperature = 0.0, max_tokens = 24 }
[inner_loop]
lora = { rank = 2, alpha = 4 }
optimisation = { epochs = 2 }
[evaluation]
sampling = { temperature = 0.0, max_tokens = 8 }
retention_limit = 2
[held_out]
samples = 0
[cost]
currency = "EUR"
device_hour = 3600
"""


def passages(folder: Path) -> None:
    found = [
        {"title": f"T{n}", "context": f"The lake of T{n} is deep and {n} miles long.", "split": "train",
         "questions": [{"question": "How is the lake?", "answer": "deep"}, {"question": "Where?", "answer": f"T{n}"}]}
        for n in range(2)
    ]  # fmt: skip
    (folder / "passages.json").write_text(json.dumps(found))
    (folder / "run.toml").write_text(RUN)


def test_a_trial_is_made_again_to_the_bit_and_another_build_is_told(
    seal: Seal, layout: Layout, tmp_path: Path, environment: dict[str, str]
) -> None:
    passages(tmp_path)
    environment |= {
        "SEAL_TRAINER_MAX_JOBS": "1",
        "SEAL_GENERATOR_DETERMINISTIC": "on",
        "SEAL_EVALUATOR_DETERMINISTIC": "on",
    }
    assert seal("up", "--port", "0").returncode == 0
    nothing_known = seal("run", "run.toml", "--dry-run")
    assert nothing_known.returncode == 0, nothing_known.stderr
    assert "only the number of trials is known" in " ".join(nothing_known.stdout.split())
    ran = seal("run", "run.toml", timeout=250)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "device time" in ran.stdout
    name = ran.stdout.partition(":")[0]
    assert seal("runs", "cost", name).stdout.splitlines()[-1].startswith("run\tin all")
    assert "wall time" in seal("run", "run.toml", "--dry-run").stdout

    rows = [line.split("\t") for line in seal("trials", "list", name).stdout.splitlines()]
    trained = [row[0] for row in rows if row[2] == "succeeded"]
    assert len(trained) == 3, rows
    for trial in trained:
        again = seal("trials", "rerun", trial)
        assert (again.returncode, again.stdout) == (0, f"identical: {trial}\n"), again.stdout + again.stderr
    before = json.loads(seal("runs", "get", name).stdout)["progress"]

    assert seal("down").returncode == 0
    environment["SEAL_TRAINER_DTYPE"] = "float64"
    assert seal("up", "--port", "0").returncode == 0
    other = seal("trials", "rerun", trained[0])
    assert other.returncode == 1, other.stdout + other.stderr
    told = dict(line.split("\t", 1) for line in other.stdout.splitlines())
    assert {"adapter", "weights_sha256", "versions.trainer.dtype"} <= told.keys()
    assert {"completion", "spec", "versions.torch"}.isdisjoint(told)
    assert json.loads(seal("runs", "get", name).stdout)["progress"] == before
