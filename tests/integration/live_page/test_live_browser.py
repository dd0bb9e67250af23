"""The live page in a browser, in front of a stack with the tiny model: a run as it goes on, whatever its texts hold."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.live_page.axe import axe_core
from tests.integration.report_page.chromium import EXECUTABLE, Tab, tab
from tests.integration.report_page.test_browser import OFF_SCREEN
from tests.integration.stack.support import RunningStack
from tests.unit.report_page.runs import HOSTILE, MARKUP

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(EXECUTABLE is None, reason="needs Chromium (Debian: apt-get install chromium)"),
]

RUN = """
rounds = 1
contexts_per_round = 2
[domain.options]
min_letters = 1
[dataset]
path = "passages.json"
[editor]
k = 2
sampling = { temperature = 0.7, max_tokens = 16 }
[inner_loop]
lora = { rank = 2, alpha = 4 }
optimisation = { epochs = 1 }
[evaluation]
sampling = { temperature = 0.0, max_tokens = 8 }
retention_limit = 2
[held_out]
samples = 1
"""
ELEMENTS = "[...document.querySelectorAll('main :is(script, img, iframe, form, style), main [onerror]')].length"
BROKEN_WORDS = """[...document.querySelectorAll('thead th')].filter(e =>
  e.clientHeight > 60 && getComputedStyle(e.closest('thead')).position !== 'absolute').map(e => e.textContent)"""
AXE = """axe.run(document, {resultTypes: ['violations']}).then(found => found.violations
  .filter(one => ['serious', 'critical'].includes(one.impact))
  .map(one => `${one.id}: ${one.nodes.map(node => node.html.slice(0, 200)).slice(0, 3).join(' | ')}`))"""


@pytest.fixture
def browser() -> Iterator[Tab]:
    with tab() as opened:
        yield opened


def start_run(stack: RunningStack, folder: Path) -> str:
    """A run whose dataset and name are hostile; returns at once with its name."""
    passages = [
        {"title": f"T{n} {MARKUP}", "context": f"The lake of T{n} is deep. {MARKUP}",
         "split": "train" if n < 2 else "heldout", "questions": [{"question": f"How? {MARKUP}", "answer": "deep"}]}
        for n in range(3)
    ]  # fmt: skip
    (folder / "passages.json").write_text(json.dumps(passages))
    (folder / "run.toml").write_text(RUN)
    started = stack.seal("run", "run.toml", "--no-follow", "--json", "--name", MARKUP[:100])
    assert started.returncode == 0, started.stderr
    return str(json.loads(started.stdout)["run"]["name"])


def publish(stack: RunningStack, run: str, alias: str) -> None:
    """Publishes the run's first policy, whatever the tiny model forgot."""
    with sqlite3.connect(stack.layout.database) as database:
        database.execute("UPDATE policies SET gate = 'passed' WHERE run_id = ?", [run.removeprefix("runs/")])
    (policy, *_) = json.loads(stack.seal("policies", "list", "--json").stdout)
    assert stack.seal("alias", "set", alias, policy["name"], "--reason", MARKUP).returncode == 0


def test_a_run_goes_on_in_the_page_and_its_texts_stay_texts(stack: RunningStack, browser: Tab, tmp_path: Path) -> None:
    live = json.loads(stack.seal("open", "--json").stdout)["page"]
    browser.open(live, 1440)
    browser.until("document.querySelectorAll('#services tbody .succeeded').length === 3")  # polled until they answered
    assert browser.evaluate("document.querySelectorAll('#services progress').length") == 3
    run = start_run(stack, tmp_path)
    browser.until(f"document.querySelector('[data-run=\"{run}\"]')")  # the overview finds it by itself
    browser.open(f"{live}{run}", 1440)
    browser.until("document.querySelector('[data-field=state]').textContent === 'succeeded'")
    browser.until("document.querySelectorAll('#trials tbody tr').length >= 6")
    browser.until("document.querySelector('#findings svg.chart, #findings svg.inline')")
    assert browser.messages == []
    publish(stack, run, "notes")
    trials = json.loads(stack.seal("trials", "list", run, "--json").stdout)
    trial = next(one["name"] for one in trials if one["editor"] == "policy")
    with sqlite3.connect(stack.layout.database) as database:
        database.execute("UPDATE trials SET completion = ? WHERE name = ?", [HOSTILE, trial])

    axe, faults = axe_core(), {}
    for page in ("", run, f"{run}/findings", trial, "aliases/notes"):
        for width, dark in ((390, False), (1440, True)):
            browser.open(f"{live}{page}", width, dark=dark)
            if page == run:
                browser.until("document.querySelector('#findings h2')")
            wide = browser.evaluate("document.documentElement.scrollWidth > innerWidth")
            off = browser.evaluate(OFF_SCREEN) + browser.evaluate(BROKEN_WORDS)
            elements = browser.evaluate(ELEMENTS)
            own = 1 if page.startswith("aliases/") else 0  # the form that asks
            found: list[Any] = [wide or "", *off, *browser.messages, "" if elements == own else f"{elements} elements"]
            if axe:
                browser.evaluate(f"{axe}; undefined")
                found += browser.evaluate(AXE)
            if any(found):
                faults[page, width] = [fault for fault in found if fault]
    assert faults == {}
    if axe is None:
        pytest.skip("all but axe-core, which cannot be fetched here")


def test_a_trial_opens_on_a_click_and_an_alias_answers(stack: RunningStack, browser: Tab, tmp_path: Path) -> None:
    live = json.loads(stack.seal("open", "--json").stdout)["page"]
    run = start_run(stack, tmp_path)
    assert stack.seal("runs", "watch", run).returncode == 0
    publish(stack, run, "answers")
    browser.open(f"{live}{run}", 390)
    browser.evaluate("{ const link = document.querySelector('#trials tbody a'); link.focus(); link.click() }")
    browser.until("document.querySelector('dialog[open] h4')")
    assert browser.evaluate("document.querySelector('dialog').getBoundingClientRect().right <= innerWidth")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Escape", windowsVirtualKeyCode=27)
    browser.until("!document.querySelector('dialog[open]') && document.activeElement.closest('#trials')")
    browser.open(f"{live}aliases/answers", 1440)
    browser.evaluate("document.getElementById('question').value = 'How is the lake?'")
    browser.evaluate("document.getElementById('ask').dataset.tokens = '8'")
    browser.evaluate("document.querySelector('#ask button').click()")
    for answer in ("answer", "answer-base"):
        browser.until(f"document.getElementById('{answer}').textContent.length > 0")
    browser.until("document.getElementById('stop').disabled")
    assert browser.evaluate("document.querySelectorAll('.answers .error').length") == 0
    assert browser.messages == []
