"""`seal doctor`: checks a set-up before a run does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seal_cli.options import DEFAULT_DATA, AsJson, Data

if TYPE_CHECKING:
    from seal_cli.doctor.setup import Line
    from sealkit.config import RunConfig


def register(app: typer.Typer) -> None:
    """Adds `seal doctor` to the application."""
    app.command("doctor")(doctor)


def doctor(
    config: Annotated[Path | None, typer.Option(help="A run's TOML file, to check the context length against.")] = None,
    as_json: AsJson = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Check services, models, engines, editors, judge, Redis, SQL, store, clock, GPU and certificates; exit code 1 if a
    check fails. Reads the SEAL_* variables of this shell, or the stack in the data folder."""
    import asyncio

    from seal_cli.console import out, show_json, styled

    lines = asyncio.run(_check(data, _read(config)))
    if as_json:
        show_json(lines)
    else:
        for line in lines:
            mark = "[green]ok [/]" if line.good else "[bold red]bad[/]"
            out.print(f"{mark} [bold]{styled(line.what)}[/]: {styled(line.found)}", soft_wrap=True)
            if not line.good and line.fix:
                out.print(f"      → {styled(line.fix)}", soft_wrap=True)
        bad = sum(not line.good for line in lines)
        out.print(f"{bad} of {len(lines)} are bad" if bad else f"all {len(lines)} are good")
    if not all(line.good for line in lines):
        raise typer.Exit(1)


def _read(config: Path | None) -> RunConfig | None:
    if config is None:
        return None
    from sealkit.config import load_config

    return load_config(config)


async def _check(data: Path, config: RunConfig | None) -> list[Line]:
    import asyncio

    from seal_cli.doctor import services
    from seal_cli.doctor.setup import Line, read_settings
    from seal_cli.options import own_identity
    from sealkit.errors import FailedPrecondition, InvalidConfig

    try:
        from seal_cli.doctor import endpoints, infrastructure
    except ImportError as error:
        raise FailedPrecondition(
            f"seal doctor needs {error.name}: pip install 'seal-suite[controller,models]'"
        ) from error

    settings = read_settings(data)
    certificates = list(infrastructure.check_certificates(settings))
    try:
        identity = own_identity()
        found = await services.check_services(settings, identity, config)
    except InvalidConfig as error:
        found = [Line("services", False, f"not asked: {error.message}", "fix SEAL_TLS_CA, _CERT and _KEY first")]
    rest = await asyncio.gather(
        infrastructure.check_redis(settings), infrastructure.check_sql(settings), infrastructure.check_stores(settings),
        infrastructure.check_gpu(settings), endpoints.check_endpoints(settings),
    )  # fmt: skip
    return [*found, *(line for lines in rest for line in lines), *certificates]
