"""Which image each foreign service runs: the one that docker-compose.yml pins where it can be pulled, else a stand-in
made of Debian's packages, under a name of its own. Grafana has no package: without its image it is left out."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent / "stand_ins"
COMPOSE = Path(__file__).parents[3] / "docker-compose.yml"
BASES = {"REDIS_IMAGE": "redis:7-alpine", "PYTHON_IMAGE": "python:3.11-slim"}
"""What the engine's own script makes where nothing can be pulled; stand-ins are built upon the second."""
_BUILT = {"POSTGRES_IMAGE": "postgres", "PROMETHEUS_IMAGE": "prometheus", "ALERTMANAGER_IMAGE": "alertmanager"}


def images() -> tuple[dict[str, str], list[str]]:
    """Settings that name the images, and what to tell about them. Raises CalledProcessError where none can be had."""
    settings, told = {}, []
    for variable in (*BASES, *_BUILT, "GRAFANA_IMAGE"):
        pinned = _pinned(variable)
        if _there(pinned):
            settings[variable] = pinned
        elif variable in _BUILT:
            stand_in = f"seal-stand-in/{_BUILT[variable]}"
            _docker("build", "--quiet", "--tag", stand_in, str(FOLDER / _BUILT[variable]))
            settings[variable] = stand_in
            told.append(f"{stand_in} (Debian's package) stands in for {pinned}")
        else:
            told.append(f"{pinned} cannot be pulled")
    return settings, told


def _pinned(variable: str) -> str:
    (found,) = set(re.findall(rf"\$\{{{variable}:-([^}}]+)\}}", COMPOSE.read_text(encoding="utf-8")))
    return found


def _there(image: str) -> bool:
    seen = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False)
    return seen.returncode == 0 or (
        subprocess.run(["docker", "pull", "--quiet", image], capture_output=True, check=False, timeout=600).returncode
        == 0
    )


def _docker(*words: str) -> None:
    subprocess.run(["docker", *words], check=True, capture_output=True)
