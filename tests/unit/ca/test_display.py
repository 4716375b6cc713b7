from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from restpipe_ca import authority, commands, display
from restpipe_ca.authority import Authority, Revocation
from restpipe_ca.delivery import Destination
from restpipe_ca.profiles import Role
from restpipe_ca.store import Store


@pytest.mark.parametrize(("user", "command"), [(0, "    sudo restpipe"), (1000, "    restpipe")])
def test_root_is_told_to_install_as_root(
    store: Store,
    ca: Authority,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    user: int,
    command: str,
) -> None:
    fresh = commands.issue(store, ca, Role.CLIENT, ["web1"], dial="pipe:1", now=now)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    display.delivered("Issued", fresh, Destination(Path("some where/my web1.bundle")))
    assert capsys.readouterr().out.splitlines()[-1] == f"{command} identity install 'my web1.bundle'"


def test_a_reason_that_has_no_word_here_is_still_told(store: Store, ca: Authority, now: datetime) -> None:
    fresh = commands.issue(store, ca, Role.CLIENT, ["web1"], dial="pipe:1", now=now)
    entry = Revocation(fresh.certificate.serial_number, now, x509.ReasonFlags.aa_compromise)
    told = display.facts(store.records()[0], {entry.serial: entry}, now)
    assert (told["reason"], told["revoked_at"]) == ("aACompromise", authority.stamp(now))
