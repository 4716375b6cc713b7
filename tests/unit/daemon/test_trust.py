"""Who is let in, and who must go when something changes: no network, but certificates of every shape."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from restpipe.daemon import trust as trust_module
from restpipe.daemon.peers import PeerTable
from restpipe.daemon.trust import Refused, Sources, Trust
from restpipe.errors import Code, ConfigError
from restpipe.transport import revocation
from restpipe.transport.certificates import Use, read_chain
from restpipe.transport.tls import TlsFiles, server_context
from tests.support.certificates import DAY_S, Made, authority, leaf, revocation_list, uri

CA = authority("Test CA")


class FakeTransport:
    """Shows a certificate as a TLS transport does."""

    def __init__(self, chain: list[bytes]) -> None:
        self._chain = chain

    def get_extra_info(self, name: str) -> object:
        return self if name == "ssl_object" else None

    def get_verified_chain(self) -> list[bytes]:
        return self._chain


def chain_of(made: Made | None) -> list[bytes]:
    chain: list[bytes] = []
    while made is not None:
        chain.append(made.certificate.public_bytes(serialization.Encoding.DER))
        made = made.issuer
    return chain


class FakeLink:
    def __init__(self, made: Made | None) -> None:
        self.transport = FakeTransport(chain_of(made))


class FakeLinks:
    """Records what is done to links and sessions."""

    def __init__(self) -> None:
        self.cut_off: list[tuple[FakeLink, Code, str]] = []
        self.forgotten: list[str] = []

    def cut(self, link: FakeLink, code: Code, detail: str) -> None:
        self.cut_off.append((link, code, detail))

    def forget_session(self, peer: object, detail: str) -> None:
        self.forgotten.append(peer.name)  # type: ignore[attr-defined]


class Stage:
    """A server's trust, in a folder."""

    def __init__(self, folder: Path, *, name: str = "", own: Made | None = None) -> None:
        self.folder = folder
        (own or leaf("localhost", CA, ("server",), days=300)).write(folder, CA)
        self.files = TlsFiles(
            folder / "key.pem", folder / "certificate.pem", folder / "ca.pem", folder / "crl.pem"
        )
        self.links = FakeLinks()
        self.peers = PeerTable(10, 10)
        lists = (self.files.crl, folder / "second.pem")
        self.sources = Sources(self.files, lists, lambda: server_context(self.files), name)
        self.trust = Trust(
            self.sources,
            links=self.links,  # type: ignore[arg-type]
            peers=self.peers,
            use=Use.CLIENT,
        )

    def admit(self, made: Made | None) -> FakeLink:
        link = FakeLink(made)
        self.trust.admit(link)  # type: ignore[arg-type]
        return link

    def join(self, made: Made) -> FakeLink:
        link = FakeLink(made)
        name = self.trust.admit(link).name  # type: ignore[arg-type]
        peer = self.peers.add(name)
        assert peer is not None
        self.trust.joined(link, peer)  # type: ignore[arg-type]
        return link

    def put_list(self, *revoked: Made, name: str = "crl.pem", ca: Made = CA, days: float = 30) -> None:
        draft = self.folder / "draft"
        draft.write_bytes(revocation_list(ca, revoked, days=days, names_key=True))
        draft.replace(self.folder / name)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.trust.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the condition is a test's
            await asyncio.sleep(0.01)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(trust_module, "POLL_S", 0.01)
    return Stage(tmp_path)


@pytest.mark.parametrize(
    ("uses", "words"), [(("client",), "it is for use as a client"), ((), "it names no such use")]
)
def test_its_own_certificate_must_be_for_its_role(
    tmp_path: Path, stage: Stage, uses: tuple[str, ...], words: str
) -> None:
    wrong = leaf("localhost", CA, uses)
    words = f"^tls.certificate .*certificate.pem: the certificate is not for use as a server: {words}[^\n]*$"
    with pytest.raises(ConfigError, match=words):
        Stage(tmp_path / "other", own=wrong)
    context = stage.trust.context
    wrong.write(stage.folder, CA)
    with pytest.raises(ConfigError, match=words):
        stage.trust.reload()
    assert stage.trust.context is context


