"""Who is let in, who is not and what is said about it, and how identities change while everything runs."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from restpipe.protocol import frames
from restpipe.protocol.frames import HELLO, WELCOME
from restpipe.protocol.schema_pb2 import ROLE_PIPE, Hello
from tests.integration.conftest import ECHO, client_of
from tests.support.certificates import (
    DAY_S,
    Made,
    authority,
    leaf,
    load,
    openssl,
    revocation_list,
    rsa_key,
    uri,
)
from tests.support.conditions import TIMEOUT_S, wait_for
from tests.support.identities import Authority, Identity
from tests.support.nodes import Node, Pair
from tests.support.processes import clean_environment, python, rss_bytes

LOCALHOST = "127.0.0.1"


@pytest.fixture
def own_authority(folder: Path) -> Authority:
    """A CA that a test may do anything to; it stands in `folder / "ca"`."""
    return Authority(folder)


@pytest.fixture
def own(own_authority: Authority, folder: Path) -> Pair:
    """A pair on the CA's own host, not started."""
    pair = Pair(folder, own_authority, ECHO, ECHO)
    pair.server.configure({"tls": {"ca_directory": str(folder / "ca")}})
    return pair


def restpipe(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*python(), "-m", "restpipe", *arguments],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def still_works(pair: Pair) -> None:
    with client_of(pair.client) as client:
        assert client.get("/server/told").status_code == 200
    with client_of(pair.server) as client:
        assert client.get(f"/client/{pair.client_name}/told").status_code == 200


# From nothing to a joined client.


def test_a_first_start_one_issue_and_one_install_are_all(folder: Path) -> None:
    server = Node("server", folder / "s", Identity("localhost", folder / "id" / "server"))
    client = Node("client", folder / "c", Identity("web1", folder / "id" / "client"))
    server.configure({"pipe": {"bind": LOCALHOST, "port": 0}})
    with server, client:
        server.start(ready=False)
        made = server.pipe.wait_log(r"first start: made this server's identity .*, by the CA in (\S+);")
        port = server.pipe.wait_log(r"listening at 127\.0\.0\.1:(\d+)")[1]
        bundle = folder / "web1.bundle"
        told = subprocess.run(
            [*python(), "-m", "restpipe_ca", "--directory", made[1]]  # noqa: RUF005 - two lines
            + ["issue", "web1", "--dial", f"localhost:{port}", "--out", str(bundle)],
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "restpipe identity install web1.bundle" in told
        installed = restpipe("identity", "install", str(bundle), "--config", str(client.config))
        assert "Installed client web1 in " in installed.stdout
        assert "No client runs here yet" in installed.stdout
        client.start(ready=False)
        assert server.wait_answer("/client/web1/time").status == 200
        assert client.wait_answer("/server/time").status == 200
        # Installed again it is taken up by the daemon that runs.
        again = restpipe("identity", "install", str(bundle), "--config", str(client.config))
        assert f"process {client.pipe.pid}) takes it up now" in again.stdout
        client.pipe.wait_log("certificates and revocation lists reloaded")
        for key in (*folder.rglob("key.pem"), *folder.rglob("ca.key"), bundle):
            assert key.stat().st_mode & 0o777 == 0o600, key
            assert key.stat().st_uid == os.geteuid(), key
        shown = json.loads(
            restpipe("identity", "show", "--role", "client", "--config", str(client.config), "--json").stdout
        )
        assert (shown[0]["name"], shown[0]["faults"]) == ("web1", [])
        assert_nothing_secret(folder, server, client)
        # A second start makes nothing anew.
        before = (folder / "id" / "server" / "certificate.pem").read_bytes()
        server.stop("pipe")
        server.start("pipe")
        assert "first start" not in server.pipe.log_text()
        assert (folder / "id" / "server" / "certificate.pem").read_bytes() == before


def assert_nothing_secret(folder: Path, *nodes: Node) -> None:
    """No line of any private key in a log, a command line or an environment."""
    secrets = set()
    for path in (*folder.rglob("key.pem"), *folder.rglob("ca.key")):
        secrets |= {line for line in path.read_bytes().splitlines() if not line.startswith(b"-----")}
    assert len(secrets) >= 9
    places = list(folder.rglob("*.log"))
    for node in nodes:
        for pid in node.pids():
            places += [Path(f"/proc/{pid}/cmdline"), Path(f"/proc/{pid}/environ")]
    assert len(places) > 10
    for place in places:
        content = place.read_bytes()
        assert not [secret for secret in secrets if secret in content], place


def test_a_request_is_signed_without_its_key_travelling(
    own: Pair, own_authority: Authority, folder: Path
) -> None:
    node = own.new_client("web9")
    shutil.rmtree(node_directory(own, "web9"))
    csr, bundle = folder / "web9.csr", folder / "web9.bundle"
    options = ("--role", "client", "--config", str(node.config))
    restpipe("identity", "request", "web9", "--out", str(csr), *options)
    own_authority.run("sign", str(csr), "--again", "--out", str(bundle))
    assert b"PRIVATE" not in bundle.read_bytes()
    restpipe("identity", "install", str(bundle), *options)
    with own:
        own.start()
        with node:
            node.start(ready=False)
            assert own.server.wait_answer("/client/web9/time").status == 200


def node_directory(pair: Pair, name: str) -> Path:
    return pair.authority.client(name).directory


# Strangers.


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[Pair, Made, Path]]:
    """A pair that runs, its CA with the key, and a folder."""
    with tempfile.TemporaryDirectory(prefix="rp-") as name:
        folder = Path(name)
        mine = Authority(folder)
        with Pair(folder, mine, ECHO, ECHO) as pair:
            pair.server.configure({"tls": {"ca_directory": str(folder / "ca")}})
            yield pair.start(), load(folder / "ca"), folder


