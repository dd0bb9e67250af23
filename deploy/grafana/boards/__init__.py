"""All dashboards, in the order of the menu."""

from deploy.grafana.boards.capacity import CAPACITY
from deploy.grafana.boards.forgetting import FORGETTING
from deploy.grafana.boards.runs import RUNS
from deploy.grafana.boards.services import SERVICES
from deploy.grafana.boards.trials import TRIALS
from deploy.grafana.panel import Board

BOARDS: tuple[Board, ...] = (RUNS, FORGETTING, TRIALS, CAPACITY, SERVICES)
