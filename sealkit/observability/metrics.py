"""Metrics of the suite. All Prometheus metrics are declared here: units in the names, labels bounded."""

from __future__ import annotations

import shutil
from math import nan
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000)
_LONG = (0.1, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
_SHARE = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
_NATS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
_DIFFERENCE = (-1, -0.75, -0.5, -0.25, -0.1, -0.05, 0, 0.05, 0.1, 0.25, 0.5, 0.75, 1)

# --- gRPC (filled by sealkit.rpc) -------------------------------------------------------------------------------------
GRPC_REQUESTS = Counter("seal_grpc_requests_total", "Calls handled.", ("method", "code"))
GRPC_SECONDS = Histogram("seal_grpc_seconds", "Duration of a call in seconds.", ("method",), buckets=_SECONDS)
CALLERS_REFUSED = Counter(
    "seal_callers_refused_total", "Calls refused by the interceptor: caller unknown, permission, limit.", ("reason",)
)

# --- every service ----------------------------------------------------------------------------------------------------
CERTIFICATE_EXPIRY = Gauge("seal_certificate_expiry_timestamp_seconds", "When the service's own certificate expires.")
DISK_FREE = Gauge("seal_disk_free_ratio", "Free share of the disk of a volume.", ("volume",))
"""`volume`: store (adapters) or database (SQLite)."""
CACHE_LOOKUPS = Counter("seal_cache_lookups_total", "Cache lookups.", ("cache", "result"))
"""`cache`: baseline (verdicts), divergence, adapter (in the decoder's memory) or training (the store). `result`: hit or
miss. A judge's verdicts are in `seal_judge_calls_total`."""
ROUTED_PROMPTS = Counter("seal_routed_prompts_total", "Prompts to routed policies.", ("to",))
"""`to`: adapter (the prompt is about one of the policy's passages) or base."""

# --- controller -------------------------------------------------------------------------------------------------------
TRIALS = Counter("seal_trials_total", "Trials that ended.", ("state",))
REJECTIONS = Counter("seal_rejections_total", "Self-edits rejected.", ("reason",))
TRIAL_SECONDS = Histogram("seal_trial_seconds", "Duration of a trial's stage in seconds.", ("stage",), buckets=_SECONDS)
TRIAL_WHOLE_SECONDS = Histogram(
    "seal_trial_whole_seconds",
    "Seconds from a trial's creation to its end, waiting and earlier attempts included.",
    buckets=_LONG,
)
REWARD = Histogram("seal_reward", "Reward of a trial.", buckets=_DIFFERENCE)
GAIN = Histogram("seal_gain", "Accuracy with the adapter minus the baseline's.", buckets=_DIFFERENCE)
FORGETTING = Histogram("seal_forgetting", "Retention accuracy before minus after.", buckets=_DIFFERENCE)
SELECTED = Counter("seal_selection_trials_total", "Trials that selection decided on.", ("result",))
"""`result`: kept or dropped."""
GATE = Counter("seal_gate_decisions_total", "Decisions of the gate on new policies.", ("decision",))
"""`decision`: passed, refused or unmeasured."""
QUEUE_DEPTH = Gauge("seal_queue_depth", "Entries not yet acknowledged.", ("queue",))
QUEUE_LAG = Gauge("seal_queue_lag", "Entries not yet delivered to a worker.", ("queue",))
QUEUE_OLDEST = Gauge("seal_queue_oldest_seconds", "Age of the oldest entry not yet delivered to a worker.", ("queue",))
DEAD_LETTERS = Counter("seal_dead_letters_total", "Trials given up after too many deliveries.")
LATE_RESULTS = Counter(
    "seal_late_results_total", "Results refused by the fence: another worker had the trial, or it had ended."
)
DELIVERIES = Counter("seal_deliveries_total", "Entries delivered to a worker.", ("kind",))
"""`kind`: first, or again (its worker died or handed it back)."""
ANSWER_REQUESTS = Counter(
    "seal_answer_requests_total",
    "Answers that were asked for, by result: OK or an error's reason.",
    ("model", "result"),
)
ANSWER_FIRST_SECONDS = Histogram(
    "seal_answer_first_seconds",
    "Seconds from a request to the first piece of its answer.",
    ("model",),
    buckets=_SECONDS,
)
ANSWER_SECONDS = Histogram(
    "seal_answer_seconds", "Seconds from a request to the end of its answer.", ("model",), buckets=_SECONDS
)
ANSWER_TOKENS = Counter("seal_answer_tokens_total", "Tokens of whole answers.", ("model", "kind"))
"""`model`: base or alias. `kind`: prompt or completion."""

# --- HTTP service -----------------------------------------------------------------------------------------------------
HTTP_REQUESTS = Counter("seal_http_requests_total", "HTTP requests answered, by route and status.", ("route", "status"))
HTTP_SECONDS = Histogram(
    "seal_http_seconds", "Seconds to the end of an HTTP response, streams included.", ("route",), buckets=_SECONDS
)
HTTP_OPEN = Gauge("seal_http_open_requests", "HTTP requests that are being answered.")

# --- runs, from the database (controller.db.run_metrics) -------------------------------------------------------------
RUN_GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "seal_runs": ("Runs by state.", ("state",)),
    "seal_run_active": ("1 while the run is running.", ("run",)),
    "seal_run_progress_ratio": ("Trials that have ended, divided by trials planned.", ("run",)),
    "seal_run_rounds_done": ("Rounds done.", ("run",)),
    "seal_run_round_progress_ratio": ("Trials of a round that have ended, divided by those created.", ("run", "round")),
    "seal_run_policy_version": ("Version of the run's newest policy: its number of M-steps or commits.", ("run",)),
    "seal_run_last_change_timestamp_seconds": ("When a trial of the run last ended.", ("run",)),
    "seal_run_trials": ("Trials of the run by state.", ("run", "state")),
    "seal_run_reward_mean": ("Mean reward of a round's self-edits.", ("run", "round")),
    "seal_run_gain_mean": ("Mean gain of a round's self-edits.", ("run", "round")),
    "seal_run_forgetting_mean": ("Mean forgetting of a round's trial adapters.", ("run", "round")),
    "seal_run_acceptance_ratio": ("Share of a round's self-edits that selection kept.", ("run", "round")),
    "seal_run_device_seconds": ("Device seconds of the run's trials.", ("run",)),
    "seal_run_device_seconds_per_accepted": ("Device seconds for each self-edit kept.", ("run",)),
    "seal_run_tokens": ("Tokens of the run's trials.", ("run", "kind")),
    "seal_run_policy_forgetting": ("Forgetting of a policy against the base model.", ("run", "version")),
    "seal_run_policy_retention": ("Retention accuracy of a policy.", ("run", "version")),
    "seal_run_policy_lost_queries": (
        "Retention queries that a policy no longer answers correctly.",
        ("run", "version"),
    ),
    "seal_run_policy_kl_to_base": ("KL(base || policy) on the fixed text, nats a token.", ("run", "version")),
    "seal_run_policy_held_out_accuracy": ("Held-out accuracy of a policy's self-edits.", ("run", "version")),
    "seal_run_continual_accuracy": ("R[i,j]: accuracy on context j after commit i.", ("run", "commit", "context")),
}
"""Name: help and labels. `run` is one of the newest runs only."""

