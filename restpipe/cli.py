"""The command line. Each command imports what it starts, so that no process carries another's code.

Exit status: 0 for an orderly end, 2 for a command line that cannot be understood, 78 (EX_CONFIG) for
configuration that cannot be used (starting again is in vain until somebody edits it), 1 for anything else.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import click

from restpipe import COMPILED, __version__
from restpipe.errors import RestPipeError, exit_status
from restpipe.host import config_text, logs, memory
from restpipe.host.config import Config, Role, load, without_effect
from restpipe.host.parent import die_with

_log = logging.getLogger(__name__)


class _Commands(click.Group):
    """Errors that RestPipe raises on purpose are one line, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RestPipeError as exc:
            click.echo(f"{logs.priority(logging.ERROR)}restpipe: {exc}", err=True)
            from restpipe.host.notify import Notifier

            # What the service manager shows until the next start.
            Notifier().status(str(exc))
            ctx.exit(exit_status(exc))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    __version__,
    prog_name="restpipe",
    # The version stays the last word: programs cut it off there.
    message=f"%(prog)s ({'compiled' if COMPILED else 'pure'}), version %(version)s",
)
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
    # Where there is a parent, it has said it.
    if parent is None:
        for line in _mistakes(config):
            _log.warning("%s", line)
    return config


def _mistakes(config: Config) -> list[str]:
    """What is set and has no effect, in words."""
    found = {"environment variable": without_effect(), "constant": config.ignored}
    return [f"no option has this {what}: {', '.join(names)}" for what, names in found.items() if names]


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
    config = _begin("run", role, file, None)
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
    from restpipe.identity.beginning import ensure, warn_of_name

    ensure(config)
    warn_of_name(config)
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
@click.option("--check", is_flag=True, help="Only load the code, and say whether that can be done.")
@click.option(
    "--reload",
    "pid",
    type=int,
    metavar="PID",
    help="Have that worker load its code anew, and say (by the exit status) whether the new code serves, or "
    "can be loaded if the worker has no service manager.",
)
@click.pass_context
def handlers(
    ctx: click.Context, role: Role, file: Path | None, parent: int | None, check: bool, pid: int | None
) -> None:
    """Run one handler worker: the code that answers events."""
    config = _begin("handlers", role, file, None if check else parent)
    if pid is not None:
        from restpipe.handler.reloading import reload

        click.echo(f"worker {pid}: {reload(pid, config.handlers.load_timeout_s)}")
        return
    if check:
        from restpipe.handler.worker import check as load

        load(config)
        return
    from restpipe.handler.worker import main

    # Only a service manager follows a worker to another process.
    ctx.exit(main(config, in_place=parent is not None or "NOTIFY_SOCKET" not in os.environ))


@cli.command()
@click.argument("role", type=_ROLES, callback=_role, required=False)
@_config_option
@click.option("--markdown", is_flag=True, help="All options there are, as a table (without ROLE: of both).")
@click.option("--json", "as_json", is_flag=True, help="What is in force, for machines.")
@click.option("--check", is_flag=True, help="Only say what is wrong; an error ends with status 78.")
def config(role: Role | None, file: Path | None, markdown: bool, as_json: bool, check: bool) -> None:
    """Show the configuration in force, and where each value comes from."""
    if markdown:
        click.echo(config_text.markdown(role))
    elif role is None:
        raise click.UsageError("Missing argument 'ROLE': server or client.")
    else:
        in_force = load(role, file=file)
        for line in _mistakes(in_force):
            click.echo(f"restpipe: {line}", err=True)
        if not check:
            click.echo(config_text.as_json(in_force) if as_json else config_text.in_force(in_force))


@cli.group()
def identity() -> None:
    """This host's identity: install it, show it, ask for it."""
    memory.forbid_dumps()


_role_option = click.option("--role", type=_ROLES, callback=_role, help="Whose identity it is.")


@identity.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="BUNDLE|KEY CRT CA"
)
@_role_option
@_config_option
def install(files: tuple[Path, ...], role: Role | None, file: Path | None) -> None:
    """Check an identity and put it in place; a daemon that runs takes it up at once.

    One bundle, as `restpipe-ca issue` writes it, or three PEM files: private key, certificate (intermediate
    ones behind it) and CA. The role is the one in the bundle, else the certificate's, unless --role says it.
    """
    from restpipe.identity import installing, running
    from restpipe.transport.certificates import stamp

    material = installing.read(files)
    role = role or material.meant_for
    if role is None:
        raise click.UsageError("the certificate is for both roles: say which one, --role server or client")
    config = load(role, file=file)
    installed = installing.install(material, config, time.time())
    end = stamp(installed.certificate.not_after)
    click.echo(f"Installed {role} {installed.certificate.name} in {installed.directory}, valid until {end}.")
    if installed.dial:
        _tell_address(installed.dial, load(role, file=file))
    pid = running.reload(config.sockets.events)
    if pid is None:
        click.echo(f"No {role} runs here yet: systemctl restart restpipe-{role} (or: restpipe run {role}).")
        return
    folder = running.folder_of(pid, role)
    if folder == installed.directory:
        click.echo(f"The {role} that runs here (process {pid}) takes it up now.")
    elif folder is not None:
        click.echo(f"The {role} that runs here (process {pid}) has its identity in {folder}, not there.")


def _tell_address(dial: str, config: Config) -> None:
    in_force = ", ".join(config.pipe.servers)
    source = config.sources["pipe.servers"]
    if config.pipe.servers == (dial,):
        click.echo(f"It dials {dial} ({source}).")
    else:
        click.echo(f"It dials {in_force} ({source}), not {dial} as the bundle says: the configuration wins.")


@identity.command()
@_role_option
@_config_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def show(ctx: click.Context, role: Role | None, file: Path | None, as_json: bool) -> None:
    """Show the identity installed (without --role of both roles) and its faults (exit status 1)."""
    if file is not None and role is None:
        raise click.UsageError("--config needs --role: a file configures one of them")
    from restpipe.identity.facts import facts_of, in_words, stands

    configs = [load(each, file=file) for each in ([role] if role else Role)]
    # A package makes the folders of both roles; a host may have one.
    found = [facts_of(config, time.time()) for config in configs if role or stands(config)]
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo("\n\n".join(map(in_words, found)) or "There is no identity on this host.")
    faults = [fault for facts in found for fault in facts["faults"]]
    for fault in [] if as_json else faults:
        click.echo(f"restpipe: {fault}", err=True)
    ctx.exit(1 if faults or not found else 0)


@identity.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME [NAME]...")
@_role_option
@_config_option
@click.option("--out", type=click.Path(path_type=Path), help="File for the request (default: stdout).")
def request(names: tuple[str, ...], role: Role | None, file: Path | None, out: Path | None) -> None:
    """Make a key that stays here, and print a request for its certificate.

    NAME is a client's name, or a server's host names and addresses; URIs (spiffe://...) will do too. Have it
    signed by `restpipe-ca sign`, or by any other CA, and install what comes back.
    """
    from restpipe.identity.requesting import request as make

    made = make(load(role or Role.CLIENT, file=file), names)
    if out is None:
        click.echo(made, nl=False)
    else:
        out.write_bytes(made)


@identity.command("make")
@_config_option
def make_identity(file: Path | None) -> None:
    """Make a CA and the server's own identity, where neither is there (a server's first start does so)."""
    config = load(Role.SERVER, file=file)
    logs.configure(config.log, process="identity")
    from restpipe.identity.beginning import ensure

    if not ensure(config):
        click.echo(f"There is an identity already in {config.tls.directory}.")
