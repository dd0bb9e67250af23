"""The pages: what each shows, read from the controller when it is asked. Every list comes in pages."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from gateway.callers import Callers
from gateway.page.render import page
from gateway.settings import GatewaySettings
from sealkit.client import AsyncSealClient
from sealkit.concurrency import gather_or_cancel
from sealkit.errors import ConfigOutdated, UnknownPolicy
from sealkit.names import alias_name, id_of, round_name, run_name, trial_name
from sealkit.report_page import sections
from sealkit.report_page.collect import WholeTrial
from sealkit.report_page.labels import CONTINUAL_LEGEND, LEGEND
from sealkit.resources import Alias, CallerInfo, PolicyVersion, Run, Trial, TrialPhase

MOST_WATCHED = 20
"""Runs whose events one page follows, so also rows of the table of runs: all that have not ended are followed."""
_QUEUE = 20
_ALIASES = 20
_TRIALS = 50
"""Rows of a page's other tables."""
_POINTS = 1000
"""Trials in the chart of gain against forgetting: of the latest rounds, if a run has more."""
_ASKED_TOKENS = 512
"""Most tokens of an answer on the page."""
_ALL = {"self_edit": 10**7, "examples": 10**4, "questions": 10**4, "text": 10**7}


class Views:
    """One method for each page."""

    def __init__(self, callers: Callers, settings: GatewaySettings) -> None:
        self._callers = callers
        self._ask_tokens = min(_ASKED_TOKENS, settings.max_tokens)

    async def overview(self, request: Request) -> Response:
        """Runs with their progress, the queue, how busy the model services are, and aliases with their health."""
        caller = self._callers.of_cookie(request)
        asked = request.query_params
        info, runs, aliases, load = await gather_or_cancel(
            caller.whoami(),
            caller.runs_page(asked.get("runs", ""), MOST_WATCHED),
            caller.aliases_page(asked.get("aliases", ""), _ALIASES),
            caller.get_load(),
        )
        return self._page(
            "overview.html.jinja",
            info,
            runs=runs,
            active=[run for run in runs.items if not run.state.terminal],
            queue=load.runs[:_QUEUE],
            more_queued=len(load.runs[_QUEUE:]),
            replicas=load.replicas,
            aliases=aliases,
            versions=await _versions(caller, aliases.items),
            asked=asked,
        )

    async def run(self, request: Request) -> Response:
        """One run: progress, what it waits for, and its trials. Its charts are `findings`, loaded by the page."""
        caller, name = self._callers.of_cookie(request), run_name(request.path_params["run"])
        info, run = await caller.whoami(), await caller.get_run(name)
        trials = await caller.trials_page(name, request.query_params.get("trials", ""), _TRIALS)
        return self._page("run.html.jinja", info, run=run, trials=trials, asked=request.query_params)

    async def findings(self, request: Request) -> Response:
        """The charts of a run, as its report has them."""
        caller, name = self._callers.of_cookie(request), run_name(request.path_params["run"])
        info, run, report = await caller.whoami(), await caller.get_run(name), await caller.report(name)
        trials = await _latest_trials(caller, run)
        return self._page(
            "findings.html.jinja",
            info,
            run=run,
            report=report,
            splits=sections.splits(report.rows),
            rounds=sections.rounds(report.rows),
            forgetting=sections.forgetting(trials),
            continual=sections.continual(report.continual),
            legend=LEGEND,
            continual_legend=CONTINUAL_LEGEND,
            points=_POINTS,
            trials_ended=sum(report.trial_counts.values()),
        )

    async def trial(self, request: Request) -> Response:
        """One trial: its self-edit, what was trained on, its verdicts. Cut texts are whole with `?all=1`."""
        caller, at = self._callers.of_cookie(request), request.path_params
        info = await caller.whoami()
        one = await _whole(caller, trial_name(at["run"], at["round"], at["trial"]))
        limits = {"limits": _ALL} if request.query_params.get("all") else {}
        return self._page("trial.html.jinja", info, one=one, limits=limits)

    async def alias(self, request: Request) -> Response:
        """One alias: its version, health and history, and a form to ask it beside the base model."""
        caller = self._callers.of_cookie(request)
        info, alias = await caller.whoami(), await caller.get_alias(alias_name(request.path_params["alias"]))
        versions = await _versions(caller, [alias])
        return self._page("alias.html.jinja", info, alias=alias, versions=versions, tokens=self._ask_tokens)

    def _page(self, template: str, info: CallerInfo, **values: object) -> Response:
        return page(template, who=info, signed_in=self._callers.needs_token, **values)


async def _versions(caller: AsyncSealClient, aliases: Sequence[Alias]) -> dict[str, PolicyVersion | None]:
    """The policies that these aliases point to, by name; None for one that is gone."""

    async def get(name: str) -> PolicyVersion | None:
        try:
            return await caller.get_policy(name)
        except UnknownPolicy:
            return None

    names = list(dict.fromkeys(alias.policy for alias in aliases))
    return dict(zip(names, await gather_or_cancel(*map(get, names)), strict=True))


async def _latest_trials(caller: AsyncSealClient, run: Run) -> list[Trial]:
    """The trials of the latest rounds, at most `_POINTS`, without reruns."""
    found: list[Trial] = []
    rounds = [round_name(id_of(run.name), number) for number in range(run.progress.rounds_done, -1, -1)]
    for parent in [run.name] if run.progress.trials_total <= _POINTS else rounds:
        token, more = "", len(found) < _POINTS
        while more:
            trials = await caller.trials_page(parent, token, min(500, _POINTS - len(found)))
            found += [trial for trial in trials.items if trial.phase is not TrialPhase.RERUN]
            token, more = trials.next_token, bool(trials.next_token) and len(found) < _POINTS
    return found


async def _whole(caller: AsyncSealClient, name: str) -> WholeTrial:
    trial = await caller.get_trial(name)
    try:
        return WholeTrial(trial=trial, material=await caller.get_trial_material(name))
    except ConfigOutdated as error:
        return WholeTrial(trial=trial, without=error.message)
