"""Inside the sandboxes as shipped: strangers, bad frames, workers that hang, other authorities."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import test_trust

# The integration tests themselves.
from tests.integration.test_failures import (  # noqa: F401
    test_a_bad_frame_ends_its_own_link_alone,
    test_another_version_is_refused_with_a_word_to_both,
    test_strangers_are_told_apart_in_one_line_each,
    test_the_daemons_sockets_take_any_bytes,
)
from tests.integration.test_trust import (  # noqa: F401
    asking,
    test_a_bad_certificate_is_one_clear_line_here_and_there,
    test_a_handshake_that_breaks_off_is_one_line,
    test_nobody_comes_in_without_a_certificate,
    test_older_versions_are_refused,
    test_openssl_reads_why_it_is_refused,
)
from tests.support.certificates import DAY_S, Made, authority, leaf, load, rsa_key, uri
from tests.support.conditions import wait_for
from tests.system.inside import Inside, free_of_complaints, network_of, seen_from_now

CLIENT = "spiffe://corp.example/web/1"
AS_PATH = "spiffe%3A%2F%2Fcorp.example%2Fweb%2F1"


@pytest.fixture(scope="module")
def begun() -> set[object]:
    """Tests for which there is a daemon of their own."""
    return set()


@pytest.fixture
def pair(inside: Inside, begun: set[object], request: pytest.FixtureRequest) -> Iterator[Inside]:
    """In the place of the integration tests' own, with a daemon that has not begun to leave lines out."""
    if request.function not in begun:
        inside.start()
        begun.add(request.function)
    with network_of(inside.machine):
        yield seen_from_now(inside.machine)


@pytest.fixture
def stage(pair: Inside, tmp_path: Path) -> tuple[Inside, Made, Path]:
    return pair, load(pair.authority.folder), tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_a_list_that_is_bad_or_gone_changes_nothing(pair: Inside) -> None:
    folder = pair.machine.file("/var/lib/restpipe")
    test_trust.test_a_list_that_is_bad_or_gone_changes_nothing(pair, pair.authority, folder)


@pytest.mark.parametrize("noun", ["spin//3", "block//3"])
def test_one_worker_that_hangs_stops_nobody_else(pair: Inside, noun: str) -> None:
    machine = pair.machine
    machine.run("systemctl start restpipe-client-handlers@2")
    try:
        hanging = threading.Thread(target=lambda: pair.server.http.get(f"/client/client-1/{noun}"))
        hanging.start()
        for _ in range(100):
            assert pair.server.http.get("/client/client-1/pid").status == 200
            assert pair.client.http.get("/server/pid").status == 200
        hanging.join()
    finally:
        machine.run("systemctl stop restpipe-client-handlers@2")


class Identities:
    """Those of both roles, changed by hand where they are."""

    def __init__(self, pair: Inside) -> None:
        self._pair = pair
        self._folders = {
            role: pair.machine.file(f"/var/lib/restpipe/{role}") for role in ("server", "client")
        }
        self._before = {
            path: path.read_bytes() for folder in self._folders.values() for path in folder.glob("*.pem")
        }

    def trust(self, role: str, *trusted: Made) -> None:
        self._write(role, "ca.pem", b"".join(each.pem for each in trusted))

    def show(self, role: str, made: Made) -> None:
        self._write(role, "key.pem", made.key_pem)
        self._write(role, "certificate.pem", made.chain)

    def take_up(self, *roles: str) -> None:
        for role in roles:
            daemon = getattr(self._pair, role).pipe
            before = daemon.log_text().count("lists reloaded")
            self._pair.machine.run(f"systemctl kill --signal=HUP restpipe-{role}")
            wait_for(lambda: daemon.log_text().count("lists reloaded") > before, f"{role} to reload")  # noqa: B023

    def restore(self) -> None:
        for path, content in self._before.items():
            path.write_bytes(content)
        for role in self._folders:
            self._pair.machine.restart_daemon(role)
        self._pair.machine.wait_answer("client", "/server/time")
        self._pair.machine.wait_answer("server", "/client/client-1/time")

    def _write(self, role: str, name: str, content: bytes) -> None:
        # Into the file as it is: whose it is, and who may read it, stays.
        (self._folders[role] / name).write_bytes(content)


@pytest.fixture
def identities(pair: Inside) -> Iterator[Identities]:
    made = Identities(pair)
    yield made
    made.restore()


def test_another_authority_under_load(pair: Inside, identities: Identities) -> None:
    """All of it is replaced by a company's, with intermediates, RSA and URIs: no request fails."""
    own = load(pair.authority.folder)
    root = authority("Corporate Root", key=rsa_key())
    middle = authority("Corporate Issuing", root, key=rsa_key())
    both = ("server", "client")
    with asking(pair) as statuses:
        for role in both:
            identities.trust(role, own, root)
        identities.take_up(*both)
        identities.show("server", leaf("localhost", middle, ("server",), key=rsa_key()))
        identities.show("client", leaf("client-1", middle))
        identities.take_up(*both)
        for role in both:
            identities.trust(role, root)
        identities.take_up("server")
        pair.server.pipe.wait_log("may no longer be trusted: connect anew")
        pair.server.pipe.wait_log("client-1 at .* is connected and resumes its session")
        identities.take_up("client")
        before = len(statuses)
        wait_for(lambda: len(statuses) > before + 20, "answers with the new authority")
    assert set(statuses) == {200}
    identities.show("client", leaf("", middle, names=[uri(CLIENT)]))
    pair.machine.restart_daemon("client")
    pair.machine.wait_answer("server", f"/client/{AS_PATH}/told")


def test_an_expired_certificates_link_is_closed_and_a_renewed_one_goes_on(
    pair: Inside, identities: Identities
) -> None:
    own = load(pair.authority.folder)
    identities.show("client", leaf("client-1", own, days=6 / DAY_S))
    pair.machine.restart_daemon("client")
    pair.server.pipe.wait_log("client-1 at .* is connected and begins a session")
    pair.server.pipe.wait_log(
        "the link to client-1 at .* is gone: the certificate of client-1 has expired at"
    )
    identities.show("client", leaf("client-1", own))
    identities.take_up("client")
    pair.server.pipe.wait_log("client-1 at .* is connected and resumes its session")


def test_nothing_met_the_bounds_of_its_sandbox(inside: Inside) -> None:
    assert not free_of_complaints(inside.machine)