Maker = Callable[[Made], Made]
BAD: dict[str, tuple[Maker, str, str]] = {
    "another CA's": (
        lambda ca: leaf("x", authority("Other CA")),
        "its certificate is refused: unable to get local issuer certificate",
        "UNKNOWN_CA",
    ),
    "a CA's of the same name": (
        lambda ca: leaf("x", Made(ca.certificate, authority("Thief").key)),
        "its certificate is refused: unable to get local issuer certificate",
        "",
    ),
    "self-signed": (
        lambda ca: leaf("x", None),
        "its certificate is refused: self.signed certificate",
        "UNKNOWN_CA",
    ),
    "expired": (
        lambda ca: leaf("x", ca, from_day=-3, days=-1),
        "its certificate is refused: certificate has expired",
        "CERTIFICATE_EXPIRED",
    ),
    "not yet valid": (
        lambda ca: leaf("x", ca, from_day=1),
        "its certificate is refused: certificate is not yet valid",
        "BAD_CERTIFICATE",
    ),
    "a server's": (
        lambda ca: leaf("x", ca, ("server",)),
        "its certificate is refused: uns[a-z]+ certificate purpose",
        "UNSUPPORTED_CERTIFICATE",
    ),
    "for no use": (
        lambda ca: leaf("web7", ca, ()),
        "web7 is refused: the certificate of web7 is not for use as a client",
        "",
    ),
    "without a name": (
        lambda ca: leaf("", ca, names=()),
        "a client without a name is refused: the certificate bears no name",
        "",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_certificate_is_one_clear_line_here_and_there(
    stage: tuple[Pair, Made, Path], folder: Path, kind: str
) -> None:
    pair, ca, _ = stage
    maker, line, alert = BAD[kind]
    identity = maker(ca).write(folder / "bad", ca)
    port, told = knock(pair.port, identity)
    pair.server.pipe.wait_log(rf"127\.0\.0\.1:{port}: (refused: )?{line}")
    if alert:
        assert alert in told
    lines_about(pair.server, port, 1)
    still_works(pair)


def test_nobody_comes_in_without_a_certificate(stage: tuple[Pair, Made, Path]) -> None:
    pair, ca, folder = stage
    (folder / "only-ca.pem").write_bytes(ca.pem)
    port, told = knock(pair.port, None, folder / "only-ca.pem")
    pair.server.pipe.wait_log(rf"127\.0\.0\.1:{port}: refused: peer did not return a certificate")
    assert "CERTIFICATE_REQUIRED" in told
    lines_about(pair.server, port, 1)


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""])
def test_a_handshake_that_breaks_off_is_one_line(stage: tuple[Pair, Made, Path], sent: bytes) -> None:
    pair, _, _ = stage
    with socket.create_connection((LOCALHOST, pair.port)) as sock:
        port = sock.getsockname()[1]
        sock.sendall(sent)
    pair.server.pipe.wait_log(rf"127\.0\.0\.1:{port}: refused: it closed in the middle of the handshake")
    lines_about(pair.server, port, 1)
    still_works(pair)


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1", "-tls1_2"])
def test_older_versions_are_refused(stage: tuple[Pair, Made, Path], version: str) -> None:
    pair, _, _ = stage
    done = s_client(pair, version, "-cipher", "ALL:@SECLEVEL=0")
    assert b"alert protocol version" in done.stderr
    assert b"Cipher is (NONE)" in done.stdout
    pair.server.pipe.wait_log("refused: an older version than TLS 1.3")


