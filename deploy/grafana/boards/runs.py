"""Runs: gain of self-edits, which are kept, and their forgetting."""

from deploy.grafana.panel import RED, YELLOW, Board, Link, Panel, Query, Row

_RUN = '{run=~"$run"}'


def _newest(family: str, labels: str = "run", where: str = _RUN) -> str:
    """Replicas of the API export the same; one of them is enough."""
    return f"max by ({labels}) ({family}{where})"


RUNS = Board(
    uid="seal-runs",
    title="SEAL / Runs",
    description="Reward, gain and acceptance by round and run, and gain against retention.",
    by_run=True,
    reports=True,
    rows=(
        Row(
            "Now",
            (
                Panel(
                    "Runs by state",
                    "Number of runs in each state. A run that is queued for long has no worker.",
                    "short",
                    (Query("max by (state) (seal_runs)", "{{state}}"),),
                    kind="stat",
                    width=8,
                    height=5,
                ),
                Panel(
                    "Progress",
                    "Trials that have ended, as a share of those planned.",
                    "percentunit",
                    (Query(_newest("seal_run_progress_ratio"), "{{run}}"),),
                    width=8,
                    height=5,
                    low=0,
                    high=1,
                ),
                Panel(
                    "Progress by round",
                    "Trials of a round that have ended, as a share of those created so far.",
                    "percentunit",
                    (Query(_newest("seal_run_round_progress_ratio", "run, round"), "{{run}} round {{round}}"),),
                    width=8,
                    height=5,
                    low=0,
                    high=1,
                ),
                Panel(
                    "Policy version",
                    "Version (number of M-steps or commits) of a run's newest policy that was not refused.",
                    "short",
                    (Query(_newest("seal_run_policy_version"), "{{run}}"),),
                    width=12,
                    height=5,
                    low=0,
                ),
                Panel(
                    "Since the last trial ended",
                    "Seconds since the last trial ended, in running runs. Above 15 minutes the alert fires.",
                    "s",
                    (
                        Query(
                            f"(time() - {_newest('seal_run_last_change_timestamp_seconds')})"
                            f" * {_newest('seal_run_active')}",
                            "{{run}}",
                        ),
                    ),
                    width=12,
                    height=5,
                    steps=((300, YELLOW), (900, RED)),
                ),
                Panel(
                    "Runs",
                    "The newest runs. A run's name links to its report (written by `seal report`, served where the"
                    " field `reports at` says) and to what it forgot.",
                    "percentunit",
                    (
                        Query(_newest("seal_run_progress_ratio"), "progress"),
                        Query(_newest("seal_run_rounds_done"), "rounds", unit="short"),
                        Query(_newest("seal_run_policy_version"), "policy version", unit="short"),
                        Query(_newest("seal_run_policy_held_out_accuracy"), "best held-out accuracy"),
                        Query(_newest("seal_run_policy_forgetting"), "most forgotten by a policy"),
                        Query(_newest("seal_run_device_seconds"), "device time", unit="s"),
                    ),
                    kind="table",
                    width=24,
                    links=(
                        Link("run", "Report", "${reports:raw}/report-${__value.raw}.html"),
                        Link("run", "Forgetting", "/d/seal-forgetting?var-run=${__value.raw}"),
                    ),
                ),
            ),
        ),
        Row(
            "Do self-edits help",
            (
                Panel(
                    "Reward by round",
                    "Mean reward of a round's self-edits: gain minus weighted forgetting and divergence.",
                    "percentunit",
                    (Query(_newest("seal_run_reward_mean", "run, round"), "{{run}} round {{round}}"),),
                ),
                Panel(
                    "Gain by round",
                    "Mean accuracy with the adapter, minus that of the policy without it.",
                    "percentunit",
                    (Query(_newest("seal_run_gain_mean", "run, round"), "{{run}} round {{round}}"),),
                ),
                Panel(
                    "Acceptance by round",
                    "Share of a round's self-edits that selection kept. Near 0 the policy learns nothing.",
                    "percentunit",
                    (Query(_newest("seal_run_acceptance_ratio", "run, round"), "{{run}} round {{round}}"),),
                    low=0,
                    high=1,
                ),
                Panel(
                    "Gain against retention",
                    "A point for each round: its mean gain to the right, 1 minus its mean forgetting upwards. The best"
                    " are at the top right; run and round are in the tooltip.",
                    "percentunit",
                    (
                        Query(_newest("seal_run_gain_mean", "run, round"), "gain"),
                        Query(f"1 - {_newest('seal_run_forgetting_mean', 'run, round')}", "retention"),
                    ),
                    kind="xy",
                ),
                Panel(
                    "Policies on held-out contexts",
                    "Accuracy of each policy version's self-edits on contexts that it was never trained on.",
                    "percentunit",
                    (
                        Query(
                            _newest("seal_run_policy_held_out_accuracy", "run, version"), "{{run}} version {{version}}"
                        ),
                    ),
                    low=0,
                    high=1,
                ),
                Panel(
                    "Trials by state",
                    "Trials by state. Rejected: the self-edit was not usable. Failed: see the Trials board.",
                    "short",
                    (Query(f"{_newest('seal_run_trials', 'run, state')} > 0", "{{run}} {{state}}"),),
                ),
            ),
        ),
        Row(
            "Rewards of single trials",
            (
                Panel(
                    "Reward distribution",
                    "Distribution of trial rewards over time.",
                    "percentunit",
                    (Query("sum by (le) (increase(seal_reward_bucket[$__rate_interval]))", "{{le}}"),),
                    kind="heatmap",
                ),
                Panel(
                    "Gain distribution",
                    "Distribution of trial gains over time.",
                    "percentunit",
                    (Query("sum by (le) (increase(seal_gain_bucket[$__rate_interval]))", "{{le}}"),),
                    kind="heatmap",
                ),
            ),
        ),
    ),
)
