"""The page of a run's report: its numbers, and what it makes of hostile texts. In a browser: tests/integration."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tomllib
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from seal_cli.main import app
from sealkit.client import SealClient
from sealkit.config import RunConfig, parse_config
from sealkit.errors import ConfigOutdated, UnknownAlias, UnknownRun
from sealkit.report_page import charts, page
from sealkit.report_page.charts import Point, front
from sealkit.report_page.collect import Collected, collect, run_of, whole_trial
from sealkit.report_page.toml import toml_of
from sealkit.shown import NOT_SHOWN
from tests.unit.report_page.runs import HOSTILE, MARKUP, SIZES, FakeClient, collected, html

BYTES = 2_000_000


class Read(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.parts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.parts).split())


def test_the_numbers_are_those_of_the_json() -> None:
    found, shown = collected("plain"), Read(html("plain")).text
    report = found.report
    assert report.rl_gain is not None
    assert report.continual is not None
    assert report.continual.bwt is not None
    estimates = [row.accuracy for row in report.rows]
    signed = [report.rl_gain, report.trial_forgetting, report.continual.bwt]
    wanted = [f"{e.mean:.3f} [{e.low:.3f}, {e.high:.3f}]" for e in estimates]
    wanted += [f"{e.mean:+.3f} [{e.low:+.3f}, {e.high:+.3f}]" for e in signed if e]
    wanted += [report.verdict.strip(), "225.2", "120,764", "241,198", "21.7", "1:02:05", "20 steps, final loss 0.321"]
    wanted += ["0.490 [0.400, 0.580] +0.110 [+0.012, +0.208] no", "a difference of 0.173"]
    wanted += [f"{trial.name} {trial.editor} {trial.state.value} {trial.accuracy:.3f}" for trial in found.trials]
    assert [text for text in wanted if text not in shown] == []
    assert Collected.model_validate_json(found.model_dump_json()) == found


def test_what_is_best_lost_and_descended_from_whom() -> None:
    found = collected("plain")
    assert [one.trial.reward for one in found.best] == sorted(
        (t.reward for t in found.trials if t.editor == "policy" and t.reward is not None), reverse=True
    )[:5]
    assert not any("rerun" in trial.name for trial in found.trials)
    assert [policy.name for policy in found.ancestors] == ["policies/old-1"]
    assert [alias.name for alias in found.aliases] == ["aliases/production"]
    assert {one.trial.selected for one in found.chosen} == {True}
    assert [asked.query_id for asked in found.chosen[0].asked if asked.lost] == ["q/1", "q/3"]
    shown = Read(html("plain")).text
    assert "Where does q/1 rise?" in shown
    assert "Where does suite/1 rise?" in shown
    assert re.search(r"policies/demo-1-2 θ_2 .*passed the gate .*aliases/production", shown)


def test_a_run_is_found_by_its_name_and_by_an_alias() -> None:
    client = cast(SealClient, FakeClient())
    for name in ("demo-1", "runs/demo-1", "production", "aliases/production"):
        assert run_of(client, name).name == "runs/demo-1", name
    for name, error in (("nothing", UnknownRun), ("runs/nothing", UnknownRun), ("aliases/nothing", UnknownAlias)):
        with pytest.raises(error, match="nothing"):
            run_of(client, name)


def test_a_trial_of_another_version_is_shown_without_its_questions() -> None:
    class Older(FakeClient):
        def get_trial_material(self, name: str) -> Any:
            raise ConfigOutdated("another version stored the config")

    client = Older()
    found = whole_trial(cast(SealClient, client), next(iter(client.trials)))
    assert [asked.query for asked in found.asked] == [None] * 4
    shown = Read(page.render(collect(cast(SealClient, client), client.run))).text
    assert "another version stored the config" in shown


def test_whatever_a_run_holds_is_text() -> None:
    found = {kind: Read(html(kind)) for kind in SIZES}
    assert set(found["hostile"].tags) == set(found["plain"].tags), "a text made an element"
    for kind, read in found.items():
        assert set(read.tags) & {"script", "img", "iframe", "object", "form", "base"} == set(), kind
        assert [a for a in read.attributes if a[1].startswith("on") or a[1] in ("style", "src")] == [], kind
        links = {value for _, name, value in read.attributes if name in ("href", "xlink:href")}
        assert links == {"data:,", "#finding"}, kind
        controls = {found[0] for found in NOT_SHOWN.finditer(html(kind))} - {"\n"}
        assert controls == set(), kind
    shown = found["hostile"].text
    assert MARKUP in shown
    assert "\\u202egnirts\\u2066 \\x00\\x1b[31m" in shown
    assert "more characters" in shown


def test_the_policy_allows_the_page_s_own_style_alone() -> None:
    (allowed,) = [value for tag, name, value in Read(html("plain")).attributes if "default-src" in value]
    style = html("plain").partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert allowed.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "unsafe" not in allowed


def test_a_thousand_trials_fit() -> None:
    assert {kind: len(html(kind).encode()) for kind in SIZES if len(html(kind).encode()) > BYTES} == {}
    assert html("big").count('class="point ') > 1000


def test_headings_are_in_order_and_every_region_has_a_name() -> None:
    levels = [int(level) for level in re.findall(r"<h([1-6])", html("plain"))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert [(a, b) for a, b in pairwise(levels) if b > a + 1] == []
    read = Read(html("plain"))
    ids = [value for _, name, value in read.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value for _, name, value in read.attributes if name == "aria-labelledby"} <= set(ids)
    unnamed = [tag for tag in re.findall(r"<svg[^>]*>", html("plain")) if "aria-" not in tag]
    assert unnamed == []


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    full = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    channels = [int(full[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_texts_have_contrast_in_light_dark_and_print() -> None:
    """WCAG 2.2, 1.4.3: at least 4.5."""
    style = (Path(page.__file__).parent / "page.css").read_text()
    themes = [dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in re.findall(r":root \{([^}]*)\}", style)]
    assert len(themes) == 3
    faults = []
    for number, theme in enumerate(themes):
        for ink in ("ink", "quiet", "accent", "good", "bad"):
            for paper in ("paper", "raised"):
                dark, light = sorted((luminance(theme[ink]), luminance(theme[paper])))
                if (light + 0.05) / (dark + 0.05) < 4.5:
                    faults.append((number, ink, paper, (light + 0.05) / (dark + 0.05)))
    assert faults == []


def test_an_axis_has_round_numbers_with_their_signs() -> None:
    points = [Point(x, y, "") for x, y in ((-0.02, -0.3), (0.02, 1.0))]
    labels = re.findall(r'text-anchor="(middle|end)">(-?[\d.]+)<', charts.scatter(points, "x", "y", ""))
    assert [text for anchor, text in labels if anchor == "middle"] == ["-0.04", "-0.02", "0.00", "0.02", "0.04"]
    assert [text for anchor, text in labels if anchor == "end"] == ["0.0", "0.5", "1.0"]


def test_nothing_beats_the_front() -> None:
    points = [Point(trial.forgetting or 0.0, trial.gain or 0.0, trial.name) for trial in collected("plain").trials]

    def beaten(point: Point) -> bool:
        return any(o.x <= point.x and o.y >= point.y and (o.x, o.y) != (point.x, point.y) for o in points)

    assert {(p.x, p.y) for p in front(points)} == {(p.x, p.y) for p in points if not beaten(p)}


def test_the_config_is_read_back_as_it_was() -> None:
    options = {"style": "questions", "deep": {"a": [1, {"b": "c"}]}}
    config = RunConfig.model_validate({"name": 'a "b" \\ ü', "domain": {"options": options}})
    assert parse_config(tomllib.loads(toml_of(config.model_dump(mode="json")))) == config
    strange = {"a b": {"": HOSTILE[:300], "n": 1.5, "t": True}, "x": [[1], ["\x7f\u202e"]], "empty": {}}
    assert tomllib.loads(toml_of(strange)) == strange


def test_the_command_writes_the_page_or_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    opened: list[str] = []
    monkeypatch.setattr("seal_cli.commands.report.connect", lambda *_: FakeClient())
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    done = CliRunner().invoke(app, ["report", "production", "--open"])
    assert (done.exit_code, done.stdout) == (0, "report-demo-1.html\n")
    assert (tmp_path / "report-demo-1.html").read_text() == html("plain")
    assert opened == [(tmp_path / "report-demo-1.html").as_uri()]
    assert CliRunner().invoke(app, ["report", "demo-1", "--out", "x.html"]).stdout == "x.html\n"
    assert json.loads(CliRunner().invoke(app, ["report", "demo-1", "--json"]).stdout) == collected("plain").model_dump(
        mode="json"
    )
    assert CliRunner().invoke(app, ["report", "demo-1", "--out", "no/such/folder.html"]).exit_code == 1
    assert {file.name for file in tmp_path.iterdir()} == {"report-demo-1.html", "x.html"}


def test_a_trial_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seal_cli.commands.trials.connect", lambda *_: FakeClient())
    (name, *_) = CliRunner().invoke(app, ["trials", "list", "demo-1"]).stdout.splitlines()[1].split("\t")
    shown = " ".join(CliRunner().invoke(app, ["trials", "get", name]).stdout.split())
    answer = "The Ossel rises in the Brenn hills and flows north."
    for wanted in (
        name,
        f"Self-edit {answer}",
        "Trained on: 7 examples",
        f"question Where does q/0 rise? gold {answer} before incorrect {answer} ({answer}) after correct {answer}",
        "20 steps, final loss 0.3210",
        "generation 1.5 s, training 6.2 s, evaluation 0.8 s",
        "Lost: right before, wrong after Where does q/1 rise? Where does q/3 rise? Where does suite/1 rise?",
    ):
        assert wanted in shown, wanted