def test_what_openssl_sees_of_a_server(stage: tuple[Pair, Made, Path]) -> None:
    pair, _, folder = stage
    ticket = folder / "ticket.pem"
    identity = identity_options(pair.authority.client().directory)
    # The connection stays open until the server gives up waiting for a greeting: tickets would be in by then.
    done = s_client(pair, "-ign_eof", "-verify_return_error", "-sess_out", str(ticket), *identity)
    assert b"Verify return code: 0 (ok)" in done.stdout
    assert b"New, TLSv1.3" in done.stdout
    assert b"Secure Renegotiation IS supported" not in done.stdout
    assert b"New Session Ticket" not in done.stdout
    assert not ticket.exists()


def test_openssl_reads_why_it_is_refused(stage: tuple[Pair, Made, Path], folder: Path) -> None:
    pair, ca, _ = stage
    stranger = leaf("x", authority("Other CA")).write(folder / "bad", ca)
    done = s_client(pair, "-ign_eof", *identity_options(stranger))
    assert b"alert unknown ca" in done.stderr


def s_client(pair: Pair, *options: str) -> subprocess.CompletedProcess[bytes]:
    return openssl("s_client", "-connect", f"{LOCALHOST}:{pair.port}", "-servername", "localhost", *options)


def identity_options(directory: Path) -> list[str]:
    files = {"-cert": "certificate.pem", "-key": "key.pem", "-CAfile": "ca.pem"}
    return [word for option, name in files.items() for word in (option, str(directory / name))]


def sslyze() -> str | None:
    """It needs an older `cryptography` than ours, so it has a venv of its own (`make scan`)."""
    beside = Path(sys.prefix) / "scan" / "bin" / "sslyze"
    return os.environ.get("SSLYZE") or (str(beside) if beside.exists() else shutil.which("sslyze"))


@pytest.mark.skipif(sslyze() is None, reason="sslyze is not installed (make scan)")
def test_a_scan_finds_nothing_but_tls_1_3(stage: tuple[Pair, Made, Path], folder: Path) -> None:
    pair, _, _ = stage
    directory, out = pair.authority.client().directory, folder / "scan.json"
    asked = (
        "sslv2 sslv3 tlsv1 tlsv1_1 tlsv1_2 tlsv1_3 reneg resum compression heartbleed openssl_ccs early_data"
    )
    identity = ["--cert", str(directory / "certificate.pem"), "--key", str(directory / "key.pem")]
    options = [*identity, *(f"--{each}" for each in asked.split()), "--json_out", str(out)]
    subprocess.run(
        [str(sslyze()), *options, f"localhost:{pair.port}"],
        capture_output=True,
        timeout=120,
        check=False,
    )
    (scanned,) = json.loads(out.read_text())["server_scan_results"]
    assert scanned["scan_status"] == "COMPLETED", scanned
    found = {name: each["result"] for name, each in scanned["scan_result"].items() if each["result"]}
    accepted = {
        name: len(result["accepted_cipher_suites"])
        for name, result in found.items()
        if name.endswith("_cipher_suites")
    }
    assert accepted.pop("tls_1_3_cipher_suites") >= 2
    assert set(accepted.values()) == {0} and len(accepted) == 5
    assert not found["session_renegotiation"]["is_vulnerable_to_client_renegotiation_dos"]
    assert not found["tls_compression"]["supports_compression"]
    assert not found["tls_1_3_early_data"]["supports_early_data"]
    assert not found["heartbleed"]["is_vulnerable_to_heartbleed"]
    assert not found["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"]
    resumed = found["session_resumption"]
    assert resumed["tls_ticket_resumption_result"] == "SERVER_IS_TLS_1_3_ONLY"
    still_works(pair)


