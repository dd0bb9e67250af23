"""Trials: duration of each stage, the queue, failures."""

from deploy.grafana.panel import RED, YELLOW, Board, Panel, Query, Row, quantiles

TRIALS = Board(
    uid="seal-trials",
    title="SEAL / Trials",
    description="Latency by stage, the queue, rejections and failures.",
    rows=(
        Row(
            "Latency",
            (
                Panel(
                    "Trial latency by stage, median",
                    "Duration of each stage of a trial: generate, train, evaluate.",
                    "s",
                    (
                        Query(
                            "histogram_quantile(0.5, sum by (le, stage)"
                            " (rate(seal_trial_seconds_bucket[$__rate_interval])))",
                            "{{stage}}",
                        ),
                    ),
                    width=8,
                ),
                Panel(
                    "Trial latency by stage, p95",
                    "95 % of the stages are faster.",
                    "s",
                    (
                        Query(
                            "histogram_quantile(0.95, sum by (le, stage)"
                            " (rate(seal_trial_seconds_bucket[$__rate_interval])))",
                            "{{stage}}",
                        ),
                    ),
                    width=8,
                ),
                Panel(
                    "Whole trials",
                    "From a trial's creation to its end: waiting, all stages, and earlier attempts.",
                    "s",
                    quantiles("seal_trial_whole_seconds"),
                    width=8,
                ),
                Panel(
                    "Trials per minute",
                    "Trials that ended, by state.",
                    "short",
                    (Query("60 * sum by (state) (rate(seal_trials_total[$__rate_interval]))", "{{state}}"),),
                ),
                Panel(
                    "Waiting in the trainer",
                    "From a job's arrival at the trainer to its slot.",
                    "s",
                    quantiles("seal_trainer_wait_seconds"),
                ),
            ),
        ),
        Row(
            "Queue",
            (
                Panel(
                    "Queue depth",
                    "Entries that are not yet acknowledged, and those of them not yet delivered to a worker (the lag).",
                    "short",
                    (
                        Query("max by (queue) (seal_queue_depth)", "{{queue}}"),
                        Query("max by (queue) (seal_queue_lag)", "{{queue}} lag"),
                    ),
                ),
                Panel(
                    "Age of the oldest",
                    "Waiting time of the oldest waiting trial. Above ten minutes the alert fires.",
                    "s",
                    (Query("max by (queue) (seal_queue_oldest_seconds)", "{{queue}}"),),
                    steps=((300, YELLOW), (600, RED)),
                ),
                Panel(
                    "Deliveries",
                    "Trials delivered to a worker: first, or again because a worker died or handed them back.",
                    "short",
                    (Query("60 * sum by (kind) (rate(seal_deliveries_total[$__rate_interval]))", "{{kind}}"),),
                ),
                Panel(
                    "Dead letters and late results",
                    "Trials given up after too many deliveries; results refused because another worker had the trial.",
                    "short",
                    (
                        Query("sum(increase(seal_dead_letters_total[1h]))", "dead letters"),
                        Query("sum(increase(seal_late_results_total[1h]))", "late results"),
                    ),
                    steps=((1, YELLOW),),
                ),
            ),
        ),
        Row(
            "Failures",
            (
                Panel(
                    "Rejections by reason",
                    "Self-edits that do not compile to a TrainingSpec. Many: the policy does not follow the format.",
                    "short",
                    (
                        Query(
                            "sum by (reason) (increase(seal_rejections_total[1h]))",
                            "{{reason}}",
                            needs="a rejected self-edit",
                        ),
                    ),
                ),
                Panel(
                    "Share of trials that fail",
                    "Failed trials as a share of all that ended, over ten minutes. Above one in ten the alert fires.",
                    "percentunit",
                    (
                        Query(
                            '(sum(rate(seal_trials_total{state="failed"}[10m])) or vector(0))'
                            " / (sum(rate(seal_trials_total[10m])) > 0)",
                            "failed",
                        ),
                    ),
                    low=0,
                    high=1,
                    steps=((0.02, YELLOW), (0.1, RED)),
                ),
                Panel(
                    "Ungraded share",
                    "Answers on which the judge failed. They count as unknown, never as incorrect.",
                    "percentunit",
                    (
                        Query(
                            '(sum(rate(seal_answers_total{outcome="ungraded"}[10m])) or vector(0))'
                            " / (sum(rate(seal_answers_total[10m])) > 0)",
                            "ungraded",
                        ),
                    ),
                    low=0,
                    high=1,
                    steps=((0.05, YELLOW), (0.2, RED)),
                ),
                Panel(
                    "Selection",
                    "Self-edits that selection kept and dropped.",
                    "short",
                    (Query("sum by (result) (increase(seal_selection_trials_total[1h]))", "{{result}}"),),
                ),
            ),
        ),
    ),
)
