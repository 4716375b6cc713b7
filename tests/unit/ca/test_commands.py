from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from restpipe_ca import authority, commands, faults
from restpipe_ca.authority import Authority
from restpipe_ca.bundle import Bundle
from restpipe_ca.commands import State
from restpipe_ca.delivery import Destination
from restpipe_ca.errors import CaError
from restpipe_ca.profiles import Role
from restpipe_ca.store import CERTIFICATE, CRL, INDEX, KEY, Store


def issue(store: Store, name: str, now: datetime, role: Role = Role.CLIENT, **more: object) -> Bundle:
    ca = store.unlock(commands.no_passphrase)
    return commands.issue(store, ca, role, [name], dial="pipe:1234", now=now, **more)  # type: ignore[arg-type]


def states(store: Store, now: datetime) -> list[tuple[str, State]]:
    revoked = authority.revocations(store.revocation_list())
    return [(record.name, commands.state(record, revoked, now)) for record in store.records()]


def request(common_name: str, *names: str) -> x509.CertificateSigningRequest:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    # What a request asks for beyond its names must not matter.
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, names))), False)
    return builder.sign(authority.new_key(), hashes.SHA256())


def test_init_makes_one_ca_and_never_another(store: Store, now: datetime) -> None:
    before = {path.name: path.read_bytes() for path in store.directory.iterdir()}
    assert commands.init(store, "Another", now) is False
    assert {path.name: path.read_bytes() for path in store.directory.iterdir()} == before


def test_init_does_not_replace_a_lost_key(store: Store, now: datetime) -> None:
    issue(store, "web1", now)
    store.path(KEY).unlink()
    with pytest.raises(CaError, match="put the key back"):
        commands.init(store, "Another", now)
    assert not store.initialised


def test_init_refuses_a_folder_that_everybody_can_write(tmp_path: Path, now: datetime) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(CaError, match="written by everybody"):
        commands.init(Store(tmp_path), "CA", now)
    assert list(tmp_path.iterdir()) == []


def test_the_only_private_key_kept_is_the_cas(store: Store, now: datetime, tmp_path: Path) -> None:
    issue(store, "web1", now, to=Destination(tmp_path / "web1.bundle"))
    issue(store, "web2", now)
    holding = {path.name for path in store.directory.iterdir() if b"PRIVATE" in path.read_bytes()}
    assert holding == {KEY}


def test_an_issued_identity_is_good(store: Store, now: datetime) -> None:
    for role in Role:
        fresh = issue(store, "pipe", now, role)
        assert faults.of_identity(store, fresh.encode(), role, now) == []
    assert faults.of_store(store, now) == []


def test_a_name_with_a_valid_certificate_is_not_issued_another(store: Store, now: datetime) -> None:
    issue(store, "web1", now, days=10)
    with pytest.raises(CaError, match="valid until 2026-03-11T12:00:00Z: renew it"):
        issue(store, "web1", now)
    issue(store, "web1", now, Role.SERVER)
    issue(store, "web1", now + timedelta(days=11))
    assert len(store.records()) == 3


def test_nothing_is_signed_that_cannot_be_delivered(store: Store, now: datetime, tmp_path: Path) -> None:
    with pytest.raises(CaError, match="no such folder"):
        issue(store, "web1", now, to=Destination(tmp_path / "none" / "web1.bundle"))
    assert store.records() == ()