def test_ten_thousand_connects_that_never_finish_harm_nobody(stage: tuple[Pair, Made, Path]) -> None:
    pair, _, _ = stage
    daemon = pair.server.pipe
    memory = rss_bytes(daemon.pid)
    with many_sockets(10_000) as sockets, asking(pair) as answers:
        for sock in sockets:
            with contextlib.suppress(BlockingIOError):
                sock.connect((LOCALHOST, pair.port))
        daemon.wait_log("too many handshakes at once: [0-9]+ given up")
        # Two descriptors a handshake, and what was open before.
        wait_for(lambda: open_files(daemon.pid) < 1200, "few open files")
        assert rss_bytes(daemon.pid) - memory < 200 << 20
        with pair.new_client("late", ECHO) as late:
            late.start(ready=False)
            assert pair.server.wait_answer("/client/late/told").status == 200
        before = len(answers)
        wait_for(lambda: len(answers) > before + 20, "answers amid the flood")
    assert set(answers) == {200}
    wait_for(lambda: open_files(daemon.pid) < 100, "files closed again")
    still_works(pair)


def open_files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


@contextlib.contextmanager
def many_sockets(number: int) -> Iterator[list[socket.socket]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with contextlib.ExitStack() as stack:
            try:
                sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
            except OSError:
                pytest.skip(f"this machine allows {hard} open files, {number} are needed")
            for sock in sockets:
                sock.setblocking(False)
            yield sockets
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def asking(pair: Pair) -> Iterator[list[int]]:
    """Requests both ways, one after the other, for as long as the block runs; their statuses so far."""
    statuses: list[int] = []
    over = threading.Event()

    def ask(node: Node, path: str) -> None:
        with client_of(node) as client:
            while not over.is_set():
                try:
                    response = client.get(path, timeout=TIMEOUT_S)
                    statuses.append(response.status_code)
                except httpx.HTTPError:
                    statuses.append(0)

    threads = [
        threading.Thread(target=ask, args=(pair.client, "/server/told")),
        threading.Thread(target=ask, args=(pair.server, f"/client/{pair.client_name}/told")),
    ]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(statuses) > 10, "first answers")
        yield statuses
    finally:
        over.set()
        for thread in threads:
            thread.join()


