"""Services: calls, errors, processes."""

from dataclasses import replace

from deploy.grafana.panel import GREEN, RED, YELLOW, Board, Panel, Query, Row, quantiles

SERVICES = Board(
    uid="seal-services",
    title="SEAL / Services",
    description="gRPC by method and code, answers, HTTP, processes, targets.",
    rows=(
        Row(
            "Calls",
            (
                Panel(
                    "Calls per second",
                    "gRPC calls handled, by method.",
                    "reqps",
                    (Query("sum by (method) (rate(seal_grpc_requests_total[$__rate_interval]))", "{{method}}"),),
                    width=8,
                ),
                Panel(
                    "Calls that did not end OK",
                    "By method and code. RESOURCE_EXHAUSTED is backpressure and is retried; INTERNAL is a bug.",
                    "reqps",
                    (
                        Query(
                            'sum by (method, code) (rate(seal_grpc_requests_total{code!="OK"}[$__rate_interval]))',
                            "{{method}} {{code}}",
                            needs="a call that was refused",
                        ),
                    ),
                    width=8,
                ),
                Panel(
                    "Callers refused",
                    "Calls refused in an hour: unknown caller, or no permission. A few are mistakes; many may be an"
                    " attack.",
                    "short",
                    (
                        Query(
                            "sum by (job, reason) (increase(seal_callers_refused_total[1h]))",
                            "{{job}} {{reason}}",
                            needs="a caller who was refused",
                        ),
                    ),
                    steps=((10, YELLOW), (100, RED)),
                    width=8,
                ),
                Panel(
                    "Call duration",
                    "All methods together, with the long calls for training and evaluation.",
                    "s",
                    quantiles("seal_grpc_seconds"),
                ),
                Panel(
                    "Call duration by method, p95",
                    "95 % of the calls are faster.",
                    "s",
                    (
                        Query(
                            "histogram_quantile(0.95, sum by (le, method)"
                            " (rate(seal_grpc_seconds_bucket[$__rate_interval])))",
                            "{{method}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Answers",
            (
                Panel(
                    "Answers per second",
                    "Answers of aliases and of the base model, by result: OK or the reason of the error.",
                    "reqps",
                    (
                        Query(
                            "sum by (model, result) (rate(seal_answer_requests_total[$__rate_interval]))",
                            "{{model}} {{result}}",
                            needs="somebody who asked",
                        ),
                    ),
                    width=8,
                ),
                Panel(
                    "Time to the first piece of an answer",
                    "From the request at the controller to the first text.",
                    "s",
                    tuple(
                        replace(query, needs="somebody who asked")
                        for query in quantiles("seal_answer_first_seconds", "model")
                    ),
                    width=8,
                ),
                Panel(
                    "Answer tokens per second",
                    "Tokens of whole answers, read and sampled.",
                    "short",
                    (
                        Query(
                            "sum by (kind) (rate(seal_answer_tokens_total[$__rate_interval]))",
                            "{{kind}}",
                            needs="somebody who asked",
                        ),
                    ),
                    width=8,
                ),
                Panel(
                    "HTTP requests per second",
                    "By route and status. 499: the client left before the response.",
                    "reqps",
                    (
                        Query(
                            "sum by (route, status) (rate(seal_http_requests_total[$__rate_interval]))",
                            "{{route}} {{status}}",
                            needs="an HTTP request",
                        ),
                    ),
                ),
                Panel(
                    "HTTP response duration",
                    "To the end of the response, streams included.",
                    "s",
                    tuple(replace(query, needs="an HTTP request") for query in quantiles("seal_http_seconds", "route")),
                ),
            ),
        ),
        Row(
            "Processes",
            (
                Panel(
                    "Targets up",
                    "1 if Prometheus reaches the service's metrics.",
                    "short",
                    (Query('min by (job, instance) (up{job=~"seal-.*"})', "{{job}} {{instance}}"),),
                    low=0,
                    high=1,
                    first=RED,
                    steps=((1, GREEN),),
                ),
                Panel(
                    "Memory",
                    "Resident memory of each process.",
                    "bytes",
                    (Query('process_resident_memory_bytes{job=~"seal-.*"}', "{{job}} {{instance}}"),),
                ),
                Panel(
                    "CPU",
                    "Cores used by each process.",
                    "short",
                    (
                        Query(
                            'rate(process_cpu_seconds_total{job=~"seal-.*"}[$__rate_interval])', "{{job}} {{instance}}"
                        ),
                    ),
                ),
                Panel(
                    "Open files",
                    "Open file descriptors as a share of the process's limit.",
                    "percentunit",
                    (
                        Query(
                            'process_open_fds{job=~"seal-.*"} / process_max_fds{job=~"seal-.*"}', "{{job}} {{instance}}"
                        ),
                    ),
                    low=0,
                    high=1,
                    steps=((0.5, YELLOW), (0.8, RED)),
                ),
            ),
        ),
    ),
)
