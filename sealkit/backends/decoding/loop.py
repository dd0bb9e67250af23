"""The single thread that owns the model and runs the engine, and its bounded queue."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import structlog

from sealkit.backends.decoding.engine import Engine, Left
from sealkit.backends.decoding.row import Row
from sealkit.errors import QueueFull, SealError, Unavailable

_log = structlog.get_logger(__name__)
_MOST_RETRY_SECONDS = 60.0
T = TypeVar("T")


class DecodeLoop:
    """Rows are submitted from any thread; their futures complete in the order in which the rows end. Tasks (other
    work on the model) run between two steps, one at a time."""

    def __init__(self, make_engine: Callable[[], Engine], *, max_waiting: int) -> None:
        self._make_engine = make_engine
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._futures: dict[Row, Future[Row]] = {}
        self._tasks: deque[tuple[Callable[[Engine], Any], Future[Any]]] = deque()
        self._refusal: SealError | None = None
        self._done = 0
        self._busy_seconds = 0.0
        self._ready: Future[None] = Future()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)

    def start(self) -> Future[None]:
        """Starts the thread; the future completes when the model is in memory, or fails with the reason."""
        self._ready.set_running_or_notify_cancel()  # a cancelled start must not break the thread
        self._thread.start()
        return self._ready

    @property
    def ended(self) -> Future[None]:
        """Completes when the thread ends: after `close`, or with the error that it died of."""
        return self._ended

    @property
    def rows(self) -> tuple[int, int]:
        """How many rows decode, and how many wait."""
        with self._changed:
            return len(self._futures) - len(self._waiting), len(self._waiting)

    def submit(self, row: Row) -> Future[Row]:
        """Queues a row; one with `on_token` before all without. Cancelling the future frees it. Raises QueueFull, and
        Unavailable after `close`."""
        with self._changed:
            if self._refusal is not None:
                raise self._refusal
            if len(self._waiting) >= self._max_waiting:
                raise self._full()
            future: Future[Row] = Future()
            self._futures[row] = future
            if row.on_token is None:
                self._waiting.append(row)
            else:
                self._waiting.insert(sum(other.on_token is not None for other in self._waiting), row)
            self._changed.notify()
        return future

    def do(self, task: Callable[[Engine], T]) -> Future[T]:
        """Runs `task` in the thread; the future gets its result, or what it raises as a SealError. Cancelling the
        future before its turn drops it. Raises Unavailable after `close`."""
        with self._changed:
            if self._refusal is not None:
                raise self._refusal
            future: Future[T] = Future()
            self._tasks.append((task, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Rejects waiting rows, finishes running ones, ends the thread. Blocks."""
        with self._changed:
            self._refusal = self._refusal or Unavailable(
                "the decoder is shutting down; retry at another replica or later"
            )
            refused = [self._futures.pop(row) for row in self._waiting] + [future for _, future in self._tasks]
            self._waiting.clear()
            self._tasks.clear()
            self._changed.notify()
        _fail(refused, self._refusal)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        fault: Exception | None = None
        try:
            engine = self._make_engine()
            self._ready.set_result(None)
            while self._wait(engine):
                began = time.perf_counter()
                self._turn(engine)
                self._busy_seconds += time.perf_counter() - began
        except BaseException as error:  # noqa: BLE001 - a thread has no caller: any error goes to everyone who waits
            fault = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
        self._end(fault)

    def _end(self, fault: Exception | None) -> None:
        """Last step of the thread: every waiting caller gets an answer."""
        if not self._ready.done():
            self._ready.set_exception(fault or Unavailable("the decoder was closed before it was ready"))
        elif fault is not None:
            _log.critical("decoder_stopped", exc_info=fault)
        with self._changed:
            if fault is not None:
                self._refusal = Unavailable(
                    f"the decoder stopped: {type(fault).__name__}: {fault}; see its log, restart the service"
                )
            left = list(self._futures.values()) + [future for _, future in self._tasks]
            self._futures.clear()
            self._waiting.clear()
            self._tasks.clear()
        if self._refusal is not None:
            _fail(left, self._refusal)
        self._ended.set_running_or_notify_cancel()
        if fault is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(fault)

    def _wait(self, engine: Engine) -> bool:
        """Waits until there is work; False once the loop is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._tasks or self._refusal or engine.running)
            return bool(self._waiting or self._tasks or engine.running)

    def _turn(self, engine: Engine) -> None:
        self._run_task(engine)
        if joining := self._next(engine):
            self._settle(engine.admit(joining))
        if engine.running:
            self._settle(engine.step())
        for row in engine.running:
            if (on_token := row.on_token) is not None:  # a caller that leaves removes it at any moment
                on_token(len(row.tokens))

    def _run_task(self, engine: Engine) -> None:
        with self._changed:
            task, future = self._tasks.popleft() if self._tasks else (None, Future())
        if task is None or not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(task(engine))
        except SealError as fault:
            future.set_exception(fault)
        except BaseException as fault:  # noqa: BLE001 - the task's own, if the engine goes on
            _log.warning("task_failed", exc_info=fault)
            try:
                error: SealError = engine.fault_of_one(fault)
            except BaseException:
                future.set_exception(Unavailable(f"the decoder stopped: {type(fault).__name__}: {fault}"))
                raise
            future.set_exception(error)

    def _next(self, engine: Engine) -> list[Row]:
        """Drops cancelled rows; returns those that join now, in order of arrival."""
        joining: list[Row] = []
        with self._changed:
            cancelled = {row for row, future in self._futures.items() if future.cancelled()}
            for row in cancelled:
                del self._futures[row]
            if cancelled:
                engine.drop(cancelled)
                self._waiting = deque(row for row in self._waiting if row not in cancelled)
            if engine.free < min(engine.join_rows, len(self._waiting)):
                return []
            while self._waiting and len(joining) < engine.free and engine.fits(self._waiting[0], joining):
                joining.append(self._waiting.popleft())
        return joining

    def _settle(self, left: list[Left]) -> None:
        with self._changed:
            futures = [self._futures.pop(one.row, None) for one in left]
        self._done += len(left)
        for one, future in zip(left, futures, strict=True):
            # From here on the future cannot be cancelled; until here it could be at any moment.
            if future is None or not future.set_running_or_notify_cancel():
                continue
            if one.fault is not None:
                future.set_exception(one.fault)
            else:
                future.set_result(one.row)

    def _full(self) -> QueueFull:
        a_row = self._busy_seconds / self._done if self._done else 1.0
        seconds = min(max(1.0, a_row * len(self._waiting) / 4), _MOST_RETRY_SECONDS)
        return QueueFull(
            f"{len(self._waiting)} rows wait for the decoder already, which is its limit; try again in {seconds:.0f} s",
            retry_after=seconds,
        )


def _fail(futures: Sequence[Future[Any]], fault: SealError) -> None:
    for future in futures:
        if future.set_running_or_notify_cancel():
            future.set_exception(fault)
