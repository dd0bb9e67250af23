"""Capacity: occupancy and throughput of trainers and decoders, and the cost of a kept self-edit."""

from deploy.grafana.panel import GREEN, RED, YELLOW, Board, Panel, Query, Row

_TRAINERS = '{job="seal-trainer"}'
"""Every process exports every metric; those of the other services are 0."""


def _gpu(expression: str) -> Query:
    """Every service on a node exports all its GPUs: one of them is enough."""
    return Query(f"max by (gpu, uuid) ({expression})", "GPU {{gpu}} {{uuid}}", needs="an NVIDIA GPU")


CAPACITY = Board(
    uid="seal-capacity",
    title="SEAL / Capacity",
    description="Occupancy, tokens per second, device seconds and cost.",
    by_run=True,
    rows=(
        Row(
            "Trainers",
            (
                Panel(
                    "Slots in use",
                    "Share of a trainer's slots with a job. Low while the queue is full: too few workers.",
                    "percentunit",
                    (Query(f"seal_trainer_slot_occupancy_ratio{_TRAINERS}", "{{instance}}"),),
                    low=0,
                    high=1,
                    first=RED,
                    steps=((0.25, YELLOW), (0.5, GREEN)),
                ),
                Panel(
                    "Jobs",
                    "Running and waiting jobs.",
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
                    "Tokens trained on per second, and engine steps per second.",
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
                    (Query(f"rate(seal_trainer_busy_seconds_total{_TRAINERS}[$__rate_interval])", "{{instance}}"),),
                    low=0,
                    high=1,
                ),
                Panel(
                    "Peak memory",
                    "Peak memory of the trainer: of the GPU's tensors, or of the process on a CPU.",
                    "bytes",
                    (Query(f"seal_trainer_peak_memory_bytes{_TRAINERS}", "{{instance}}"),),
                ),
            ),
        ),
        Row(
            "Decoding",
            (
                Panel(
                    "Decoding",
                    "Prompt and completion tokens per second of generators and evaluators.",
                    "short",
                    (
                        Query(
                            "sum by (job, kind) (rate(seal_decode_tokens_total[$__rate_interval]))", "{{job}} {{kind}}"
                        ),
                    ),
                ),
                Panel(
                    "Cache hits",
                    "Hit rate of the caches: baselines, divergences of policies, adapters in a decoder's memory,"
                    " trainings in the store.",
                    "percentunit",
                    (
                        Query(
                            'sum by (cache) (rate(seal_cache_lookups_total{result="hit"}[10m]))'
                            " / (sum by (cache) (rate(seal_cache_lookups_total[10m])) > 0)",
                            "{{cache}}",
                        ),
                    ),
                    low=0,
                    high=1,
                ),
                Panel(
                    "Prompt tokens read once",
                    "Share of the prompt tokens whose keys and values were copied from a row with the same prefix.",
                    "percentunit",
                    (
                        Query(
                            "clamp_max(sum by (job) (rate(seal_decode_reused_tokens_total[10m]))"
                            ' / (sum by (job) (rate(seal_decode_tokens_total{kind="prompt"}[10m])) > 0), 1)',
                            "{{job}}",
                        ),
                    ),
                    low=0,
                    high=1,
                ),
                Panel(
                    "Model judge",
                    "Verdicts per minute of the model judge. Hit: from the cache; ungraded: the judge failed.",
                    "short",
                    (
                        Query(
                            "60 * sum by (result) (rate(seal_judge_calls_total[$__rate_interval]))",
                            "{{result}}",
                            needs="the judge `model`",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "GPUs",
            (
                Panel(
                    "GPU utilisation",
                    "Share of recent time in which a GPU was busy, for all processes.",
                    "percentunit",
                    (_gpu("seal_gpu_utilisation_ratio"),),
                    low=0,
                    high=1,
                ),
                Panel(
                    "GPU memory",
                    "Share of a GPU's memory in use. Near 1 a training may not fit: it is split, then rejected.",
                    "percentunit",
                    (_gpu("seal_gpu_memory_used_bytes / seal_gpu_memory_total_bytes"),),
                    low=0,
                    high=1,
                    steps=((0.9, YELLOW), (0.97, RED)),
                ),
                Panel(
                    "GPU power",
                    "Power draw of a GPU.",
                    "watt",
                    (_gpu("seal_gpu_power_watts"),),
                ),
                Panel(
                    "GPU temperature",
                    "Temperature of the chip. It throttles itself when too hot; above 87 °C the alert fires.",
                    "celsius",
                    (_gpu("seal_gpu_temperature_celsius"),),
                    steps=((80, YELLOW), (87, RED)),
                ),
            ),
        ),
        Row(
            "Cost",
            (
                Panel(
                    "Device seconds by run",
                    "Device seconds of the run's trials. Jobs that ran together share them by tokens.",
                    "s",
                    (Query('max by (run) (seal_run_device_seconds{run=~"$run"})', "{{run}}"),),
                ),
                Panel(
                    "Device seconds for each kept self-edit",
                    "Cost of a self-edit that selection kept.",
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
                    "Prompt, completion and training tokens.",
                    "short",
                    (Query('max by (run, kind) (seal_run_tokens{run=~"$run"})', "{{run}} {{kind}}"),),
                ),
                Panel(
                    "Device seconds charged",
                    "Trainer time by result of the job; time for failed jobs is lost.",
                    "s",
                    (Query("sum by (result) (increase(seal_trainer_device_seconds_total[1h]))", "{{result}}"),),
                ),
            ),
        ),
    ),
)