@pytest.mark.parametrize(
    ("made", "code", "words"),
    [
        (None, Code.HANDSHAKE, "cannot be read"),
        (leaf("", CA, names=()), Code.HANDSHAKE, "bears no name"),
        (leaf("web1", CA, ()), Code.HANDSHAKE, "of web1 is not for use as a client"),
        (leaf("web1", CA, ("server",)), Code.HANDSHAKE, "of web1 is not for use as a client"),
    ],
)
def test_what_openssl_lets_pass_and_we_do_not(
    stage: Stage, made: Made | None, code: Code, words: str
) -> None:
    with pytest.raises(Refused, match=words) as raised:
        stage.admit(made)
    assert raised.value.code is code


@pytest.mark.parametrize("made", [leaf("web1", CA), leaf("web1", CA, ("client", "server"))])
def test_good_ones_are_admitted(stage: Stage, made: Made) -> None:
    assert stage.trust.admit(FakeLink(made)).name == "web1"  # type: ignore[arg-type]


def test_a_name_may_be_asked_for(tmp_path: Path) -> None:
    stage = Stage(tmp_path, name="spiffe://a/pipe")
    stage.admit(leaf("x", CA, names=[uri("spiffe://a/other"), uri("spiffe://a/pipe")]))
    with pytest.raises(Refused, match="is for spiffe://a/other, not for spiffe://a/pipe"):
        stage.admit(leaf("x", CA, names=[uri("spiffe://a/other")]))


@pytest.mark.parametrize("where", ["crl.pem", "second.pem"])
def test_a_revoked_certificate_takes_its_link_and_session_with_it(stage: Stage, where: str) -> None:
    bad, good = leaf("web1", CA), leaf("web2", CA)

    async def main() -> None:
        lost, kept = stage.join(bad), stage.join(good)
        async with stage.running():
            stage.put_list(bad, name=where)
            await until(lambda: stage.links.cut_off)
        ((link, code, detail),) = stage.links.cut_off
        assert (link, code) == (lost, Code.REVOKED)
        assert detail.startswith("the certificate of web1, serial ")
        assert detail.endswith(" is revoked")
        assert stage.links.forgotten == ["web1"]
        assert kept is not link

    asyncio.run(main())
    with pytest.raises(Refused, match=r"of web1, serial .* is revoked") as raised:
        stage.admit(bad)
    assert raised.value.code is Code.REVOKED
    stage.admit(good)
    stage.admit(leaf("web1", CA))


def test_the_session_of_an_absent_peer_goes_too(stage: Stage) -> None:
    bad = leaf("web1", CA)
    stage.trust.forget(stage.join(bad))  # type: ignore[arg-type]
    stage.put_list(bad)
    stage.trust.reload()
    assert stage.links.forgotten == ["web1"]
    assert stage.links.cut_off == []


def test_the_same_serial_of_another_authority_is_not_meant(stage: Stage) -> None:
    other = authority("Other CA")
    twin = leaf("web1", CA)
    (stage.folder / "ca.pem").write_bytes(CA.pem + other.pem)
    stage.put_list(twin, ca=other)
    stage.trust.reload()
    stage.admit(twin)


def test_nor_is_that_of_another_authority_of_the_same_name(stage: Stage) -> None:
    old = authority("Test CA")
    (stage.folder / "ca.pem").write_bytes(old.pem + CA.pem)
    stage.put_list(leaf("web1", old, serial=2), ca=old)
    stage.trust.reload()
    stage.admit(leaf("web1", CA, serial=2))
    with pytest.raises(Refused):
        stage.admit(leaf("web1", old, serial=2))


