"""What the command line prints: sentences, tables and JSON."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click
from cryptography import x509

from restpipe_ca import authority
from restpipe_ca.authority import Revocation
from restpipe_ca.bundle import Bundle
from restpipe_ca.commands import State, state
from restpipe_ca.delivery import Destination
from restpipe_ca.store import Record

REASONS = {
    "unspecified": x509.ReasonFlags.unspecified,
    "key-compromise": x509.ReasonFlags.key_compromise,
    "affiliation-changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation-of-operation": x509.ReasonFlags.cessation_of_operation,
}
"""What people call the reasons for a revocation."""


def delivered(what: str, fresh: Bundle, to: Destination) -> None:
    """Say what was signed, where it went, and what to do with it."""
    serial = authority.serial_text(fresh.certificate.serial_number)
    end = authority.stamp(authority.not_after(fresh.certificate))
    click.echo(f"{what} {fresh.role} {fresh.name}, serial {serial}, valid until {end}.")
    if to.pem_directory is not None:
        click.echo(f"PEM files: {to.pem_directory}")
    if to.bundle is None:
        return
    secret = " (it holds the private key: carry it by a safe way, then delete it)" if fresh.key else ""
    click.echo(f"Bundle: {to.bundle}{secret}")
    # Root's CA is the system's, and so will the identity be: only root can install it on the other host.
    sudo = "sudo " if os.geteuid() == 0 else ""
    install = f"{sudo}restpipe identity install {shlex.quote(to.bundle.name)}"
    click.echo(f"\nOn the {fresh.role}'s host run:\n    {install}")


def facts(record: Record, revoked: Mapping[int, Revocation], now: datetime) -> dict[str, Any]:
    """All about a certificate, as JSON has it."""
    leaf, entry = record.certificate, revoked.get(record.serial)
    return {
        "name": record.name,
        "role": record.role.value,
        "state": state(record, revoked, now).value,
        "serial": authority.serial_text(record.serial),
        "not_before": authority.stamp(authority.not_before(leaf)),
        "not_after": authority.stamp(authority.not_after(leaf)),
        "names": list(authority.names(leaf)),
        "key_sha256": authority.fingerprint(leaf.public_key()),
        "revoked_at": None if entry is None else authority.stamp(entry.at),
        "reason": None if entry is None else _reason(entry),
    }


def as_list(records: Iterable[Record], revoked: Mapping[int, Revocation], now: datetime) -> None:
    """Print one line a certificate."""
    header = ("NAME", "ROLE", "STATE", "VALID UNTIL", "DAYS", "SERIAL")
    _table([header, *(_row(record, revoked, now) for record in records)])


def in_words(records: Iterable[Record], revoked: Mapping[int, Revocation], now: datetime) -> None:
    """Print one paragraph a certificate."""
    for number, record in enumerate(records):
        if number:
            click.echo()
        described = facts(record, revoked, now)
        _table([(f"{key.replace('_', ' ')}:", _plain(value)) for key, value in described.items()])


def as_json(value: Any) -> None:
    """Print for programs."""
    click.echo(json.dumps(value, indent=2))


def _reason(entry: Revocation) -> str:
    words = {reason: word for word, reason in REASONS.items()}
    return words.get(entry.reason, str(entry.reason.value))


def _row(record: Record, revoked: Mapping[int, Revocation], now: datetime) -> tuple[str, ...]:
    worth = state(record, revoked, now)
    end = authority.not_after(record.certificate)
    days = str((end - now).days) if worth is State.VALID else "-"
    return record.name, record.role, worth, authority.stamp(end), days, authority.serial_text(record.serial)


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