def knock(port: int, identity: Path | None, ca: Path | None = None) -> tuple[int, str]:
    """Shakes hands and greets; own port, and what was heard: an error's name, or the bytes that came."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(ca or (identity / "ca.pem" if identity else None))
    if identity is not None:
        context.load_cert_chain(identity / "certificate.pem", identity / "key.pem")
    hello = Hello(major=1, role=ROLE_PIPE).SerializeToString()
    with socket.create_connection((LOCALHOST, port), timeout=TIMEOUT_S) as sock:
        own_port = int(sock.getsockname()[1])
        heard = bytearray()
        try:
            with context.wrap_socket(sock) as link:
                link.sendall(frames.encode(HELLO, head=hello))
                while piece := link.recv(65536):
                    heard += piece
        except ssl.SSLError as error:
            return own_port, error.reason or str(error)
    assert heard[:1] != bytes([WELCOME])
    return own_port, heard.decode("latin-1")


def lines_about(node: Node, port: int, number: int) -> None:
    lines = [line for line in node.pipe.log_text().splitlines() if f":{port}" in line]
    assert len(lines) == number, lines


# Servers that a client refuses.


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (lambda ca: leaf("elsewhere", ca, ("server",)), "Hostname mismatch"),
        (lambda ca: leaf("localhost", authority("Other"), ("server",)), "unable to get local issuer"),
        (lambda ca: leaf("localhost", ca, ("server",), days=-0.5), "has expired"),
    ],
)
def test_a_client_refuses_a_bad_server(folder: Path, made: Maker, line: str) -> None:
    ca = authority("Corporate")
    bad = made(ca).write(folder / "bad", ca)
    leaf("web1", ca).write(folder / "web1", ca)
    server = Node("server", folder / "s", Identity("localhost", bad))
    server.configure({"pipe": {"bind": LOCALHOST, "port": 0}})
    client = Node("client", folder / "c", Identity("web1", folder / "web1"))
    with server, client:
        server.start("pipe")
        port = server.pipe.wait_log(r"listening at 127\.0\.0\.1:(\d+)")[1]
        client.configure({"pipe": {"servers": [f"localhost:{port}"], "reconnect_max_s": 0.2}})
        client.start("pipe")
        client.pipe.wait_log(rf"cannot connect to localhost:{port}: .*{line}")
        # Refused in the handshake: the server hears the alert, again and again.
        wait_for(
            lambda: server.pipe.log_text().count("the other side refuses this side's certificate") > 2,
            "alerts",
        )
        # The same failure again is no news.
        assert client.pipe.log_text().count("cannot connect") == 1


@pytest.mark.parametrize(
    ("uses", "line"),
    [
        (("client",), "certificate purpose"),
        ((), "refused: the certificate of localhost is not for use as a server"),
    ],
)
def test_a_certificate_that_is_not_for_servers(folder: Path, uses: tuple[str, ...], line: str) -> None:
    """No server of ours begins with it, and a client believes no other one."""
    ca = authority("Corporate")
    bad = leaf("localhost", ca, uses).write(folder / "bad", ca)
    leaf("web1", ca).write(folder / "web1", ca)
    server = Node("server", folder / "s", Identity("localhost", bad))
    server.configure({"pipe": {"bind": LOCALHOST, "port": 0}})
    client = Node("client", folder / "c", Identity("web1", folder / "web1"))
    with server, client, pretending_server(bad) as port:
        server.start("pipe", ready=False)
        assert server.pipe.wait_end() == os.EX_CONFIG
        (told,) = server.pipe.log_text().splitlines()
        assert "certificate.pem: the certificate is not for use as a server: it " in told
        client.configure({"pipe": {"servers": [f"localhost:{port}"], "reconnect_max_s": 0.2}})
        client.start("pipe")
        client.pipe.wait_log(rf"cannot connect to localhost:{port}: .*{line}")


@contextlib.contextmanager
def pretending_server(identity: Path) -> Iterator[int]:
    """Shakes hands with whoever comes and says no more, until the block is left."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity / "certificate.pem", identity / "key.pem")

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock, contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as link:
                while link.recv(65536):
                    pass

    with socket.create_server((LOCALHOST, 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(TIMEOUT_S)


def test_a_client_hears_why_the_server_refuses_it(stage: tuple[Pair, Made, Path], folder: Path) -> None:
    pair, ca, _ = stage
    stranger = leaf("x", authority("Other CA")).write(folder / "bad", ca)
    client = Node("client", folder / "c", Identity("x", stranger))
    client.configure({"pipe": {"servers": [f"{LOCALHOST}:{pair.port}"], "server_name": "localhost"}})
    with client:
        client.start("pipe")
        client.pipe.wait_log(
            "cannot connect to .*: the other side refuses this side's certificate: "
            "it is not from a CA known there"
        )


# Identities from elsewhere.


def test_a_corporate_ca_with_intermediates_and_uris(folder: Path) -> None:
    root = authority("Corporate Root", key=rsa_key())
    middle = authority("Corporate Issuing", root, key=rsa_key())
    server_id, client_id = "spiffe://corp.example/pipe", "spiffe://corp.example/web/1"
    leaf("pipe", middle, ("server", "client"), names=[uri(server_id)], key=rsa_key()).write(
        folder / "ps", root
    )
    leaf("", middle, ("client",), names=[uri(client_id)]).write(folder / "pc", root)
    server = Node("server", folder / "s", Identity("pipe", folder / "ids"))
    client = Node("client", folder / "c", Identity("web", folder / "idc"))
    for node, source in ((server, folder / "ps"), (client, folder / "pc")):
        files = [str(source / name) for name in ("key.pem", "certificate.pem", "ca.pem")]
        restpipe("identity", "install", *files, "--role", node.role, "--config", str(node.config))
    server.configure(ECHO)
    client.configure(ECHO)
    server.configure({"pipe": {"bind": LOCALHOST, "port": 0}})
    with server, client:
        server.start()
        port = server.pipe.wait_log(r"listening at 127\.0\.0\.1:(\d+)")[1]
        client.configure(
            {"pipe": {"servers": [f"{LOCALHOST}:{port}"], "server_name": "spiffe://corp.example/other"}}
        )
        client.start("pipe")
        client.pipe.wait_log(
            f"refused: the certificate is for {server_id}, not for spiffe://corp.example/other"
        )
        client.configure({"pipe": {"server_name": server_id}})
        client.kill()
        client.start()
        answer = server.wait_answer("/client/spiffe%3A%2F%2Fcorp.example%2Fweb%2F1/told")
        assert answer.status == 200
        with client_of(client) as http:
            assert http.get("/server/told").status_code == 200


# What changes while all runs.


def test_revocation_takes_effect_at_once_and_for_good(
    own: Pair, own_authority: Authority, folder: Path
) -> None:
    with own:
        own.start()
        server = own.server.pipe
        own_authority.run("revoke", own.client_name)
        server.wait_log(rf"the link to {own.client_name} at .* is gone: the certificate of .* is revoked", 5)
        own.client.pipe.wait_log("refused by the server: the certificate of .* is revoked", 5)
        server.wait_log(
            rf"{own.client_name} is refused: the certificate of {own.client_name}, serial .* revoked"
        )
        with client_of(own.server) as client:
            response = client.get(f"/client/{own.client_name}/told", headers={"Prefer": "wait=2"})
            assert response.status_code == 503
        # A new certificate of that name is another matter, but what the revoked one began is over.
        own_authority.run(
            "issue", own.client_name, "--dial", "localhost:1", "--out", str(folder / "new.bundle")
        )
        restpipe("identity", "install", str(folder / "new.bundle"), "--config", str(own.client.config))
        assert own.server.wait_answer(f"/client/{own.client_name}/told").status == 200
        assert server.log_text().count("begins a session") == 2
        assert "resumes its session" not in server.log_text()
        lost = own.client.pipe.log_text()
        assert lost.count("is connected and begins a session") == 2


def test_a_list_that_is_bad_or_gone_changes_nothing(
    own: Pair, own_authority: Authority, folder: Path
) -> None:
    crl = folder / "ca" / "crl.pem"
    with own:
        own_authority.client("web2")
        own_authority.run("revoke", "web2")
        own.start()
        good = crl.read_bytes()
        broken = folder / "broken"
        forged = revocation_list(Made(load(folder / "ca").certificate, authority("x").key))
        words = "the new revocation list is not used, the one before still holds: tls.crl"
        for number, content in enumerate((good[:200], b"", forged), start=1):
            broken.write_bytes(content)
            broken.replace(crl)
            wait_for(lambda number=number: own.server.pipe.log_text().count(words) == number, words)
        crl.unlink()
        own.server.pipe.wait_log("a revocation list is gone")
        port, heard = knock(own.port, own_authority.client("web2").directory)
        own.server.pipe.wait_log(rf":{port}: web2 is refused: .* is revoked")
        assert "revoked" in heard
        crl.write_bytes(good)
        own.server.pipe.wait_log("the revocation list has been read anew")
        still_works(own)


def test_a_list_out_of_date_is_complained_about_and_holds(folder: Path) -> None:
    ca = authority("Corporate")
    revoked = leaf("web2", ca)
    stale = revocation_list(ca, [revoked], days=-1)
    leaf("localhost", ca, ("server",), days=9.5).write(folder / "s", ca, stale)
    server = Node("server", folder / "server", Identity("localhost", folder / "s"))
    server.configure({"pipe": {"bind": LOCALHOST, "port": 0}})
    client = Node("client", folder / "client", Identity("web1", leaf("web1", ca).write(folder / "c", ca)))
    with server, client:
        server.start()
        server.pipe.wait_log("ERROR.*the revocation list of CN=Corporate is out of date")
        server.pipe.wait_log(r"WARNING.*this host's certificate .* expires in 9 days")
        port = server.pipe.wait_log(r"listening at 127\.0\.0\.1:(\d+)")[1]
        client.configure({"pipe": {"servers": [f"localhost:{port}"]}})
        client.start()
        assert client.wait_answer("/server/time").status == 200
        own_port, _ = knock(int(port), revoked.write(folder / "r", ca))
        server.pipe.wait_log(rf":{own_port}: web2 is refused: .* is revoked")


def test_an_expired_certificates_link_is_closed_and_a_renewed_one_goes_on(folder: Path) -> None:
    ca = authority("Corporate")
    leaf("localhost", ca, ("server",)).write(folder / "s", ca)
    server = Node("server", folder / "server", Identity("localhost", folder / "s"))
    server.configure({"pipe": {"bind": LOCALHOST, "port": 0}})
    server.configure(ECHO)
    client = Node("client", folder / "client", Identity("web1", folder / "c"))
    with server, client:
        server.start()
        port = server.pipe.wait_log(r"listening at 127\.0\.0\.1:(\d+)")[1]
        client.configure({"pipe": {"servers": [f"localhost:{port}"], "reconnect_max_s": 0.2}})
        leaf("web1", ca, days=6 / DAY_S).write(folder / "c", ca)
        client.start("pipe")
        server.pipe.wait_log("web1 at .* is connected and begins a session")
        server.pipe.wait_log("the link to web1 at .* is gone: the certificate of web1 has expired at")
        server.pipe.wait_log("refused: its certificate is refused: certificate has expired")
        leaf("web1", ca).write(folder / "c", ca)
        client.pipe.send(signal.SIGHUP)
        server.pipe.wait_log("web1 at .* is connected and resumes its session")


def test_everything_is_replaced_under_load_and_no_request_fails(folder: Path) -> None:
    old, new = authority("Old CA"), authority("New CA")
    homes = {"server": folder / "s", "client": folder / "c"}

    def write(issuer: Made, *trusted: Made) -> None:
        for role, home in homes.items():
            made = leaf("localhost" if role == "server" else "client-1", issuer, (role,))
            made.write(home, issuer)
            (home / "ca.pem").write_bytes(b"".join(each.pem for each in trusted))
            (home / "crl.pem").write_bytes(
                b"".join(revocation_list(each, [leaf("x", each)]) for each in trusted)
            )

    write(old, old)
    pair = Pair(folder, FixedAuthority(homes), ECHO, ECHO)  # type: ignore[arg-type]
    with pair, contextlib.ExitStack() as stack:
        pair.start()
        statuses = stack.enter_context(asking(pair))

        def reloads(node: Node) -> None:
            before = node.pipe.log_text().count("lists reloaded")
            node.pipe.send(signal.SIGHUP)
            wait_for(lambda: node.pipe.log_text().count("lists reloaded") > before, "reload")

        def hang_up(*nodes: Node) -> None:
            for node in nodes:
                reloads(node)

        for _ in range(3):
            hang_up(pair.server, pair.client)
        write(old, old, new)
        hang_up(pair.server, pair.client)
        write(new, old, new)
        hang_up(pair.server, pair.client)
        # A set that cannot be used changes nothing.
        good = (homes["server"] / "certificate.pem").read_bytes()
        (homes["server"] / "certificate.pem").write_bytes(b"broken")
        pair.server.pipe.send(signal.SIGHUP)
        pair.server.pipe.wait_log("ERROR.*not reloaded, going on as before: tls.certificate")
        (homes["server"] / "certificate.pem").write_bytes(good)
        # Now the old CA goes, and with it the links that it let in; sessions go on with new certificates.
        for home in homes.values():
            (home / "ca.pem").write_bytes(new.pem)
        hang_up(pair.server)
        pair.server.pipe.wait_log("CN=Old CA may no longer be trusted: connect anew")
        pair.server.pipe.wait_log("client-1 at .* is connected and resumes its session")
        hang_up(pair.client)
        before = len(statuses)
        wait_for(lambda: len(statuses) > before + 20, "answers with the new CA")
        stack.close()
        assert set(statuses) == {200}
        port, told = knock(pair.port, leaf("client-1", old).write(folder / "late", new))
        assert "UNKNOWN_CA" in told
        lines_about(pair.server, port, 1)


class FixedAuthority:
    """In place of a real one, for a pair whose identities are made by the test."""

    def __init__(self, homes: dict[str, Path]) -> None:
        self._homes = homes

    def server(self, name: str = "localhost") -> Identity:
        return Identity(name, self._homes["server"])

    def client(self, name: str = "client-1") -> Identity:
        return Identity(name, self._homes["client"])


def test_a_partial_identity_is_an_error_that_says_what_is_missing(folder: Path) -> None:
    ca = authority("Corporate")
    home = leaf("localhost", ca, ("server",)).write(folder / "s", ca)
    (home / "ca.pem").unlink()
    server = Node("server", folder / "server", Identity("localhost", home))
    with server:
        server.start("pipe", ready=False)
        assert server.pipe.wait_end() == os.EX_CONFIG
        assert f"the identity is not complete, missing: {home / 'ca.pem'};" in server.pipe.log_text()
    assert not (folder / "ca").exists()
