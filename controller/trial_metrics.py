"""What the worker tells Prometheus."""

from __future__ import annotations

from sealkit.queue import Delivery, Depth
from sealkit.resources import Trial, TrialState
from sealkit.telemetry import DELIVERIES, FORGETTING, GAIN, QUEUE_DEPTH, REJECTIONS, REWARD, TRIAL_SECONDS, TRIALS


def count_delivery(delivery: Delivery) -> None:
    """A message came, for the first time or after its worker was lost."""
    DELIVERIES.labels("first" if delivery.previous is None else "again").inc()


def count_trial(trial: Trial) -> None:
    """A trial ended."""
    TRIALS.labels(trial.state.value).inc()
    for stage, seconds in trial.stage_seconds.items():
        TRIAL_SECONDS.labels(stage).observe(seconds)
    if trial.state is TrialState.REJECTED:
        REJECTIONS.labels(trial.rejection.partition(":")[0]).inc()
    if trial.reward is not None:
        REWARD.observe(trial.reward)
    if trial.accuracy is not None and trial.baseline_accuracy is not None:
        GAIN.observe(trial.accuracy - trial.baseline_accuracy)
    if trial.forgetting is not None:
        FORGETTING.observe(trial.forgetting)


def show_depth(depth: Depth) -> None:
    """How full the queue is."""
    QUEUE_DEPTH.labels("trials").set(depth.waiting + depth.under_way)
