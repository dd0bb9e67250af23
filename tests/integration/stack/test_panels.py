"""Every panel of every dashboard, asked of a real Prometheus over a real run: none errs, and none is empty but those
that say what has to happen first. Then drawn."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.grafana import draw
from deploy.grafana.boards import BOARDS
from seal_cli.stack.layout import Layout
from tests.integration.stack.support import ROOT, Seal

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus here (Debian's package has it)"),
]

_JOBS = {"controller": "seal-controller", "generator": "seal-generator", "trainer": "seal-trainer"}
_JOBS |= {"evaluator": "seal-evaluator", "gateway": "seal-gateway"}
_FILLED_IN = {"$__rate_interval": "1m", "$run": ".*"}
CONFIG = """
rounds = 1
contexts_per_round = 3
seed = 5

[editor]
k = 3
sampling = {temperature = 1.0, max_tokens = 40}

[inner_loop]
lora = {rank = 4, alpha = 8}
optimisation = {learning_rate = 1e-3, epochs = 2, batch_size = 1}

[evaluation]
sampling = {temperature = 0.0, max_tokens = 6}
retention_limit = 4

[selection]
must_beat_passage_only = false
must_gain = false

[gate]
max_forgetting = 1.0

[held_out]
samples = 1
"""


class Prometheus:
    """A server of this test's own that looks every second."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query, without what is not a number. Fails the test where Prometheus refuses it."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?{query}", timeout=20) as reply:
                found: list[dict[str, Any]] = json.load(reply)["data"]["result"]
                return [one for one in found if one["value"][1] != "NaN"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{expression}: {error.read().decode()}")


@pytest.fixture
def prometheus(seal: Seal, layout: Layout, tmp_path: Path) -> Iterator[Prometheus]:
    """Beside a stack that is up."""
    started = seal("up", "--port", "0")
    assert started.returncode == 0, started.stderr
    state = layout.read_state()
    assert state is not None
    scraped = [
        {"job_name": _JOBS[record.name], "static_configs": [{"targets": [record.metrics]}]}
        for record in state.services
        if record.metrics
    ]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ROOT / "deploy/prometheus/rules.yml")],
        "scrape_configs": scraped,
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    process = subprocess.Popen(
        ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb",
         f"--web.listen-address={address}", "--log.level=error"],
        env=dict(os.environ),
    )  # fmt: skip
    server = Prometheus(f"http://{address}")
    try:
        until(lambda: up(server) == len(scraped))
        yield server
    finally:
        process.terminate()
        process.wait(20)


def up(server: Prometheus) -> int:
    try:
        return len(server.ask('up{job=~"seal-.*"} == 1'))
    except (urllib.error.URLError, OSError):
        return 0


def until(holds: object, seconds: float = 60) -> None:
    assert callable(holds)
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.2)


def test_every_panel_has_an_answer(prometheus: Prometheus, seal: Seal, tmp_path: Path) -> None:
    passages = [
        {"title": f"T{n}", "context": f"The lake of T{n} is deep. " * 4, "split": "heldout" if n > 3 else "train",
         "questions": [{"question": f"How is the lake of T{n}?", "answer": "deep"}]}
        for n in range(5)
    ]  # fmt: skip
    (tmp_path / "passages.json").write_text(json.dumps(passages))
    (tmp_path / "run.toml").write_text(CONFIG)
    for number in range(2):  # a counter has a rate once it was seen twice
        done = seal("run", "run.toml", "--dataset", "passages.json", "--set", f"seed={number}", timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: prometheus.ask("seal_run_progress_ratio == 1 and on (run) seal_run_active == 0"), seconds=30)
    empty = []
    for board in BOARDS:
        for row in board.rows:
            for panel in row.panels:
                for query in panel.queries:
                    expression = query.expr
                    for name, value in _FILLED_IN.items():
                        expression = expression.replace(name, value)
                    if not prometheus.ask(expression) and not query.needs:
                        empty.append(f"{board.title} / {panel.title}: {expression}")
    assert empty == []
    drawn = ["--prometheus", prometheus.url, "--out", str(tmp_path / "pictures"), "--minutes", "3"]
    assert draw.main(drawn) == 0
    assert {path.stem for path in (tmp_path / "pictures").glob("*.png")} == {board.uid for board in BOARDS}
    rules = json.load(urllib.request.urlopen(f"{prometheus.url}/api/v1/rules", timeout=20))["data"]["groups"]
    assert {rule["health"] for group in rules for rule in group["rules"]} == {"ok"}
