"""Capacity: how full trainers and decoders are, what they do in a second, and what a kept self-edit costs."""

from deploy.grafana.panel import GREEN, RED, YELLOW, Board, Panel, Query, Row

CAPACITY = Board(
    uid="seal-capacity",
    title="SEAL / Capacity",
    description="Occupancy, tokens a second, device seconds and cost.",
    by_run=True,
    rows=(
        Row(
            "Trainers",
            (
                Panel(
                    "Slots in use",
                    "Share of a trainer's slots that hold a job. Low while the queue is full: workers are too few.",
                    "percentunit",
                    (Query("seal_trainer_slot_occupancy_ratio", "{{instance}}"),),
                    low=0,
                    high=1,
                    first=RED,
                    steps=((0.25, YELLOW), (0.5, GREEN)),
                ),
                Panel(
                    "Jobs",
                    "Jobs that train and jobs that wait.",
                    "short",
                    (Query("sum by (state) (seal_trainer_jobs)", "{{state}}"),),
                ),
                Panel(
                    "Step occupancy",
                    "Median share of a step's token budget that a step used.",
                    "percentunit",
                    (
                        Query(
                            "histogram_quantile(0.5, sum by (le)"
                            " (rate(seal_trainer_step_occupancy_ratio_bucket[$__rate_interval])))",
                            "median",
                        ),
                    ),
                    low=0,
                    high=1,
                ),
                Panel(
                    "Training",
                    "Tokens trained on in a second, and optimiser passes.",
                    "short",
                    (
                        Query("sum(rate(seal_train_tokens_total[$__rate_interval]))", "tokens/s"),
                        Query("sum(rate(seal_trainer_steps_total[$__rate_interval]))", "steps/s"),
                    ),
                ),
                Panel(
                    "Busy share",
                    "Share of the time in which a trainer had jobs.",
                    "percentunit",
                    (Query("rate(seal_trainer_busy_seconds_total[$__rate_interval])", "{{instance}}"),),
                    low=0,
                    high=1,
                ),
                Panel(
                    "Peak memory",
                    "High water of the trainer: of the GPU's tensors, or of the process on a CPU.",
                    "bytes",
                    (Query("seal_trainer_peak_memory_bytes", "{{instance}}"),),
                ),
            ),
        ),
        Row(
            "Decoding",
            (
                Panel(
                    "Decoding",
                    "Tokens read and sampled in a second by generators and evaluators.",
                    "short",
                    (
                        Query(
                            "sum by (job, kind) (rate(seal_decode_tokens_total[$__rate_interval]))", "{{job}} {{kind}}"
                        ),
                    ),
                ),
                Panel(
                    "Baselines from the cache",
                    "Share of the baselines that were known already.",
                    "percentunit",
                    (
                        Query(
                            '(sum(rate(seal_baseline_lookups_total{result="hit"}[10m])) or vector(0))'
                            " / (sum(rate(seal_baseline_lookups_total[10m])) > 0)",
                            "hits",
                        ),
                    ),
                    low=0,
                    high=1,
                ),
            ),
        ),
        Row(
            "Cost",
            (
                Panel(
                    "Device seconds by run",
                    "What the run's trials took, attributed by share of the tokens where jobs ran together.",
                    "s",
                    (Query('max by (run) (seal_run_device_seconds{run=~"$run"})', "{{run}}"),),
                ),
                Panel(
                    "Device seconds for each kept self-edit",
                    "What a self-edit costs that helped.",
                    "s",
                    (
                        Query(
                            'max by (run) (seal_run_device_seconds_per_accepted{run=~"$run"})',
                            "{{run}}",
                            needs="a self-edit that was kept",
                        ),
                    ),
                ),
                Panel(
                    "Tokens by run",
                    "Tokens read, sampled and trained on.",
                    "short",
                    (Query('max by (run, kind) (seal_run_tokens{run=~"$run"})', "{{run}} {{kind}}"),),
                ),
                Panel(
                    "Device seconds charged",
                    "Trainer time by how the job ended: time spent on jobs that failed is lost.",
                    "s",
                    (Query("sum by (result) (increase(seal_trainer_device_seconds_total[1h]))", "{{result}}"),),
                ),
            ),
        ),
    ),
)