def test_names_are_told_and_compared_in_one_form(tmp_path: Path, stage: Stage) -> None:
    capitals = FakeLink(leaf("WEB1.Corp.Example.", CA))
    assert stage.trust.admit(capitals).name == "web1.corp.example"  # type: ignore[arg-type]
    other = Stage(tmp_path / "other", name="SPIFFE://Corp.Example/Pipe")
    other.admit(leaf("x", CA, names=[uri("spiffe://corp.example/Pipe")]))
    with pytest.raises(Refused):
        other.admit(leaf("x", CA, names=[uri("spiffe://corp.example/pipe")]))


def test_a_list_by_nobody_known_is_left_out_and_told(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.put_list(leaf("x", CA), ca=authority("Other CA"))
    stage.trust.reload()
    assert "the list of CN=Other CA is left out" in caplog.text


TWIN = authority("Test CA")
OTHER = authority("Other CA")


def test_a_list_signed_with_another_key_than_its_authority_has_is_an_error(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.put_list(leaf("x", CA), ca=TWIN)
    stage.trust.reload()
    (error,) = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert "the list of CN=Test CA is left out: the authority of that name in tls.ca has another key" in (
        error.getMessage()
    )


@pytest.mark.parametrize("other", [TWIN, OTHER], ids=["of the same name", "of another name"])
@pytest.mark.parametrize("asked", [True, False], ids=["reloaded", "looked at"])
def test_a_list_of_another_authority_revokes_nothing_less(
    stage: Stage, caplog: pytest.LogCaptureFixture, other: Made, asked: bool
) -> None:
    bad, worse = leaf("web1", CA), leaf("web2", CA)
    stage.put_list(bad)
    stage.trust.reload()
    told = "the list of CN=Test CA is no longer there; what it said still holds"

    async def main() -> None:
        async with stage.running():
            stage.put_list(ca=other)
            if asked:
                stage.trust.reload()
            await until(lambda: told in caplog.text)
            with pytest.raises(Refused):
                stage.admit(bad)
            # A newer one replaces it.
            stage.put_list(worse)
            await until(lambda: stage.trust._revocations.covers(read_chain(chain_of(worse))))

    asyncio.run(main())
    stage.admit(bad)
    (line,) = [line for line in caplog.records if told in line.getMessage()]
    assert line.levelno == logging.ERROR


def test_a_bundle_of_lists_that_has_lost_one_still_brings_the_other(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    (stage.folder / "ca.pem").write_bytes(CA.pem + OTHER.pem)
    ours, theirs, theirs_too = leaf("web1", CA), leaf("web2", OTHER), leaf("web3", OTHER)
    stage.files.crl.write_bytes(revocation_list(CA, [ours]) + revocation_list(OTHER, [theirs]))
    stage.trust.reload()

    async def main() -> None:
        async with stage.running():
            stage.put_list(theirs_too, ca=OTHER)
            await until(lambda: "the list of CN=Test CA is no longer there" in caplog.text)

    asyncio.run(main())
    for made in (ours, theirs_too):
        with pytest.raises(Refused):
            stage.admit(made)
    stage.admit(theirs)


def test_a_list_that_is_gone_still_holds_after_a_reload(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    bad = leaf("web1", CA)
    stage.put_list(bad)
    stage.trust.reload()
    stage.files.crl.unlink()
    stage.trust.reload()
    assert "the list of CN=Test CA is no longer there" in caplog.text
    with pytest.raises(Refused):
        stage.admit(bad)


def test_lists_go_with_their_authority_and_with_their_place_in_the_configuration(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    bad = leaf("web1", CA)
    stage.put_list(bad)
    stage.trust.reload()
    stage.trust.reload(stage.sources._replace(lists=()))
    stage.admit(bad)
    stage.trust.reload(stage.sources)
    leaf("localhost", OTHER, ("server",)).write(stage.folder, OTHER)
    stage.put_list(ca=OTHER)
    stage.trust.reload()
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]
    assert [entry.issuer for entry in stage.trust._lists[stage.files.crl]] == ["CN=Other CA"]


@pytest.mark.parametrize(
    "content", [b"", b"\x30\x03\x02\x01\x01", b"-----BEGIN X509 CRL-----\nx\n-----END X509 CRL-----"]
)
def test_a_list_that_cannot_be_read_changes_nothing(
    stage: Stage, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    bad = leaf("web1", CA)
    stage.put_list(bad)
    stage.trust.reload()

    async def main() -> None:
        async with stage.running():
            stage.files.crl.write_bytes(content)
            await until(lambda: "the one before still holds" in caplog.text)
            stage.files.crl.unlink()
            await until(lambda: "a revocation list is gone" in caplog.text)

    asyncio.run(main())
    with pytest.raises(Refused):
        stage.admit(bad)
    with pytest.raises(ConfigError):
        stage.files.crl.write_bytes(content)
        stage.trust.reload()


def put_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_link(target: str) -> Callable[[Path], None]:
    def put(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return put


def put_large(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(revocation.MAX_LIST + 1)


@pytest.mark.parametrize(
    ("put", "words"),
    [
        (put_fifo, "it is not a file"),
        (put_folder, "Is a directory"),
        (put_link("/dev/zero"), "it is larger than"),
        (put_large, "it is larger than"),
        (put_link("/dev/null"), "entry 1 is not a valid revocation list"),
    ],
)
def test_what_is_no_list_at_all_ends_nothing_and_keeps_no_other_list_from_being_read(
    stage: Stage, caplog: pytest.LogCaptureFixture, put: Callable[[Path], None], words: str
) -> None:
    first, second = leaf("web1", CA), leaf("web2", CA)
    stage.put_list(first)
    stage.trust.reload()

    async def main() -> None:
        link = stage.join(second)
        async with stage.running():
            put(stage.files.crl)
            await until(lambda: words in caplog.text)
            stage.put_list(second, name="second.pem")
            await until(lambda: stage.links.cut_off)
        assert [cut_off[0] for cut_off in stage.links.cut_off] == [link]

    asyncio.run(main())
    with pytest.raises(Refused):
        stage.admit(first)
    assert "Traceback" not in caplog.text


def test_a_link_that_leads_to_itself_is_no_absent_list(stage: Stage) -> None:
    stage.files.crl.symlink_to(stage.files.crl.name)
    with pytest.raises(ConfigError, match="Too many levels of symbolic links"):
        stage.trust.reload()


@pytest.mark.parametrize("file", ["certificate.pem", "key.pem", "ca.pem"])
@pytest.mark.parametrize("put", [put_fifo, put_folder, put_link("/dev/zero"), put_link("loop")])
def test_what_is_no_identity_at_all_leaves_the_one_in_force(
    stage: Stage, file: str, put: Callable[[Path], None]
) -> None:
    context = stage.trust.context
    (stage.folder / "loop").symlink_to("loop")
    put(stage.folder / file)
    with pytest.raises(ConfigError, match=rf"^tls\.\w+ .*{file}: "):
        stage.trust.reload()
    assert stage.trust.context is context


def test_an_expired_certificates_link_is_cut_and_its_session_stays(stage: Stage) -> None:
    async def main() -> None:
        short = stage.join(leaf("web1", CA, days=1.5 / DAY_S))
        stage.join(leaf("web2", CA))
        async with stage.running():
            await until(lambda: stage.links.cut_off)
        ((link, code, detail),) = stage.links.cut_off
        assert (link, code) == (short, Code.REVOKED)
        assert detail.startswith("the certificate of web1 has expired at ")
        assert stage.links.forgotten == []

    asyncio.run(main())


def test_the_link_of_a_certificate_that_was_trusted_itself_goes_with_its_trust(stage: Stage) -> None:
    pinned = leaf("web1", None)
    (stage.folder / "ca.pem").write_bytes(CA.pem + pinned.pem)
    stage.trust.reload()
    link = stage.join(pinned)
    stage.trust.reload()
    assert stage.links.cut_off == []
    (stage.folder / "ca.pem").write_bytes(CA.pem)
    stage.trust.reload()
    ((cut, code, detail),) = stage.links.cut_off
    assert (cut, code) == (link, Code.AUTHORITY_GONE)
    assert "CN=web1 may no longer be trusted" in detail


def test_links_of_a_ca_that_is_trusted_no_more_come_anew(stage: Stage) -> None:
    new, middle = authority("New CA"), authority("Middle", CA)
    old_link, through = stage.join(leaf("web1", CA)), stage.join(leaf("web2", middle))
    (stage.folder / "ca.pem").write_bytes(CA.pem + new.pem)
    stage.trust.reload()
    assert stage.links.cut_off == []
    new_link = stage.join(leaf("web3", new))
    (stage.folder / "ca.pem").write_bytes(new.pem)
    stage.trust.reload()
    # By turns, as they may be all that there are.
    assert {(link, code) for link, code, _ in stage.links.cut_off} == {
        (old_link, Code.AUTHORITY_GONE),
        (through, Code.AUTHORITY_GONE),
    }
    assert new_link not in {link for link, _, _ in stage.links.cut_off}
    assert stage.links.forgotten == []


def test_files_that_cannot_be_used_leave_all_as_it_was(stage: Stage) -> None:
    context = stage.trust.context
    (stage.folder / "certificate.pem").write_bytes(b"broken")
    with pytest.raises(ConfigError):
        stage.trust.reload()
    assert stage.trust.context is context
    stage.admit(leaf("web1", CA))


def test_good_files_make_a_new_context(stage: Stage) -> None:
    context = stage.trust.context
    stage.trust.reload()
    assert stage.trust.context is not context
    assert isinstance(stage.trust.context, ssl.SSLContext)


@pytest.mark.parametrize(
    ("days", "level", "words"),
    [
        (300, None, ""),
        (29.5, logging.WARNING, "expires in 29 days"),
        (0.5, logging.WARNING, "expires in 0 days"),
        (-0.5, logging.ERROR, "expired at"),
    ],
)
def test_the_end_of_ones_own_certificate_is_told_in_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, days: float, level: int | None, words: str
) -> None:
    stage = Stage(tmp_path, own=leaf("localhost", CA, ("server",), days=days))

    async def main() -> None:
        async with stage.running():
            await asyncio.sleep(0)

    asyncio.run(main())
    told = [record for record in caplog.records if "this host's certificate" in record.getMessage()]
    assert [record.levelno for record in told] == ([level] if level else [])
    assert all(words in record.getMessage() for record in told)


def test_a_list_out_of_date_still_holds_and_is_told(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    bad = leaf("web1", CA)
    stage.put_list(bad, days=-1)
    stage.trust.reload()

    async def main() -> None:
        async with stage.running():
            await until(lambda: "is out of date" in caplog.text)

    asyncio.run(main())
    with pytest.raises(Refused):
        stage.admit(bad)
    stage.admit(leaf("web2", CA))


def test_a_clock_behind_our_own_certificate_judges_nobody_by_dates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_check_time = 0x200000
    stage = Stage(tmp_path)
    assert not stage.trust.context.verify_flags & no_check_time
    before = stage.trust.context.verify_flags
    monkeypatch.setattr(trust_module.time, "time", lambda: 0.0)
    assert stage.trust.context.verify_flags == before | no_check_time
    stage.trust.reload()
    assert stage.trust.context.verify_flags == before | no_check_time
    monkeypatch.undo()
    assert stage.trust.context.verify_flags == before


def test_another_place_may_be_named(stage: Stage, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = Stage(elsewhere).sources
    before = stage.trust.context
    stage.trust.reload(moved)
    assert stage.trust.context is not before
    # From here on it is the new place that counts.
    (stage.folder / "ca.pem").write_text("nothing of use")
    stage.trust.reload()
    with pytest.raises(ConfigError):
        stage.trust.reload(stage.sources)
    stage.trust.reload()
