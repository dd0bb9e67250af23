"""A program that uses the stack from outside: it has the published port, a certificate and sealkit.client, no more.

Reads what it is to do as JSON from its input; writes JSON lines: the run's name, its events, at the end its report.
"""

import json
import sys
from pathlib import Path

from sealkit.client import SealClient
from sealkit.rpc.tls import Identity


def main() -> None:
    told = json.load(sys.stdin)
    identity = Identity(*(Path(told["certificate"]) / name for name in ("ca.crt", "tls.crt", "tls.key")))
    with SealClient(told["address"], identity=identity, reconnect_seconds=600) as seal:
        name = told.get("run") or seal.create_run(told["config"], told["records"], request_id=told["request_id"]).name
        say({"run": name})
        for event in seal.watch_run(name):
            say({"event": event.model_dump(mode="json")})
        say({"report": seal.report(name).model_dump(mode="json")})


def say(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