# --- trainer ----------------------------------------------------------------------------------------------------------
TRAINER_JOBS = Gauge("seal_trainer_jobs", "Jobs in the trainer.", ("state",))
"""`state`: running or waiting."""
TRAINER_JOBS_ENDED = Counter("seal_trainer_jobs_ended_total", "Jobs that ended.", ("result",))
"""`result`: trained, cached, cancelled, or the reason of the error."""
TRAIN_TOKENS = Counter("seal_train_tokens_total", "Tokens trained on, counted in every epoch.")
TRAINER_STEPS = Counter("seal_trainer_steps_total", "Engine steps: one forward and backward for all jobs in the step.")
TRAINER_SLOT_OCCUPANCY = Gauge("seal_trainer_slot_occupancy_ratio", "Share of the slots that hold a job.")
TRAINER_STEP_OCCUPANCY = Histogram(
    "seal_trainer_step_occupancy_ratio",
    "Tokens of a step, divided by its token budget; over 1: one large micro-batch.",
    buckets=_SHARE,
)
TRAINER_WAIT_SECONDS = Histogram(
    "seal_trainer_wait_seconds", "Seconds from a job's arrival to its slot.", buckets=_SECONDS
)
TRAINER_TRAIN_SECONDS = Histogram(
    "seal_trainer_train_seconds", "Seconds from a job's slot to its end.", buckets=_SECONDS
)
TRAINER_DEVICE_SECONDS = Counter("seal_trainer_device_seconds_total", "Device seconds charged to jobs.", ("result",))
"""`result`: trained, or the reason of the error. Together they are the engine's busy seconds."""
TRAINER_BUSY_SECONDS = Counter("seal_trainer_busy_seconds_total", "Seconds in which the engine had jobs.")
TRAINER_PEAK_MEMORY = Gauge("seal_trainer_peak_memory_bytes", "Peak memory of the GPU's tensors, or of the process.")

