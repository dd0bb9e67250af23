"""A small run through real processes, traced: one connected tree from the command to the steps inside the trainer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.stack.support import Seal
from tests.otlp import receiving

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

CONFIG = """
rounds = 1
[domain]
options = { min_letters = 1, worked_example = false }
[editor]
k = 2
sampling = { temperature = 1.0, max_tokens = 16 }
[inner_loop]
lora = { rank = 2, alpha = 4 }
optimisation = { epochs = 1 }
[evaluation]
sampling = { temperature = 0.0, max_tokens = 4 }
retention_limit = 2
[selection]
must_gain = false
must_beat_passage_only = false
[gate]
max_forgetting = 1.0
"""
SERVER = "seal.{}.v1.{}Service/{}"


def test_a_run_is_one_connected_tree_over_all_processes(
    seal: Seal, environment: dict[str, str], tmp_path: Path
) -> None:
    questions = [{"question": "How is the lake?", "answer": "sesame"}]
    passages = [{"title": f"T{n}", "context": f"The lake of T{n} is sesame.", "questions": questions} for n in range(2)]
    (tmp_path / "passages.json").write_text(json.dumps(passages))
    (tmp_path / "run.toml").write_text(CONFIG)
    with receiving() as receiver:
        environment["SEAL_TRACES_ENDPOINT"] = receiver.url
        assert seal("up", "--port", "0").returncode == 0
        ran = seal("run", "run.toml", "--dataset", "passages.json", timeout=200)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert seal("down").returncode == 0  # each process sends its last spans as it ends

    begun = receiver.one("controller/CreateRun")
    assert begun.parent == ""
    ours = [span for span in receiver.spans if span.trace == begun.trace]
    assert {span.service for span in ours} == {
        f"seal-{name}" for name in ("cli", "controller", "generator", "trainer", "evaluator")
    }
    assert [span.name for span in ours if "?" in receiver.above(span)] == []
    assert [span.name for span in ours if not span.parent] == ["controller/CreateRun"]

    created = [SERVER.format("controller", "Controller", "CreateRun"), "controller/CreateRun"]
    trial = ["trial", "put trials", "drive", *created]
    call = [SERVER.format("trainer", "Trainer", "TrainAdapter"), "trainer/TrainAdapter", "train"]
    for step in ("prepare", "wait for a slot", "train", "save"):
        found = [receiver.above(span) for span in receiver.named(step) if span.service == "seal-trainer"]
        assert [*call, *trial] in found, step
    assert ["evaluator/Evaluate", "evaluate", *trial] in [
        receiver.above(span) for span in receiver.named(SERVER.format("evaluator", "Evaluator", "Evaluate"))
    ]
    assert ["generator/SampleSelfEdits", "generate", *trial] in [
        receiver.above(span) for span in receiver.named(SERVER.format("generator", "Generator", "SampleSelfEdits"))
    ]
    assert receiver.bodies
    assert not any(b"sesame" in body for body in receiver.bodies)
    logged = (tmp_path / "data/logs/trainer.log").read_text() + (tmp_path / "data/logs/controller.log").read_text()
    assert f'"trace_id": "{begun.trace}"' in logged
