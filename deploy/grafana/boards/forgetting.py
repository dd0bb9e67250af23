"""Forgetting: what learning costs, of trials, policies and commits."""

from deploy.grafana.panel import GREEN, RED, YELLOW, Board, Panel, Query, Row

_RUN = '{run=~"$run"}'
_LIMIT = ((0.1, YELLOW), (0.25, RED))

FORGETTING = Board(
    uid="seal-forgetting",
    title="SEAL / Forgetting",
    description="Retention, divergence from the base model, the matrix R and lost queries.",
    by_run=True,
    rows=(
        Row(
            "Trial adapters",
            (
                Panel(
                    "Forgetting of trials",
                    "Retention accuracy before minus after: the median trial, and the 90th percentile.",
                    "percentunit",
                    (
                        Query(
                            "histogram_quantile(0.5, sum by (le) (rate(seal_forgetting_bucket[$__rate_interval])))",
                            "median",
                        ),
                        Query(
                            "histogram_quantile(0.9, sum by (le) (rate(seal_forgetting_bucket[$__rate_interval])))",
                            "p90",
                        ),
                    ),
                    steps=_LIMIT,
                ),
                Panel(
                    "Retention accuracy",
                    "Accuracy on the retention suite after an update; each query was answered correctly before.",
                    "percentunit",
                    (
                        Query(
                            "histogram_quantile(0.5, sum by (le)"
                            " (rate(seal_retention_accuracy_bucket[$__rate_interval])))",
                            "median",
                        ),
                        Query(
                            "sum(rate(seal_retention_accuracy_sum[5m]))"
                            " / (sum(rate(seal_retention_accuracy_count[5m])) > 0)",
                            "mean",
                        ),
                    ),
                    low=0,
                    high=1,
                ),
                Panel(
                    "KL to the base model",
                    "KL(base || adapted) in nats per token, on the context's prompts and on a fixed text.",
                    "none",
                    (
                        Query(
                            "sum by (where) (rate(seal_kl_to_base_sum[5m]))"
                            " / (sum by (where) (rate(seal_kl_to_base_count[5m])) > 0)",
                            "{{where}}",
                        ),
                    ),
                ),
                Panel(
                    "Forgetting by round",
                    "Mean forgetting of a round's trial adapters.",
                    "percentunit",
                    (Query(f"max by (run, round) (seal_run_forgetting_mean{_RUN})", "{{run}} round {{round}}"),),
                    steps=_LIMIT,
                ),
            ),
        ),
        Row(
            "Policies and commits",
            (
                Panel(
                    "Forgetting of policies",
                    "On the retention suite, against the base model. Above the gate's limit a policy is not published.",
                    "percentunit",
                    (
                        Query(
                            f"max by (run, version) (seal_run_policy_forgetting{_RUN})", "{{run}} version {{version}}"
                        ),
                    ),
                    steps=_LIMIT,
                ),
                Panel(
                    "Lost queries",
                    "Retention queries that the base model answers correctly and the policy does not.",
                    "short",
                    (
                        Query(
                            f"max by (run, version) (seal_run_policy_lost_queries{_RUN})",
                            "{{run}} version {{version}}",
                        ),
                    ),
                ),
                Panel(
                    "KL of policies",
                    "KL(base || policy) on the fixed text, in nats per token.",
                    "none",
                    (
                        Query(
                            f"max by (run, version) (seal_run_policy_kl_to_base{_RUN})", "{{run}} version {{version}}"
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Learning in sequence",
            (
                Panel(
                    "R: accuracy on each context after each commit",
                    "R[i,j] of runs that learn in sequence: row i is after commit i (0: the base model), column j a"
                    " context. Along a column: learned, then kept or forgotten.",
                    "percentunit",
                    (
                        Query(
                            f"label_join(max by (run, commit, context) (seal_run_continual_accuracy{_RUN}),"
                            ' "after", " / ", "run", "commit")',
                            needs="an adaptation",
                        ),
                    ),
                    kind="matrix",
                    width=24,
                    low=0,
                    high=1,
                    first=RED,
                    steps=((0.34, YELLOW), (0.67, GREEN)),
                    sides=("after", "context"),
                    order=("run", "commit", "context"),
                ),
            ),
        ),
    ),
)
