"""Coverage of the intervals of forgetting: `python -m benchmarks.coverage [--repeats N]`.

Suites of n queries are drawn, each of which is lost with one probability and won with another; for three 95 % intervals
of the mean difference it is counted how often they contain the true one. The gate uses the lower end, so it is counted
separately how often that is above the true value. No model is needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from sealkit.reports import Estimate
from sealkit.stats import mean_estimate, paired_bootstrap

SIZES = (4, 8, 16, 32, 128)
CHANCES = ((0.05, 0.0), (0.2, 0.0), (0.2, 0.05), (0.1, 0.1), (0.8, 0.0))
"""Probabilities of lost and won."""
METHODS: dict[str, Callable[[list[float], list[float]], Estimate | None]] = {
    "t": lambda after, before: mean_estimate([b - a for a, b in zip(after, before, strict=True)], low=-1.0),
    "plain bootstrap": lambda after, before: paired_bootstrap(after, before, imagined=0),
    "ours": paired_bootstrap,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=400)
    repeats = parser.parse_args().repeats
    rng = np.random.default_rng(0)
    print("| n | lost, won | " + " | ".join(f"{m}: holds it, above it, width" for m in METHODS) + " |")
    print("|---|---|" + "---|" * len(METHODS))
    for n in SIZES:
        for lost, won in CHANCES:
            draws = rng.choice([1.0, -1.0, 0.0], p=[lost, won, 1 - lost - won], size=(repeats, n))
            cells = [_cell(method, draws.tolist(), lost - won) for method in METHODS.values()]
            print(f"| {n} | {lost}, {won} | {' | '.join(cells)} |", flush=True)


def _cell(method: Callable[[list[float], list[float]], Estimate | None], draws: list[list[float]], truth: float) -> str:
    holds, above, width = [], [], []
    for differences in draws:
        # Any before and after with these differences will do: 1 → 0 is lost, 0 → 1 is won.
        estimate = method([float(d < 0) for d in differences], [float(d > 0) for d in differences])
        assert estimate is not None
        holds.append(estimate.low - 1e-9 <= truth <= estimate.high + 1e-9)
        above.append(estimate.low > truth + 1e-9)
        width.append(estimate.high - estimate.low)
    return f"{np.mean(holds):.0%}, {np.mean(above):.1%}, {np.mean(width):.2f}"


if __name__ == "__main__":
    main()
