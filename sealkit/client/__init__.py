"""The Python client of the controller, for any program: typed, torch-free, blocking (`SealClient`) or asyncio.

    with SealClient("127.0.0.1:50050") as seal:
        run = seal.create_run(config, records)
        for event in seal.watch_run(run.name):
            print(event.progress.stage)
        print(seal.report(run.name).verdict)

Values are those of `sealkit.resources`, errors those of `sealkit.errors`. A call that does not reach the controller is
retried a few times; this is safe because every changing call carries a request id.
"""

from __future__ import annotations

from sealkit.client.asynchronous import AsyncSealClient
from sealkit.client.blocking import SealClient

__all__ = ["AsyncSealClient", "SealClient"]
