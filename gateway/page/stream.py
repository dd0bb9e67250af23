"""Server-sent events of runs, from the controller's WatchRun: https://html.spec.whatwg.org/multipage/server-sent-events.html

An event's id holds the cursor of each run, so a browser that reconnects continues after the last one it got. A page
shows a run's last events, so it is not sent more of those that have passed when it connects.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response

from gateway.callers import Callers
from gateway.connection import EventStream
from gateway.errors import ApiError
from gateway.merging import merged
from gateway.page.render import trial_row
from gateway.page.views import MOST_WATCHED
from gateway.settings import GatewaySettings
from sealkit.client import AsyncSealClient
from sealkit.errors import SealError
from sealkit.names import run_name
from sealkit.report_page.event_lines import headline
from sealkit.resources import Event, RunStateChanged, RunWaiting, TrialFinished
from sealkit.shown import visible

log = structlog.get_logger(__name__)

_BATCH = 200
"""Events that are read ahead, and added up in one message."""
_SHOWN = 20
"""Lines and trials of a message."""
_LATEST = 30
"""Earlier events of a run that a page is told of: as many as it has lines for."""
_LINE_CHARACTERS = 1000
"""Of a line, and of what a run waits for."""
_PAUSE_SECONDS = 0.25
"""Between messages: what comes faster is added up."""
_BEAT_SECONDS = 2.0
"""After this silence a comment is sent, so that a client that is gone is noticed, and so is the end of the process."""
_RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_CURSORS = re.compile(rf"(?:{_RUN_ID.pattern}:\w+)(?: {_RUN_ID.pattern}:\w+)*")


class Events:
    """The route of the streams."""

    def __init__(self, callers: Callers, settings: GatewaySettings, stopping: asyncio.Event) -> None:
        self._callers = callers
        self._idle_seconds = settings.idle_seconds
        self._stopping = stopping

    async def stream(self, request: Request) -> Response:
        """`GET /live/events?run=a&run=b&after=CURSORS`: the runs' events until all have ended; of those that there are
        after the cursors, the latest, and those that say where the runs are."""
        caller = self._callers.of_cookie(request)
        runs = list(dict.fromkeys(request.query_params.getlist("run")))
        if not 0 < len(runs) <= MOST_WATCHED or not all(map(_RUN_ID.fullmatch, runs)):
            raise ApiError(400, f"name 1 to {MOST_WATCHED} runs: ?run=a&run=b", param="run", code="invalid_value")
        after = request.headers.get("last-event-id") or request.query_params.get("after", "")
        if after and not _CURSORS.fullmatch(after):
            raise ApiError(400, "after: not the id of an event", param="after", code="invalid_value")
        cursors = {run: cursor for run, _, cursor in (one.partition(":") for one in after.split()) if run in runs}
        for run in runs:
            await caller.get_run(run_name(run))
        return EventStream(self._messages(caller, runs, cursors), seconds=self._idle_seconds)

    async def _messages(
        self, caller: AsyncSealClient, runs: Sequence[str], cursors: dict[str, str]
    ) -> AsyncGenerator[bytes, None]:
        lost: list[str] = []
        streams = [
            caller.watch_run(
                run_name(run), cursors.get(run, ""), latest=_LATEST, on_wait=lambda error: lost.append(error.message)
            )
            for run in runs
        ]
        try:
            async with aclosing(merged(streams, most=_BATCH, seconds=_BEAT_SECONDS)) as batches:
                async for batch in batches:
                    if self._stopping.is_set():
                        return  # the browser connects again
                    for message in lost:
                        yield _message("lost", {"message": message})
                    lost.clear()
                    if not batch:
                        yield b":\n\n"
                        continue
                    for place, run in enumerate(runs):
                        if events := [event for number, event in batch if number == place]:
                            cursors[run] = events[-1].cursor
                            yield _message("run", _news(run, events), id_of=cursors)
                    if len(batch) < _BATCH:
                        await asyncio.sleep(_PAUSE_SECONDS)
            yield _message("ended", {})
        except SealError as error:
            log.info("stream of events broke", reason=error.reason, error=error.message)
            yield _message("failed", {"message": error.message})


def _news(run: str, events: Sequence[Event]) -> dict[str, Any]:
    """What the events of a run change on a page; at most `_SHOWN` lines and trials, the latest. A state ends earlier
    waits, whether or not an event says so: the process that waited may be gone."""
    progress = events[-1].progress
    states = [event.kind.state for event in events if isinstance(event.kind, RunStateChanged)]
    ended = [event.kind.trial for event in events if isinstance(event.kind, TrialFinished)]
    waits: dict[str, str] = {}
    for event in events:
        if isinstance(event.kind, RunStateChanged):
            waits.clear()
        elif isinstance(event.kind, RunWaiting):
            why = event.kind.error.message if event.kind.error else ""
            waits[visible(event.kind.doing)] = visible(why[:_LINE_CHARACTERS])
    lines = [f"{event.time:%H:%M:%S} {line}" for event in events if (line := headline(event))]
    return {
        "run": run_name(run),
        "stage": visible(progress.stage),
        "done": progress.trials_done,
        "total": progress.trials_total,
        "state": states[-1].value if states else "",
        "waits": waits,
        "lines": [visible(line[:_LINE_CHARACTERS]) for line in lines[-_SHOWN:]],
        "ended": len(ended),
        "rows": [trial_row(trial) for trial in ended[-_SHOWN:]],
    }


def _message(kind: str, data: Mapping[str, Any], *, id_of: Mapping[str, str] | None = None) -> bytes:
    """One message. `id_of`: the cursor of each run."""
    cursors = " ".join(f"{run}:{cursor}" for run, cursor in (id_of or {}).items())
    head = f"id: {cursors}\n" if cursors else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