def test_a_delivery_that_failed_is_made_up_for(
    store: Store, now: datetime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the stick was pulled out")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="pulled out"):
        patched.setattr(Destination, "deliver", fail)
        issue(store, "web1", now)
    (record,) = store.records()
    with pytest.raises(CaError, match="is not overwritten"):
        issue(store, "web1", now, to=Destination(store.path(CERTIFICATE)))
    fresh = issue(store, "web1", now, to=Destination(tmp_path / "web1.bundle", tmp_path / "new"))
    assert fresh.certificate == record.certificate
    assert store.records() == (record,)
    assert store.pending(record) is None
    assert faults.of_identity(store, (tmp_path / "web1.bundle").read_bytes(), None, now) == []


@pytest.mark.parametrize("renewed", [False, True])
def test_a_delivery_without_a_key_is_made_up_for_as_well(
    store: Store,
    ca: Authority,
    now: datetime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    renewed: bool,
) -> None:
    asked = request("web9")

    def sign(to: Destination = commands.NOWHERE, what: x509.CertificateSigningRequest = asked) -> Bundle:
        return commands.sign(store, ca, Role.CLIENT, what, dial="pipe:1", now=now, to=to)

    def renew(to: Destination, **more: bool) -> Bundle:
        return commands.renew(store, ca, Role.CLIENT, "web9", dial="pipe:1", now=now, to=to, **more)

    if renewed:
        sign()
    command = renew if renewed else sign
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(Destination, "deliver", lambda *_: 1 / 0)
        command(Destination(tmp_path / "web9.bundle"))
    records = store.records()
    assert faults.of_store(store, now) == [
        "a bundle of client web9 waits to be delivered: run restpipe-ca renew again"
    ]
    # Who has another key, or wants one, gets no such bundle.
    for other in (lambda: sign(what=request("web9")), lambda: issue(store, "web9", now)):
        with pytest.raises(CaError, match="has a certificate that is valid until"):
            other()
    fresh = command(Destination(tmp_path / "web9.bundle", tmp_path / "new"))
    assert fresh.certificate == records[-1].certificate
    assert store.records() == records
    assert faults.of_store(store, now) == []
    assert faults.of_identity(store, (tmp_path / "web9.bundle").read_bytes(), None, now) == []


def test_a_new_key_is_not_taken_for_the_one_that_waits(
    store: Store, ca: Authority, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(Destination, "deliver", lambda *_: 1 / 0)
        commands.sign(store, ca, Role.CLIENT, request("web9"), dial="pipe:1", now=now)
    fresh = commands.renew(store, ca, Role.CLIENT, "web9", dial="pipe:1", now=now, new_key=True)
    assert fresh.key is not None
    assert faults.of_store(store, now) == [], "nothing waits that no command would deliver"


def test_revoking_forgets_a_bundle_that_waits(
    store: Store, ca: Authority, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(Destination, "deliver", lambda *_: 1 / 0)
        issue(store, "web1", now)
    commands.revoke(store, ca, Role.CLIENT, "web1", now)
    assert store.pending(store.records()[0]) is None


def test_a_revoked_bundle_is_not_delivered_late(
    store: Store, ca: Authority, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(Destination, "deliver", lambda *_: 1 / 0)
        issue(store, "web1", now)
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(Store, "drop_pending", lambda *_: 1 / 0)
        commands.revoke(store, ca, Role.CLIENT, "web1", now)
    assert store.pending(store.records()[0]) is not None
    assert issue(store, "web1", now).certificate != store.records()[0].certificate


def test_sign_takes_the_key_and_the_names_and_nothing_else(
    store: Store, ca: Authority, now: datetime
) -> None:
    asked = request("ignored", "web1")
    fresh = commands.sign(store, ca, Role.CLIENT, asked, dial="pipe:1", now=now)
    assert fresh.key is None
    assert fresh.name == authority.common_name(fresh.certificate) == "web1"
    assert authority.names(fresh.certificate) == ("web1",)
    assert authority.public_bytes(fresh.certificate.public_key()) == authority.public_bytes(
        asked.public_key()
    )
    assert not authority.is_ca(fresh.certificate)
    assert faults.of_identity(store, fresh.encode(), Role.CLIENT, now) == []


def test_sign_chooses_the_given_name_before_the_requests(store: Store, ca: Authority, now: datetime) -> None:
    sign = commands.sign
    assert sign(store, ca, Role.CLIENT, request("web1"), dial="pipe:1", now=now).name == "web1"
    assert (
        sign(store, ca, Role.CLIENT, request("x", "a", "b"), ["web2"], dial="pipe:1", now=now).name == "web2"
    )
    server = sign(store, ca, Role.SERVER, request("x", "a", "b"), dial="pipe:1", now=now)
    assert authority.names(server.certificate) == ("a", "b")
    for asked, reason in [(request("x", "a", "b"), "one name, 2"), (request("Web 1"), "cannot be a name")]:
        with pytest.raises(CaError, match=reason):
            sign(store, ca, Role.CLIENT, asked, dial="pipe:1", now=now)


def test_sign_gives_a_name_to_no_second_host_unless_told(store: Store, ca: Authority, now: datetime) -> None:
    issue(store, "web1", now)
    with pytest.raises(CaError, match="add --again"):
        commands.sign(store, ca, Role.CLIENT, request("web1"), dial="pipe:1", now=now)
    commands.sign(store, ca, Role.CLIENT, request("web1"), dial="pipe:1", now=now, again=True)
    assert states(store, now) == [("web1", State.VALID)] * 2


def test_requests_that_are_broken_or_forged_are_refused() -> None:
    der = bytearray(request("web1").public_bytes(serialization.Encoding.DER))
    der[der.index(b"web1")] = ord("W")
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(CaError, match="not signed by the key"):
        commands.load_request(forged)
    for data in (
        b"",
        b"hello",
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    ):
        with pytest.raises(CaError, match="not a certificate request"):
            commands.load_request(data)


def test_renew_keeps_the_key_and_the_older_certificate(store: Store, ca: Authority, now: datetime) -> None:
    old = issue(store, "web1", now, days=10)
    later = now + timedelta(days=20)
    fresh = commands.renew(store, ca, Role.CLIENT, "web1", dial="pipe:1", now=later)
    assert fresh.key is None
    assert authority.public_bytes(fresh.certificate.public_key()) == authority.public_bytes(
        old.certificate.public_key()
    )
    assert states(store, now + timedelta(days=5)) == [("web1", State.VALID), ("web1", State.NOT_YET_VALID)]
    assert states(store, later) == [("web1", State.EXPIRED), ("web1", State.VALID)]


def test_renew_with_a_new_key_keeps_all_names(store: Store, ca: Authority, now: datetime) -> None:
    names = ["pipe", "localhost", "::1"]
    old = commands.issue(store, ca, Role.SERVER, names, dial="pipe:1", now=now)
    fresh = commands.renew(store, ca, Role.SERVER, "pipe", dial="pipe:1", now=now, new_key=True)
    assert authority.names(fresh.certificate) == tuple(names)
    assert fresh.key not in (None, old.key)
    assert faults.of_identity(store, fresh.encode(), Role.SERVER, now) == []


def test_renew_revives_nothing_revoked_or_unknown(store: Store, ca: Authority, now: datetime) -> None:
    issue(store, "web1", now)
    commands.revoke(store, ca, Role.CLIENT, "web1", now)
    with pytest.raises(CaError, match="is revoked: issue a new one"):
        commands.renew(store, ca, Role.CLIENT, "web1", dial="pipe:1", now=now)
    with pytest.raises(CaError, match="no client 'web2'"):
        commands.renew(store, ca, Role.CLIENT, "web2", dial="pipe:1", now=now)


def test_revoke_takes_all_certificates_of_the_name_and_no_other(
    store: Store, ca: Authority, now: datetime
) -> None:
    issue(store, "web1", now)
    issue(store, "web2", now)
    issue(store, "web1", now, Role.SERVER)
    commands.renew(store, ca, Role.CLIENT, "web1", dial="pipe:1", now=now)
    assert len(commands.revoke(store, ca, Role.CLIENT, "web1", now)) == 2
    assert states(store, now) == [
        ("web1", State.REVOKED),
        ("web2", State.VALID),
        ("web1", State.VALID),
        ("web1", State.REVOKED),
    ]
    issue(store, "web1", now)
    assert states(store, now)[-1] == ("web1", State.VALID)


def test_revoking_twice_changes_nothing(store: Store, ca: Authority, now: datetime) -> None:
    issue(store, "web1", now)
    commands.revoke(store, ca, Role.CLIENT, "web1", now, reason=x509.ReasonFlags.superseded)
    before = store.path(CRL).read_bytes()
    assert commands.revoke(store, ca, Role.CLIENT, "web1", now) == []
    assert store.path(CRL).read_bytes() == before


def test_revoke_by_serial_number(store: Store, ca: Authority, now: datetime) -> None:
    old = issue(store, "web1", now)
    commands.renew(store, ca, Role.CLIENT, "web1", dial="pipe:1", now=now)
    serial = authority.serial_text(old.certificate.serial_number).upper()
    with pytest.raises(CaError, match="no certificate of web1"):
        commands.revoke(store, ca, Role.CLIENT, "web1", now, serial="zz")
    commands.revoke(store, ca, Role.CLIENT, "web1", now, serial=":".join([serial[:2], serial[2:]]))
    assert states(store, now) == [("web1", State.REVOKED), ("web1", State.VALID)]


def test_a_name_of_the_other_role_is_hinted_at(store: Store, ca: Authority, now: datetime) -> None:
    issue(store, "pipe", now, Role.SERVER)
    with pytest.raises(CaError, match="but a server of that name"):
        commands.revoke(store, ca, Role.CLIENT, "pipe", now)


def test_lists_are_numbered_and_forget_nothing(store: Store, ca: Authority, now: datetime) -> None:
    assert authority.list_number(store.revocation_list()) == 1
    issue(store, "web1", now)
    commands.revoke(store, ca, Role.CLIENT, "web1", now)
    before = authority.revocations(store.revocation_list())
    assert commands.rewrite_list(store, ca, now + timedelta(days=9), days=7) == 3
    assert authority.revocations(store.revocation_list()) == before
    assert authority.next_update(store.revocation_list()) == now.replace(microsecond=0) + timedelta(days=16)


def test_clients_dial_the_newest_valid_server(store: Store, ca: Authority, now: datetime) -> None:
    assert dialed(store, now) == []
    for name in ("one", "two"):
        issue(store, name, now, Role.SERVER)
    issue(store, "web1", now)
    assert dialed(store, now) == ["two", "one"]
    commands.revoke(store, ca, Role.SERVER, "two", now)
    assert dialed(store, now) == ["one"]
    assert dialed(store, now + timedelta(days=9999)) == []


def dialed(store: Store, now: datetime) -> list[str]:
    return [record.name for record in commands.servers(store, now)]


def left(store: Store, *names: str) -> dict[str, bytes]:
    """Only these files of the CA are there."""
    for path in store.directory.iterdir():
        if path.name not in names:
            path.unlink()
    return {path.name: path.read_bytes() for path in store.directory.iterdir()}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_init_that_broke_off_begins_again(store: Store, now: datetime, count: int) -> None:
    """Its files come in this order."""
    left(store, *(INDEX, CRL, CERTIFICATE)[:count])
    assert commands.init(store, "CA", now)
    assert faults.of_store(store, now) == []


@pytest.mark.parametrize("names", [[CERTIFICATE], [CRL], [CERTIFICATE, CRL]])
def test_of_a_ca_whose_key_is_elsewhere_nothing_is_overwritten(
    store: Store, now: datetime, names: list[str]
) -> None:
    before = left(store, *names)
    with pytest.raises(CaError, match=r"is of a CA whose key is not here: move it away"):
        commands.init(store, "CA", now)
    assert left(store, *names) == before


def test_create_pipe_makes_every_identity(tmp_path: Path, now: datetime) -> None:
    store = commands.create_pipe(tmp_path, now, clients=["web1", "web2"])
    assert {path.name for path in tmp_path.iterdir()} == {"ca", "localhost", "web1", "web2"}
    for name, role in [("localhost", Role.SERVER), ("web1", Role.CLIENT), ("web2", Role.CLIENT)]:
        assert {path.name for path in (tmp_path / name).iterdir()} == {
            "key.pem",
            "certificate.pem",
            "ca.pem",
            "crl.pem",
        }
        data = (tmp_path / name / "key.pem").read_bytes() + (tmp_path / name / "certificate.pem").read_bytes()
        assert faults.of_identity(store, data, role, now) == []


def in_child(action: Callable[[], object]) -> int:
    """The exit status of a forked process that does this: 0, or 1 if it raised."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_writers_at_the_same_time_lose_nothing(store: Store, ca: Authority, now: datetime) -> None:
    def work(writer: int) -> None:
        for number in range(4):
            issue(store, f"web{writer}-{number}", now)
        commands.revoke(store, ca, Role.CLIENT, f"web{writer}-0", now)

    children = []
    for writer in range(4):
        child = os.fork()
        if child == 0:
            os._exit(in_child(lambda: work(writer)))  # noqa: B023 - the child goes on with its own copy
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert len(store.records()) == 16
    assert sorted(name for name, state in states(store, now) if state is State.REVOKED) == [
        f"web{writer}-0" for writer in range(4)
    ]
    assert authority.list_number(store.revocation_list()) == 5
    assert faults.of_store(store, now) == []


CRASHED = 99


def crash_at(step: int, action: Callable[[], object]) -> bool:
    """Do it in a process that dies, as by loss of power, before its step-th call that changes a disk."""

    left = step

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(CRASHED)
            return real(*arguments, **more)

        return call

    def dying() -> object:
        for name in ("open", "write", "fsync", "rename", "link", "unlink", "fchmod", "mkdir"):
            setattr(os, name, counted(getattr(os, name)))
        return action()

    status = in_child(dying)
    assert status in (0, CRASHED)
    return status == CRASHED


def each_crash(action: Callable[[int], Callable[[], object]], check: Callable[[int], None]) -> None:
    step = 0
    while crash_at(step, action(step)):
        check(step)
        step += 1
    check(step)
    assert step > 3


def test_a_crash_in_init_leaves_no_ca_or_a_whole_one(tmp_path: Path, now: datetime) -> None:
    def check(step: int) -> None:
        store = Store(tmp_path / f"ca{step}")
        before = store.path(KEY).read_bytes() if store.initialised else None
        if before:
            assert faults.of_store(store, now) == []
        commands.init(store, "CA", now)
        assert faults.of_store(store, now) == []
        assert before in (None, store.path(KEY).read_bytes())
        with store.writing():
            assert {path.name for path in store.directory.iterdir()} == {KEY, CERTIFICATE, CRL, INDEX, "lock"}

    each_crash(lambda step: lambda: commands.init(Store(tmp_path / f"ca{step}"), "CA", now), check)


def test_a_crash_in_issue_leaves_it_to_be_done_or_finished(
    tmp_path: Path, store: Store, now: datetime
) -> None:
    waited = 0

    def to(step: int) -> Destination:
        return Destination(tmp_path / f"web{step}.bundle", tmp_path / f"pem{step}")

    def check(step: int) -> None:
        nonlocal waited
        waiting = [f"a bundle of client web{step} waits to be delivered: run restpipe-ca issue again"]
        found = faults.of_store(store, now)
        assert found in ([], waiting)
        waited += found == waiting
        destination = to(step)
        assert destination.bundle is not None
        assert destination.pem_directory is not None
        if found or not destination.bundle.exists():
            issue(store, f"web{step}", now, to=destination)
        (record,) = commands.find(store, Role.CLIENT, f"web{step}")
        assert faults.of_identity(store, destination.bundle.read_bytes(), Role.CLIENT, now) == []
        assert (destination.pem_directory / "key.pem").read_bytes() in destination.bundle.read_bytes()
        assert store.pending(record) is None

    each_crash(lambda step: lambda: issue(store, f"web{step}", now, to=to(step)), check)
    assert waited > 3


def test_a_crash_in_revoke_leaves_it_done_or_undone(store: Store, ca: Authority, now: datetime) -> None:
    issue(store, "web0", now)

    def check(step: int) -> None:
        assert faults.of_store(store, now) == []
        before = states(store, now)[-1]
        assert before[1] in (State.VALID, State.REVOKED)
        fresh = commands.revoke(store, ca, Role.CLIENT, f"web{step}", now)
        assert len(fresh) == (1 if before[1] is State.VALID else 0)
        assert states(store, now)[-1][1] is State.REVOKED
        issue(store, f"web{step + 1}", now)

    each_crash(lambda step: lambda: commands.revoke(store, ca, Role.CLIENT, f"web{step}", now), check)
