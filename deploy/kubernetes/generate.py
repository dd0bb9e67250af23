"""Makes observability/rules.yaml, the alerts as the Prometheus Operator wants them, from deploy/prometheus/rules.yml:
`python -m deploy.kubernetes.generate [--check]`; with --check it only says whether they differ."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import indent

from deploy.generated import settle

SOURCE = Path(__file__).parents[1] / "prometheus/rules.yml"
TARGET = Path(__file__).parent / "observability/rules.yaml"
_HEAD = """\
# Made by `python -m deploy.kubernetes.generate` from deploy/prometheus/rules.yml; change that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: seal
spec:
"""


def render(rules: str) -> str:
    """A file of Prometheus rules as a PrometheusRule, comments and all."""
    return _HEAD + indent(rules[rules.index("groups:") :], "  ")


def main(arguments: list[str]) -> int:
    """Writes the file, or with `--check` says whether it is as it should be; the exit code."""
    wanted = {TARGET: render(SOURCE.read_text(encoding="utf-8"))}
    return settle(wanted, arguments, command="python -m deploy.kubernetes.generate")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
