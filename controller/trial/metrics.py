"""The worker's Prometheus metrics."""

from __future__ import annotations

from controller.db.attempts import Untaken
from sealkit.observability.metrics import (
    DEAD_LETTERS,
    DELIVERIES,
    FORGETTING,
    GAIN,
    LATE_RESULTS,
    QUEUE_DEPTH,
    QUEUE_LAG,
    QUEUE_OLDEST,
    REJECTIONS,
    REWARD,
    TRIAL_SECONDS,
    TRIAL_WHOLE_SECONDS,
    TRIALS,
)
from sealkit.queue import Delivery, Depth
from sealkit.resources import Trial, TrialState


def count_delivery(delivery: Delivery) -> None:
    """Counts a delivery, first or repeated."""
    DELIVERIES.labels("first" if delivery.previous is None else "again").inc()


def count_trial(trial: Trial) -> None:
    """Records a trial that ended."""
    TRIALS.labels(trial.state.value).inc()
    for stage, seconds in trial.stage_seconds.items():
        TRIAL_SECONDS.labels(stage).observe(seconds)
    if trial.end_time is not None:
        # Two processes may have written the two times, so only the wall clock can tell; it may have been set back.
        TRIAL_WHOLE_SECONDS.observe(max(0.0, (trial.end_time - trial.create_time).total_seconds()))
    if trial.state is TrialState.REJECTED:
        REJECTIONS.labels(trial.rejection.partition(":")[0]).inc()
    if trial.reward is not None:
        REWARD.observe(trial.reward)
    if trial.accuracy is not None and trial.baseline_accuracy is not None:
        GAIN.observe(trial.accuracy - trial.baseline_accuracy)
    if trial.forgetting is not None:
        FORGETTING.observe(trial.forgetting)


def count_untaken(why: Untaken) -> None:
    """Counts a delivered trial that was not started."""
    if why is Untaken.DEAD_LETTER:
        DEAD_LETTERS.inc()
        TRIALS.labels(TrialState.FAILED.value).inc()


def count_late() -> None:
    """Counts a result that came after the trial was taken over or had ended."""
    LATE_RESULTS.inc()


def show_depth(depth: Depth) -> None:
    """Sets the depth of the queue."""
    QUEUE_DEPTH.labels("trials").set(depth.waiting + depth.under_way)
    QUEUE_LAG.labels("trials").set(depth.waiting)
    QUEUE_OLDEST.labels("trials").set(depth.oldest_seconds)
