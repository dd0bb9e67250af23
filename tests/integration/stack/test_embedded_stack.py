"""The supervisor with real processes: what is started is found again, reported, and stopped to the last."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from seal_cli.stack import process
from seal_cli.stack.layout import Layout
from seal_cli.stack.services import START_ORDER
from tests.integration.stack.support import RunningStack, Seal, command

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def alive(layout: Layout) -> dict[str, int]:
    """Pids of the services that run, by name."""
    state = layout.read_state()
    return {r.name: r.pid for r in (state.services if state else ()) if process.is_running(r)}


def wait_for(condition: object, seconds: float = 200) -> None:
    """Until `condition()` holds."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.05)


def test_two_starts_at_once_make_one_stack_that_lives_from_up_to_down(
    seal: Seal, environment: dict[str, str], layout: Layout, tmp_path: Path
) -> None:
    both = [
        subprocess.Popen(command("up", "--port", "0"), env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=200)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    found, started = sorted(said, key=lambda text: "was up already" not in text)
    assert "was up already" in found
    assert "was up already" not in started
    assert all(f"{name} " in started for name in START_ORDER), "a progress line for each service"
    first = alive(layout)
    assert set(first) == set(START_ORDER)
    assert seal("status", "--quiet").returncode == 0

    again = seal("up")
    assert again.returncode == 0
    assert "was up already" in again.stderr
    assert alive(layout) == first, "the second `seal up` finds the first"

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    other = seal("up", "--model", "./other")
    assert (other.returncode, "seal down" in other.stderr) == (1, True), "another model is refused while this one runs"

    os.kill(first["trainer"], signal.SIGKILL)
    wait_for(lambda: "trainer" not in alive(layout))
    shown = seal("status")
    assert shown.returncode == 1
    assert "trainer\tdead" in shown.stdout

    healed = seal("up")
    assert healed.returncode == 0, healed.stderr
    now = alive(layout)
    assert now["trainer"] != first["trainer"]
    assert {n: p for n, p in now.items() if n != "trainer"} == {n: p for n, p in first.items() if n != "trainer"}

    records = layout.read_state()
    assert records is not None
    stopped = seal("down")
    assert (stopped.returncode, "stopped" in stopped.stderr) == (0, True)
    assert all(process.has_ended(record) for record in records.services)
    assert not layout.state_file.exists()
    assert "no stack was running" in seal("down").stderr


def test_a_run_goes_through_the_stack(stack: RunningStack, tmp_path: Path) -> None:
    seal = stack.seal
    passages = [
        {"title": f"T{n}", "context": f"The lake of T{n} is deep.", "split": "heldout" if n > 1 else "train",
         "questions": [{"question": "How is the lake?", "answer": "deep"}]}
        for n in range(3)
    ]  # fmt: skip
    (tmp_path / "passages.json").write_text(json.dumps(passages))
    (tmp_path / "run.toml").write_text(
        'name = "small"\nrounds = 1\ncontexts_per_round = 2\n[dataset]\npath = "passages.json"\n[editor]\nk = 2\n'
        "sampling = { max_tokens = 24 }\n[inner_loop]\nlora = { rank = 2, alpha = 4 }\noptimisation = { epochs = 1 }\n"
        "[evaluation]\nsampling = { temperature = 0.0, max_tokens = 4 }\nretention_limit = 1\n"
    )
    ran = seal("run", "run.toml", "--name", "mine", timeout=200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "round 1 of 1" in ran.stdout
    assert "mine · runs/" in ran.stdout
    assert "no adapter" in ran.stdout

    name = ran.stdout.partition(":")[0]
    listed = seal("runs", "list")
    assert listed.stdout.splitlines()[0].split("\t")[:3] == [name, "mine", "succeeded"]
    assert json.loads(seal("runs", "get", name).stdout)["config"]["editor"]["k"] == 2
    trials = [line.split("\t") for line in seal("trials", "list", name).stdout.splitlines()]
    assert len(trials) >= 2 * 3
    assert json.loads(seal("trials", "get", trials[0][0], "--json").stdout)["name"] == trials[0][0]
    assert json.loads(seal("runs", "report", name, "--json").stdout)["verdict"]
    assert seal("policies", "list").stdout
    assert "adapters are intact" in seal("adapters", "verify").stdout

    unknown = seal("runs", "get", "runs/nobody")
    assert (unknown.returncode, "nobody" in unknown.stderr) == (2, True)
    faulty = seal("run", "run.toml", "--set", "start_policy=policies/nobody")
    assert (faulty.returncode, "nobody" in faulty.stderr) == (2, True)
    (tmp_path / "passages.json").write_text(json.dumps([{"title": "T", "context": "", "questions": []}]))
    faulty = seal("run", "run.toml")
    assert (faulty.returncode, "context" in faulty.stderr, "Traceback" in faulty.stderr) == (2, True, False)


def test_it_says_how_busy_it_is(stack: RunningStack, tmp_path: Path) -> None:
    passage = {"title": "T", "context": "The lake is deep.", "questions": [{"question": "How?", "answer": "deep"}]}
    (tmp_path / "passages.json").write_text(json.dumps([passage]))
    (tmp_path / "run.toml").write_text(
        'rounds = 1000\ncontexts_per_round = 1\n[dataset]\npath = "passages.json"\n[held_out]\nsamples = 0\n'
        "[domain.options]\nmin_letters = 1\n[editor]\nk = 4\nsampling = { max_tokens = 16 }\n"
        "[inner_loop]\nlora = { rank = 2, alpha = 4 }\noptimisation = { epochs = 1 }\n"
        "[evaluation]\nsampling = { temperature = 0.0, max_tokens = 4 }\nretention_limit = 1\n"
    )
    started = stack.seal("run", "run.toml", "--no-follow", "--name", "busy", "--json")
    assert started.returncode == 0, started.stderr
    run = json.loads(started.stdout)["run"]["name"]
    try:
        load = json.loads(stack.seal("services", "--json").stdout)
    finally:
        stack.seal("runs", "cancel", run)
    replicas = {one["service"]: one for one in load["replicas"]}
    assert [one["state"] for one in load["replicas"]] == ["serving"] * 3
    assert len({one["base_model"]["digest"] for one in replicas.values()}) == 1
    assert all(one["address"] and one["error"] is None for one in replicas.values()), "an admin's view"
    for one in replicas.values():
        assert 0 <= one["occupancy"]["running"] <= one["occupancy"]["capacity"] > 0
    trainer = replicas["trainer"]["occupancy"]
    assert 0 <= trainer["step_tokens"] <= trainer["step_tokens_limit"]
    (own,) = [one for one in load["runs"] if one["run"] == run]
    assert (own["display_name"], own["running"] + own["queued"] + own["planned"] > 0) == ("busy", True)
    lines = [line.split("\t")[:3] for line in stack.seal("services").stdout.splitlines()]
    assert lines[:3] == [[name, replicas[name]["address"], "serving"] for name in ("generator", "trainer", "evaluator")]


def test_a_service_that_dies_at_its_start_shows_its_log(seal: Seal, layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    failed = seal("up", "--port", "0", "--model", "./broken")
    assert failed.returncode == 1
    assert "died" in failed.stderr
    assert "safetensors" in failed.stderr, "the reason, from the service's own log"
    assert alive(layout) == {}
    assert not layout.state_file.exists()


def test_a_port_in_use_is_named_before_anything_starts(seal: Seal, layout: Layout) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        failed = seal("up", "--port", str(port))
    assert failed.returncode == 1
    assert f"port {port}" in failed.stderr
    assert alive(layout) == {}


def test_what_no_command_finds_ends_by_itself(
    seal: Seal, environment: dict[str, str], layout: Layout, tmp_path: Path
) -> None:
    assert seal("up", "--port", "0").returncode == 0
    services = [pid for name, pid in alive(layout).items() if name != "valkey"]
    for pid in services:  # they must not end before the next start has looked
        os.kill(pid, signal.SIGSTOP)
    try:
        layout.state_file.unlink()
        again = subprocess.Popen(
            command("up", "--port", "0"), env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        assert again.stderr is not None
        assert "waiting for the end of a stack whose state file was removed" in again.stderr.readline()
    finally:
        for pid in services:
            os.kill(pid, signal.SIGCONT)
    said = again.communicate(timeout=200)[1]
    assert again.returncode == 0, said
    records = layout.read_state()
    assert records is not None
    assert set(alive(layout)) == set(START_ORDER)
    shutil.rmtree(layout.data)
    wait_for(lambda: all(map(process.has_ended, records.services)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_start_leaves_nothing(
    number: signal.Signals, environment: dict[str, str], layout: Layout, tmp_path: Path
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        # The generator waits for a model server that never answers, so the start cannot end by itself.
        waiting = {"BACKEND": "openai", "ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/v1"}
        environment |= {f"SEAL_GENERATOR_{k}": v for k, v in (waiting | {"ENDPOINT_MODEL": "any"}).items()}
        starting = subprocess.Popen(command("up", "--port", "0"), env=environment, cwd=tmp_path, stderr=subprocess.PIPE)
        wait_for(lambda: layout.data.exists() and len(alive(layout)) == len(START_ORDER))
        records = layout.read_state()
        starting.send_signal(number)
        starting.communicate(timeout=60)
    assert starting.returncode == 128 + number
    assert records is not None
    assert all(process.has_ended(record) for record in records.services)


def test_a_killed_start_is_taken_over_and_in_the_foreground_a_death_ends_all(
    environment: dict[str, str], layout: Layout, tmp_path: Path
) -> None:
    starting = subprocess.Popen(command("up", "--port", "0"), env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)
    # Valkey begins to work before the generator is recorded: one that was only recorded would end with this start.
    wait_for(lambda: layout.data.exists() and "generator" in alive(layout))
    starting.kill()
    starting.wait()
    valkey = alive(layout)["valkey"]
    holding = subprocess.Popen(
        command("up", "--foreground"), env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert holding.stderr is not None
    wait_for(lambda: "Ctrl-C" in holding.stderr.readline())
    now = alive(layout)
    assert now["valkey"] == valkey, "what runs is kept"
    assert set(now) == set(START_ORDER)
    os.kill(now["evaluator"], signal.SIGKILL)
    said = holding.communicate(timeout=60)[1]
    assert holding.returncode == 1
    assert "evaluator died" in said
    assert alive(layout) == {}
    held = subprocess.Popen(
        command("up", "--foreground"), env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert held.stderr is not None
    wait_for(lambda: "Ctrl-C" in held.stderr.readline())
    held.send_signal(signal.SIGHUP)
    held.communicate(timeout=60)
    assert (held.returncode, layout.read_state()) == (129, None)
