"""The templates and files of the live page."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from starlette.responses import HTMLResponse

from sealkit.names import id_of, is_alias, is_of_run, run_id_of, run_name
from sealkit.report_page.environment import FOLDER, make_environment
from sealkit.report_page.labels import GATES
from sealkit.resources import Trial

ROOT = "/live"
"""Where the page is mounted."""
_HERE = Path(__file__).parent
STYLE = (FOLDER / "page.css").read_bytes() + (_HERE / "static/live.css").read_bytes()
SCRIPT = (_HERE / "static/live.js").read_bytes()


def page(template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    """A page from a template."""
    return HTMLResponse(_ENVIRONMENT.get_template(template).render(**values), status)


def trial_row(trial: Trial) -> str:
    """A trial as a row of the tables of trials."""
    return str(_ENVIRONMENT.get_template("tables.html.jinja").module.trial_row(trial))  # type: ignore[attr-defined]


def link_of(name: str) -> str:
    """The address of a run's, a trial's or an alias's page; empty for what has none."""
    return f"{ROOT}/{name}" if is_of_run(name) or is_alias(name) else ""


def _versioned(file: str, content: bytes) -> str:
    """The address of a file that browsers may keep: another content has another address."""
    return f"{ROOT}/{file}?{hashlib.sha256(content).hexdigest()[:16]}"


_ENVIRONMENT = make_environment(_HERE / "templates")
_ENVIRONMENT.filters |= {"link": link_of, "id": id_of}
_ENVIRONMENT.globals |= {
    "root": ROOT,
    "style": _versioned("live.css", STYLE),
    "script": _versioned("live.js", SCRIPT),
    "gates": GATES,
    "run_of": lambda trial: run_name(run_id_of(trial.name)),
}