# --- generator and evaluator ------------------------------------------------------------------------------------------
DECODE_TOKENS = Counter("seal_decode_tokens_total", "Prompt tokens read and completion tokens sampled.", ("kind",))
"""`kind`: prompt or completion."""
DECODE_REUSED_TOKENS = Counter(
    "seal_decode_reused_tokens_total", "Prompt tokens whose keys and values were copied from another row."
)
DECODE_BATCH_VARIANT_RATE = Gauge(
    "seal_decode_batch_variant_ratio", "Share of texts that depend on their batch; 0: none, by design."
)
ANSWERS = Counter("seal_answers_total", "Answers judged; ungraded: the judge failed.", ("outcome",))
JUDGE_CALLS = Counter("seal_judge_calls_total", "Answers given to a model judge.", ("result",))
"""`result`: hit (cached verdict), yes, no, or ungraded."""
JUDGE_TOKENS = Counter("seal_judge_tokens_total", "Tokens of a model judge.", ("kind",))
"""`kind`: prompt or completion."""
RETENTION_ACCURACY = Histogram(
    "seal_retention_accuracy", "Accuracy on the retention suite with the adapter.", buckets=_SHARE
)
KL_TO_BASE = Histogram("seal_kl_to_base", "KL(base || subject) in nats a token.", ("where",), buckets=_NATS)
"""`where`: queries (their prompts) or fixed_text."""
EARLY_STOPS = Counter("seal_early_stops_total", "Evaluations with early stopping.", ("result",))
"""`result`: stopped or finished."""

# --- GPUs, from NVML (sealkit.observability.gpu) ----------------------------------------------------------------------
GPU_GAUGES: dict[str, str] = {
    "seal_gpu_utilisation_ratio": "Share of recent time in which the GPU was busy.",
    "seal_gpu_memory_used_bytes": "Memory in use, of all processes.",
    "seal_gpu_memory_total_bytes": "Total memory.",
    "seal_gpu_power_watts": "Power draw of the GPU.",
    "seal_gpu_temperature_celsius": "Temperature of the chip.",
}
"""Name: help. Labels: `gpu` (NVML's index) and `uuid`."""


def _begin_at_zero() -> None:
    """Prometheus does not count a series' first sample as an increase, so counters with few known labels start at 0."""
    known = {
        TRIALS: ("succeeded", "rejected", "failed"),
        SELECTED: ("kept", "dropped"),
        GATE: ("passed", "refused", "unmeasured"),
        DELIVERIES: ("first", "again"),
        EARLY_STOPS: ("stopped", "finished"),
    }
    for counter, values in known.items():
        for value in values:
            counter.labels(value)


_begin_at_zero()


def watch_disk(volume: str, folder: Path) -> None:
    """Exports the free share of the disk under `folder`; NaN once the folder no longer exists."""

    def free() -> float:
        try:
            usage = shutil.disk_usage(folder)
        except OSError:
            return nan
        return usage.free / usage.total

    DISK_FREE.labels(volume).set_function(free)
