"""The command line of the CA: words in, one clear line or a table out."""

from __future__ import annotations

import codecs
import contextlib
import os
import resource
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from restpipe_ca import authority, bundle, commands, display, faults, files, hosts, profiles
from restpipe_ca.authority import Authority
from restpipe_ca.bundle import Bundle
from restpipe_ca.delivery import PUBLIC_MODE, Destination
from restpipe_ca.display import REASONS
from restpipe_ca.errors import CaError
from restpipe_ca.profiles import Role
from restpipe_ca.store import CRL, DEFAULT_DIRECTORY, Store

MAX_INPUT = 1 << 20
"""Nobody's key, request or bundle is larger (bytes)."""

_DAYS = click.IntRange(1, 36500)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 1 if it failed, 2 if it was called wrongly."""
    # No core dump is to hold a key. One of 0 bytes would be piped to a program all the same (core(5)).
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    try:
        result = cli.main(arguments, prog_name="restpipe-ca", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        _complain(error.format_message())
        return error.exit_code
    except click.Abort:
        _complain("given up")
    except CaError as error:
        _complain(str(error))
    except BrokenPipeError:
        # What is still buffered would raise again when the interpreter closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _complain(f"{error.filename or ''}: {error.strerror or error}{_advice(error)}".removeprefix(": "))
    return 1


def _advice(error: OSError) -> str:
    """Only root may use the usual folder."""
    usual = Path(str(error.filename or "")).is_relative_to(DEFAULT_DIRECTORY.parent)
    denied = isinstance(error, PermissionError) and usual
    return "; --directory or RP_CA_DIRECTORY names another folder" if denied else ""


def _complain(text: str) -> None:
    line = " ".join(text.split()).encode(errors="backslashreplace").decode()
    click.echo(f"restpipe-ca: {line}", err=True)


def _warn(text: str) -> None:
    _complain(f"warning: {text}")


def _was_renamed(own: str, named: Sequence[str]) -> bool:
    """Only a certificate that a host made for itself names localhost."""
    known = any(name == own or name.startswith(f"{own}.") for name in named)
    return "localhost" in named and hosts.is_usable(own) and not known


class _Desk:
    """What every command of one run shares."""

    def __init__(self, directory: Path, passphrase_file: Path | None) -> None:
        self.store = Store(directory)
        self.passphrase_file = passphrase_file
        self.now = datetime.now(UTC)

    def given_passphrase(self) -> bytes | None:
        return None if self.passphrase_file is None else _read_passphrase(self.passphrase_file)

    def unlock(self) -> Authority:
        return self.store.unlock(lambda: self.given_passphrase() or _ask_passphrase(confirm=False))

    def dial(self, given: str | None, role: Role, names: Sequence[str]) -> str:
        """Return the address that a client with this bundle dials; a server dials none."""
        address = given
        if address is None:
            newest = commands.servers(self.store, self.now)[:1]
            default = [record.name for record in newest] or hosts.server_names()
            address = names[0] if role is Role.SERVER else default[0]
        return bundle.check_dial(address, self.store.port())

    def warn_of_dial(self, given: str | None, fresh: Bundle) -> None:
        """A client refuses a server whose certificate is for other names than it dials."""
        if fresh.role is Role.SERVER:
            return
        servers = commands.servers(self.store, self.now)
        named = [name for record in servers for name in authority.names(record.certificate)]
        # No certificate exists before the first start of a server on this host.
        named = named or list(hosts.server_names())
        host = bundle.host_of(fresh.dial)
        own = hosts.host_name()
        if host not in named:
            others = dict.fromkeys((host, *(authority.names(servers[0].certificate) if servers else ())))
            _warn(
                f"no server's certificate is for {host}: clients that dial it will refuse the server. "
                f"One that is: restpipe-ca issue --server {' '.join(others)}"
            )
        elif given is None and host == "localhost":
            _warn(
                "clients will dial localhost, as this server has no other name: for one on another host "
                "--dial names it"
            )
        elif given is None and _was_renamed(own, named):
            _warn(
                f"clients will dial {host}, as the server's certificate says, but this host is called "
                f"{own}. If it was renamed: restpipe-ca issue --server makes a certificate for its new name"
            )


_pass_desk = click.make_pass_decorator(_Desk)


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_server = click.option(
    "--server", "role", flag_value=Role.SERVER, type=Role, default=None, help="A server, not a client."
)
_again = click.option("--again", is_flag=True, help="Even if the name has a valid certificate.")
_days = click.option(
    "--days", type=_DAYS, default=profiles.CERTIFICATE_DAYS, show_default=True, help="Validity."
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_delivery = _options(
    click.option(
        "--dial",
        metavar="HOST[:PORT]",
        help="Where clients find the server [default: the newest server issued, else this host; "
        "the port that it is configured to listen on].",
    ),
    click.option("--out", metavar="FILE", help="The bundle file [default: NAME.bundle]."),
    click.option(
        "--pem-directory",
        type=click.Path(path_type=Path, file_okay=False),
        help="Write key.pem, certificate.pem, ca.pem and crl.pem there (and a bundle only with --out).",
    ),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DIRECTORY,
    envvar="RP_CA_DIRECTORY",
    show_default=True,
    show_envvar=True,
    help="The CA's folder.",
)
@click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File whose first line is the passphrase of the CA's key; without it the terminal is asked.",
)
@click.pass_context
def cli(context: click.Context, directory: Path, passphrase_file: Path | None) -> None:
    """The certificate authority of a RestPipe: makes, renews and revokes the identities of its hosts."""
    # Files of variables may have line ends of Windows.
    context.obj = _Desk(Path(str(directory).strip()), passphrase_file)


@cli.command()
@click.option("--name", metavar="TEXT", help="The CA's name [default: 'RestPipe CA' and this host's name].")
@click.option("--days", type=_DAYS, default=profiles.CA_DAYS, show_default=True, help="Validity.")
@click.option(
    "--passphrase",
    is_flag=True,
    help="Encrypt the key; asks for the passphrase unless --passphrase-file is given.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port that clients dial where --dial names none [default: 1234]. A server's start says which it is.",
)
@_pass_desk
def init(desk: _Desk, name: str | None, days: int, passphrase: bool, port: int | None) -> None:
    """Make the CA. Where one stands already, nothing but its --port is changed."""
    title = name or f"RestPipe CA {hosts.host_name()}"[: profiles.MAX_COMMON_NAME - 9]
    secret = None
    if not desk.store.initialised:
        secret = desk.given_passphrase()
        if passphrase and secret is None:
            secret = _ask_passphrase(confirm=True)
    made = commands.init(desk.store, title, desk.now, days=days, passphrase=secret, port=port)
    certificate = desk.store.certificate()
    end = authority.stamp(authority.not_after(certificate))
    what = "Made" if made else "There is already"
    click.echo(f"{what} {authority.common_name(certificate)!r} in {desk.store.directory}, valid until {end}.")


@cli.command()
@click.argument("names", nargs=-1, metavar="NAME [NAME_OR_ADDRESS]...")
@_again
@_server
@_days
@_delivery
@_pass_desk
def issue(
    desk: _Desk,
    names: tuple[str, ...],
    again: bool,
    role: Role | None,
    days: int,
    dial: str | None,
    out: str | None,
    pem_directory: Path | None,
) -> None:
    """Make a key and a certificate for NAME, a client, and write both into one bundle file.

    With --server, further host names and addresses may follow; without any, this host's are taken, and
    localhost.
    """
    role = role or Role.CLIENT
    if role is Role.SERVER and not names:
        names = hosts.server_names()
    names = profiles.check_names(role, names)
    ca = desk.unlock()
    to = _destination(out, pem_directory, names[0])
    address = desk.dial(dial, role, names)
    fresh = commands.issue(
        desk.store, ca, role, names, dial=address, now=desk.now, days=days, again=again, to=to
    )
    display.delivered("Issued", fresh, to)
    desk.warn_of_dial(dial, fresh)


@cli.command()
@click.argument("request", metavar="REQUEST")
@click.option(
    "--name", "names", multiple=True, help="Take this name, not the request's (with --server: several times)."
)
@_again
@_server
@_days
@_delivery
@_pass_desk
def sign(
    desk: _Desk,
    request: str,
    names: tuple[str, ...],
    again: bool,
    role: Role | None,
    days: int,
    dial: str | None,
    out: str | None,
    pem_directory: Path | None,
) -> None:
    """Sign a certificate request (a PEM file, or - for stdin) whose private key stays where it was made."""
    role = role or Role.CLIENT
    loaded = commands.load_request(_read(request))
    names = profiles.check_names(role, names or commands.requested_names(loaded))
    ca = desk.unlock()
    to = Destination() if out == "-" else _destination(out, pem_directory, names[0])
    address = desk.dial(dial, role, names)
    fresh = commands.sign(
        desk.store, ca, role, loaded, names, dial=address, now=desk.now, days=days, again=again, to=to
    )
    if out == "-":
        click.echo(fresh.encode(), nl=False)
    else:
        display.delivered("Signed", fresh, to)
        click.echo(f"Key: sha256 {authority.fingerprint(fresh.certificate.public_key())}")
    desk.warn_of_dial(dial, fresh)


@cli.command()
@click.argument("name")
@click.option(
    "--new-key", is_flag=True, help="With a new key; otherwise the key stays, and the bundle holds none."
)
@_server
@_days
@_delivery
@_pass_desk
def renew(
    desk: _Desk,
    name: str,
    new_key: bool,
    role: Role | None,
    days: int,
    dial: str | None,
    out: str | None,
    pem_directory: Path | None,
) -> None:
    """Sign a newer certificate for NAME. The older one stays good until it expires or is revoked."""
    role = role or Role.CLIENT
    commands.find(desk.store, role, name)
    ca = desk.unlock()
    to = _destination(out, pem_directory, name)
    address = desk.dial(dial, role, (name,))
    fresh = commands.renew(
        desk.store, ca, role, name, dial=address, now=desk.now, days=days, new_key=new_key, to=to
    )
    display.delivered("Renewed", fresh, to)
    desk.warn_of_dial(dial, fresh)


@cli.command()
@click.argument("name")
@_server
@click.option(
    "--serial", default="", metavar="HEX", help="Only the certificate whose serial number begins so."
)
@click.option("--reason", type=click.Choice(list(REASONS)), default="unspecified", show_default=True)
@_pass_desk
def revoke(desk: _Desk, name: str, role: Role | None, serial: str, reason: str) -> None:
    """Revoke all certificates of NAME, at once and for ever."""
    role = role or Role.CLIENT
    commands.find(desk.store, role, name, serial)
    fresh = commands.revoke(
        desk.store, desk.unlock(), role, name, desk.now, serial=serial, reason=REASONS[reason]
    )
    if not fresh:
        click.echo(f"{role} {name} was revoked already.")
    for record in fresh:
        serial = authority.serial_text(record.serial)
        click.echo(f"Revoked {role} {name}, serial {serial}, in {desk.store.path(CRL)}.")


@cli.command()
@click.option("--days", type=_DAYS, help="How long the list may be relied on [default: as long as the CA].")
@click.option("--out", metavar="FILE", help="Write a copy there (- for stdout).")
@_pass_desk
def crl(desk: _Desk, days: int | None, out: str | None) -> None:
    """Sign the revocation list anew (revoke does so by itself)."""
    number = commands.rewrite_list(desk.store, desk.unlock(), desk.now, days)
    current = desk.store.revocation_list()
    data = files.read(desk.store.path(CRL))
    if out == "-":
        click.echo(data, nl=False)
        return
    if out is not None:
        files.replace(Path(out).parent, Path(out).name, data, PUBLIC_MODE)
    end = authority.stamp(authority.next_update(current))
    entries = len(authority.revocations(current))
    click.echo(f"List {number} with {entries} revoked in {desk.store.path(CRL)}, good until {end}.")


@cli.command("list")
@_as_json
@_pass_desk
def list_(desk: _Desk, as_json: bool) -> None:
    """List every certificate ever issued, with its state."""
    revoked = authority.revocations(desk.store.revocation_list())
    records = sorted(desk.store.records(), key=lambda record: (record.role, record.name))
    if as_json:
        display.as_json([display.facts(record, revoked, desk.now) for record in records])
    else:
        display.as_list(records, revoked, desk.now)


@cli.command()
@click.argument("name")
@_server
@_as_json
@click.option("--pem", "as_pem", is_flag=True, help="Print the newest certificate as PEM.")
@_pass_desk
def show(desk: _Desk, name: str, role: Role | None, as_json: bool, as_pem: bool) -> None:
    """Show all about the certificates of NAME."""
    revoked = authority.revocations(desk.store.revocation_list())
    records = commands.find(desk.store, role or Role.CLIENT, name)
    if as_pem:
        click.echo(bundle.pem(records[-1].certificate), nl=False)
        return
    if as_json:
        display.as_json([display.facts(record, revoked, desk.now) for record in records])
    else:
        display.in_words(records, revoked, desk.now)


@cli.command()
@click.argument("file", required=False)
@click.option("--as", "role", type=click.Choice([role.value for role in Role]), help="Good for use as this.")
@_as_json
@_pass_desk
def verify(desk: _Desk, file: str | None, role: str | None, as_json: bool) -> None:
    """Check FILE, a bundle or certificate (- for stdin), against this CA; without FILE the CA itself."""
    if file is None:
        found = faults.of_store(desk.store, desk.now, desk.given_passphrase())
    else:
        wanted = None if role is None else Role(role)
        found = faults.of_identity(desk.store, _read(file), wanted, desk.now)
    about = str(desk.store.directory) if file is None else file
    if as_json:
        display.as_json({"subject": about, "good": not found, "faults": found})
    elif not found:
        click.echo(f"{about}: good")
    for fault in [] if as_json else found:
        _complain(f"{about}: {fault}")
    click.get_current_context().exit(1 if found else 0)


def _destination(out: str | None, pem_directory: Path | None, name: str) -> Destination:
    if out is None and pem_directory is not None:
        return Destination(pem_directory=pem_directory)
    if out == "-":
        raise click.UsageError("a bundle that may hold a key is not printed: --out needs a file")
    return Destination(Path(out or f"{name.replace(':', '-')}.bundle"), pem_directory)


def _read(file: str) -> bytes:
    if file == "-":
        data: bytes = sys.stdin.buffer.read(MAX_INPUT + 1)
    else:
        with Path(file).open("rb") as opened:
            data = opened.read(MAX_INPUT + 1)
    if len(data) > MAX_INPUT:
        raise CaError(f"{file} is larger than {MAX_INPUT} bytes")
    return data


def _read_passphrase(path: Path) -> bytes:
    with path.open("rb") as file:
        line = file.readline(4096).removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n")
    return _check_passphrase(line, str(path))


def _ask_passphrase(*, confirm: bool) -> bytes:
    if not sys.stdin.isatty():
        raise CaError(
            "the CA's key needs a passphrase and there is no terminal to ask: give --passphrase-file"
        )
    text: str = click.prompt(
        "Passphrase of the CA's key", hide_input=True, confirmation_prompt=confirm, err=True
    )
    return _check_passphrase(text.encode(), "what was typed")


def _check_passphrase(secret: bytes, where: str) -> bytes:
    # OpenSSL, by which the key is encrypted, takes no more than 1023 bytes.
    if not 1 <= len(secret) <= 1023:
        raise CaError(f"{where}: a passphrase has 1 to 1023 bytes")
    return secret
