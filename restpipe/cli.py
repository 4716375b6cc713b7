"""The command line. Each command imports what it starts, so that no process carries another's code.

Exit status: 0 for an orderly end, 2 for a command line that cannot be understood, 78 (EX_CONFIG) for
configuration that cannot be used (starting again is in vain until somebody edits it), 1 for anything else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from restpipe import __version__
from restpipe.errors import ConfigError, RestPipeError
from restpipe.host import config_text, logs
from restpipe.host.config import Config, Role, load
from restpipe.host.parent import die_with


class _Commands(click.Group):
    """Errors that RestPipe raises on purpose are one line, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RestPipeError as exc:
            click.echo(f"restpipe: {exc}", err=True)
            ctx.exit(os.EX_CONFIG if isinstance(exc, ConfigError) else 1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="restpipe")
def cli() -> None:
    """Plain HTTP in, plain Python out, over one durable TLS pipe."""


def main() -> None:
    cli(prog_name="restpipe")


def _role(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Role | None:
    return None if value is None else Role(value)


def _begin(process: str, role: Role, file: Path | None, parent: int | None) -> Config:
    if parent is not None:
        die_with(parent)
    config = load(role, file=file)
    logs.configure(config.log, process=process)
    return config


_ROLES = click.Choice([role.value for role in Role])
_role_argument = click.argument("role", type=_ROLES, callback=_role)
_config_option = click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Configuration file (default: /etc/restpipe/ROLE.toml).",
)
_parent_option = click.option(
    "--parent", type=int, hidden=True, help="Process with whose end this one ends (see `restpipe run`)."
)


@cli.command()
@_role_argument
@_config_option
@click.pass_context
def run(ctx: click.Context, role: Role, file: Path | None) -> None:
    """Run pipe, web and handlers under one foreground process, for development."""
    config = load(role, file=file)
    from restpipe.run import main

    ctx.exit(main(config, ("--config", str(file)) if file else ()))


@cli.command()
@_role_argument
@_config_option
@_parent_option
@click.pass_context
def pipe(ctx: click.Context, role: Role, file: Path | None, parent: int | None) -> None:
    """Run the pipe daemon: the connections to the other side."""
    config = _begin("pipe", role, file, parent)
    from restpipe.daemon.service import main

    ctx.exit(main(config))


@cli.command()
@_role_argument
@_config_option
@_parent_option
@click.pass_context
def web(ctx: click.Context, role: Role, file: Path | None, parent: int | None) -> None:
    """Run the web workers: the HTTP socket that applications use."""
    config = _begin("web", role, file, parent)
    from restpipe.web.server import main

    ctx.exit(main(config))


@cli.command()
@_role_argument
@_config_option
@_parent_option
@click.pass_context
def handlers(ctx: click.Context, role: Role, file: Path | None, parent: int | None) -> None:
    """Run one handler worker: the code that answers events."""
    config = _begin("handlers", role, file, parent)
    from restpipe.handler.worker import main

    ctx.exit(main(config))


@cli.command()
@click.argument("role", type=_ROLES, callback=_role, required=False)
@_config_option
@click.option("--markdown", is_flag=True, help="All options there are, as a table (without ROLE: of both).")
@click.option("--json", "as_json", is_flag=True, help="What is in force, for machines.")
def config(role: Role | None, file: Path | None, markdown: bool, as_json: bool) -> None:
    """Show the configuration in force, and where each value comes from."""
    if markdown:
        click.echo(config_text.markdown(role))
    elif role is None:
        raise click.UsageError("Missing argument 'ROLE': server or client.")
    else:
        in_force = load(role, file=file)
        click.echo(config_text.as_json(in_force) if as_json else config_text.in_force(in_force))
