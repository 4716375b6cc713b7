from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from restpipe_ca import commands, hosts
from restpipe_ca.cli import cli, main
from restpipe_ca.errors import CaError
from restpipe_ca.profiles import Role
from restpipe_ca.store import KEY, Store


@dataclass
class Result:
    status: int
    out: str
    err: str


Run = Callable[..., Result]


def run_main(*arguments: object) -> Result:
    out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(word) for word in arguments])
    out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    return Result(status, out.buffer.getvalue().decode(), err.getvalue())


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line on the folder D, which is not there yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "gethostname", lambda: "Here.example.com")
    return lambda *arguments: run_main("--directory", "D", *arguments)


@pytest.fixture
def run(bare: Run) -> Run:
    assert bare("init").status == 0
    return bare


def good(result: Result) -> str:
    assert (result.status, result.err) == (0, "")
    return result.out


def refused(result: Result, status: int = 1) -> str:
    assert result.status == status, result
    assert result.out == ""
    assert result.err.startswith("restpipe-ca: ")
    assert result.err.count("\n") == 1
    return result.err


def noted(result: Result) -> str:
    """It was done, but there is something to say."""
    assert result.status == 0, result
    assert result.err.startswith("restpipe-ca: warning: ")
    assert result.err.count("\n") == 1
    return result.err


def openssl(*arguments: object) -> tuple[int, str]:
    command = ["openssl", *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def new_request(name: str) -> None:
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    assert (
        openssl("req", *curve, "-nodes", "-subj", f"/CN={name}", "-keyout", "k.pem", "-out", "r.pem")[0] == 0
    )


def test_from_nothing_to_a_joined_client(bare: Run) -> None:
    assert "Made 'RestPipe CA here.example.com " in good(bare("init"))
    assert "There is already" in good(bare("init"))
    good(bare("issue", "--server", "--pem-directory", "server"))
    out = good(bare("issue", "web1"))
    sudo = "sudo " if os.geteuid() == 0 else ""
    assert out.endswith(f"\nOn the client's host run:\n    {sudo}restpipe identity install web1.bundle\n")
    assert Path("web1.bundle").stat().st_mode & 0o777 == 0o600
    assert (
        Path("web1.bundle")
        .read_text()
        .startswith("# restpipe-bundle: 1\n# name: web1\n# role: client\n# dial: here.example.com:1234\n")
    )
    assert {path.name for path in Path("server").iterdir()} == {
        "key.pem",
        "certificate.pem",
        "ca.pem",
        "crl.pem",
    }
    assert good(bare("verify", "web1.bundle", "--as", "client")) == "web1.bundle: good\n"


@pytest.mark.parametrize(("arguments", "purpose"), [(("--server",), "sslserver"), ((), "sslclient")])
def test_openssl_and_certtool_take_what_is_issued(run: Run, arguments: tuple[str, ...], purpose: str) -> None:
    good(run("issue", "pipe", *arguments, "--pem-directory", "P"))
    check = [
        "-x509_strict",
        "-crl_check",
        "-CAfile",
        "P/ca.pem",
        "-CRLfile",
        "P/crl.pem",
        "P/certificate.pem",
    ]
    status, out = openssl("verify", "-purpose", purpose, *check)
    assert status == 0, out
    verify = ["certtool", "--verify", "--verify-profile", "medium", "--load-ca-certificate", "P/ca.pem"]
    verify += ["--load-crl", "P/crl.pem", "--infile", "P/certificate.pem"]
    done = subprocess.run(verify, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    good(run("revoke", "pipe", *arguments))
    good(run("crl", "--out", "P/crl.pem"))
    assert "certificate revoked" in openssl("verify", *check)[1]


def test_a_real_handshake_knows_both_sides(run: Run) -> None:
    good(run("issue", "--server", "localhost", "--pem-directory", "S"))
    good(run("issue", "web1", "--dial", "localhost", "--pem-directory", "C"))
    words = "openssl s_server -accept localhost:0 -naccept 1 -tls1_3 -Verify 1 -verify_return_error"
    server = subprocess.Popen(
        [*words.split(), *identity("S")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with server:
        assert server.stdout is not None
        line = next(line for line in server.stdout if line.startswith("ACCEPT "))
        words = f"s_client -connect {line.split()[1]} -tls1_3 -verify_hostname localhost -verify_return_error"
        _, out = openssl(*words.split(), *identity("C"))
        seen, _ = server.communicate()
    assert "Verify return code: 0 (ok)" in out, out
    assert "CN=web1" in seen.replace(" ", ""), seen


def identity(folder: str) -> list[str]:
    files = {"-key": "key", "-cert": "certificate", "-CAfile": "ca"}
    return [word for option, name in files.items() for word in (option, f"{folder}/{name}.pem")]


def test_the_server_carries_this_hosts_name_unless_others_are_given(run: Run) -> None:
    good(run("issue", "--server"))
    assert json.loads(good(run("show", "--server", "here.example.com", "--json")))[0]["names"] == [
        "here.example.com",
        "localhost",
        "127.0.0.1",
        "::1",
    ]
    good(run("issue", "--server", "pipe", "localhost", "127.0.0.1", "::1"))
    assert json.loads(good(run("show", "--server", "pipe", "--json")))[0]["names"] == [
        "pipe",
        "localhost",
        "127.0.0.1",
        "::1",
    ]


def test_who_dials_where(run: Run) -> None:
    good(run("issue", "web1"))
    good(run("issue", "--server", "::1"))
    good(run("issue", "web2"))
    noted(run("issue", "web3", "--dial", "10.0.0.1:99"))
    dials = [Path(f"web{number}.bundle").read_text().splitlines()[3] for number in (1, 2, 3)]
    assert dials == ["# dial: here.example.com:1234", "# dial: [::1]:1234", "# dial: 10.0.0.1:99"]
    assert Path("--1.bundle").exists()


def test_an_address_that_no_server_answers_for_is_warned_of(run: Run) -> None:
    # Before any server has started, the names are those that this host's will have.
    good(run("issue", "web1"))
    good(run("issue", "web2", "--dial", "127.0.0.1:99"))
    assert noted(run("issue", "web3", "--dial", "pipe.example.com")).endswith(
        "no server's certificate is for pipe.example.com: clients that dial it will refuse the server. "
        "One that is: restpipe-ca issue --server pipe.example.com\n"
    )
    good(run("issue", "--server"))
    command = noted(run("issue", "web4", "--dial", "[2001:DB8::1]:99")).strip().rpartition("restpipe-ca ")[2]
    assert command == "issue --server 2001:db8::1 here.example.com localhost 127.0.0.1 ::1"
    good(run(*command.split()))
    good(run("issue", "web5", "--dial", "[2001:DB8::1]:99"))
    good(run("issue", "web6", "--dial", "here.example.com."))
    assert "# dial: here.example.com:1234" in Path("web6.bundle").read_text()
    new_request("web7")
    noted(run("sign", "r.pem", "--dial", "elsewhere", "--out", "web7.bundle"))
    noted(run("renew", "web1", "--dial", "elsewhere", "--out", "again.bundle"))


def test_a_renamed_host_is_warned_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    good(run("issue", "--server"))
    monkeypatch.setattr(socket, "gethostname", lambda: "there.example.com")
    said = noted(run("issue", "web1"))
    assert "clients will dial here.example.com, as the server's certificate says" in said
    assert "this host is called there.example.com" in said
    good(run("issue", "--server"))
    good(run("issue", "web2"))
    assert "# dial: there.example.com:1234" in Path("web2.bundle").read_text()


def test_a_host_whose_name_is_none(bare: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "my_server.example.com")
    good(bare("init"))
    assert "--dial names it" in noted(bare("issue", "web1"))
    good(bare("issue", "--server"))
    assert json.loads(good(bare("show", "--server", "localhost", "--json")))[0]["names"] == list(
        hosts.ON_THIS_HOST
    )
    assert "--dial names it" in noted(bare("issue", "web2"))
    assert "# dial: localhost:1234" in Path("web2.bundle").read_text()


def test_again_makes_another_key(run: Run) -> None:
    good(run("issue", "web1"))
    assert "if its key is lost, add --again" in refused(run("issue", "web1", "--out", "b"))
    good(run("issue", "web1", "--again", "--out", "b"))
    assert len(json.loads(good(run("show", "web1", "--json")))) == 2


def test_the_port_is_the_one_that_the_ca_was_told(bare: Run) -> None:
    def dialed(name: str, *more: str) -> str:
        assert bare("issue", name, *more).status == 0
        return Path(f"{name}.bundle").read_text().splitlines()[3].removeprefix("# dial: ")

    good(bare("init", "--port", 4466))
    assert dialed("web1") == "here.example.com:4466"
    assert dialed("web2", "--dial", "::1") == "[::1]:4466"
    assert dialed("web3", "--dial", "a:99") == "a:99"
    key = Path("D/ca.key").read_bytes()
    assert "There is already" in good(bare("init", "--port", 4467))
    assert "There is already" in good(bare("init"))
    assert dialed("web4") == "here.example.com:4467"
    assert Path("D/ca.key").read_bytes() == key
    Path("D/port").write_text("none\n")
    assert "D/port: is no port: run restpipe-ca init --port PORT" in refused(bare("issue", "web5"))
    good(bare("init", "--port", 1234))
    assert dialed("web5") == "here.example.com:1234"


def test_signing_a_request_made_elsewhere(run: Run) -> None:
    new_request("web1")
    out = good(run("sign", "r.pem"))
    assert "holds the private key" not in out
    assert "PRIVATE" not in Path("web1.bundle").read_text()
    Path("identity.pem").write_text(Path("k.pem").read_text() + Path("web1.bundle").read_text())
    good(run("verify", "identity.pem"))
    assert "add --again" in refused(run("sign", "r.pem", "--out", "x"))
    printed = good(run("sign", "r.pem", "--again", "--name", "web2", "--out", "-"))
    assert printed.startswith("# restpipe-bundle: 1\n# name: web2\n")
    assert printed.endswith("-----END CERTIFICATE-----\n")


def test_renewing_in_place_keeps_the_key(run: Run) -> None:
    good(run("issue", "web1", "--pem-directory", "P"))
    key, old = Path("P/key.pem").read_bytes(), Path("P/certificate.pem").read_bytes()
    good(run("renew", "web1", "--pem-directory", "P"))
    assert Path("P/key.pem").read_bytes() == key
    assert Path("P/certificate.pem").read_bytes() != old
    assert "never overwritten" in refused(run("renew", "web1", "--new-key", "--pem-directory", "P"))
    good(run("renew", "web1", "--new-key"))
    assert "BEGIN PRIVATE KEY" in Path("web1.bundle").read_text()


def test_the_table_lines_up_and_shows_every_state(run: Run) -> None:
    store = Store(Path("D"))
    good(run("issue", "a-rather-long-name.example.com"))
    good(run("issue", "web1"))
    good(run("revoke", "web1", "--reason", "key-compromise"))
    ca, month_ago = store.unlock(commands.no_passphrase), datetime.now(UTC) - timedelta(days=30)
    older = store.certificate()
    assert ca.certificate == older
    with pytest.raises(CaError, match="set the clock"):
        commands.issue(store, ca, Role.CLIENT, ["web2"], dial="x:1", now=month_ago)
    lines = good(run("list")).splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["NAME", "ROLE", "STATE"],
        ["a-rather-long-name.example.com", "client", "valid"],
        ["web1", "client", "revoked"],
    ]
    assert (
        len({line.index(word) for line, word in zip(lines, ["ROLE", "client", "client"], strict=True)}) == 1
    )
    assert lines[1].split()[4] == "729"
    entries = json.loads(good(run("list", "--json")))
    assert [(entry["name"], entry["state"], entry["reason"]) for entry in entries] == [
        ("a-rather-long-name.example.com", "valid", None),
        ("web1", "revoked", "key-compromise"),
    ]
    assert entries[1]["revoked_at"].endswith("Z")


def test_an_expired_certificate_is_shown_as_such(tmp_path: Path, bare: Run) -> None:
    store, then = Store(tmp_path / "D"), datetime.now(UTC) - timedelta(days=30)
    commands.init(store, "CA", then)
    ca = store.unlock(commands.no_passphrase)
    commands.issue(store, ca, Role.CLIENT, ["web1"], dial="x:1", now=then, days=10)
    assert "expired" in good(bare("list")).splitlines()[1]
    good(bare("renew", "web1"))
    assert [entry["state"] for entry in json.loads(good(bare("show", "web1", "--json")))] == [
        "expired",
        "valid",
    ]


def test_an_empty_list_is_a_header_and_an_empty_array(run: Run) -> None:
    assert good(run("list")).split() == ["NAME", "ROLE", "STATE", "VALID", "UNTIL", "DAYS", "SERIAL"]
    assert json.loads(good(run("list", "--json"))) == []


def test_show_tells_all_in_words_json_and_pem(run: Run) -> None:
    good(run("issue", "web1", "--pem-directory", "P"))
    good(run("renew", "web1", "--pem-directory", "P"))
    facts = json.loads(good(run("show", "web1", "--json")))
    words = good(run("show", "web1"))
    assert all(fact["serial"] in words for fact in facts)
    assert good(run("show", "web1", "--pem")) == Path("P/certificate.pem").read_text()


def test_the_list_can_be_copied_and_printed(run: Run) -> None:
    assert "List 2 with 0 revoked" in good(run("crl", "--days", "7", "--out", "copy.pem"))
    assert Path("copy.pem").read_bytes() == Path("D/crl.pem").read_bytes()
    assert good(run("crl", "--out", "-")) == Path("D/crl.pem").read_text()


def test_verify_says_what_is_wrong_and_fails(run: Run) -> None:
    assert good(run("verify")) == "D: good\n"
    good(run("issue", "web1"))
    good(run("revoke", "web1"))
    assert "web1.bundle: the certificate is revoked" in refused(run("verify", "web1.bundle"))
    result = run("verify", "web1.bundle", "--json")
    assert (result.status, json.loads(result.out)["faults"]) == (1, ["the certificate is revoked"])


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((), 2, "Missing command"),
        (("jump",), 2, "No such command"),
        (("list", "--colour"), 2, "No such option"),
        (("issue", "--days", "0", "web1"), 2, "--days"),
        (("issue", "web1", "--out", "-"), 2, "--out needs a file"),
        (("revoke", "web1", "--reason", "boredom"), 2, "--reason"),
        (("issue",), 1, "a name is needed"),
        (("issue", "Web1"), 1, "use 'web1'"),
        (("issue", "../x"), 1, "cannot be a name"),
        (("issue", "a", "b"), 1, "a client has one name"),
        (("issue", "web1", "--dial", "x:y"), 1, "not an address to dial"),
        (("issue", "web1", "--out", "none/x"), 1, "none: there is no such folder"),
        (("issue", "web1", "--pem-directory", "file/x"), 1, "file"),
        (("sign", "none.pem"), 1, "none.pem: No such file"),
        (("sign", "file"), 1, "not a certificate request"),
        (("sign", "/dev/zero"), 1, "larger than"),
        (("renew", "web9"), 1, "no client 'web9'"),
        (("revoke", "web9"), 1, "no client 'web9'"),
        (("show", "web9"), 1, "no client 'web9'"),
        (("verify", "file"), 1, "there is no certificate in it"),
        (("verify", "D"), 1, "Is a directory"),
        (("crl", "--out", "none/x"), 1, "No such file"),
    ],
)
def test_a_mistake_is_one_clear_line(run: Run, arguments: tuple[str, ...], status: int, words: str) -> None:
    Path("file").write_text("hello")
    assert words in refused(run(*arguments), status)
    assert json.loads(good(run("list", "--json"))) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("issue", "x"),
        ("sign", "r.pem"),
        ("renew", "x"),
        ("revoke", "x"),
        ("crl",),
        ("list",),
        ("show", "x"),
        ("verify",),
    ],
)
def test_without_a_ca_every_command_says_what_to_do(bare: Run, arguments: tuple[str, ...]) -> None:
    new_request("x")
    said = refused(bare(*arguments))
    assert "there is no CA here yet: " in said
    assert "systemctl start restpipe-server" in said
    assert "restpipe-ca init" in said
    assert not Path("D").exists()


# What a command line can hold: any bytes but NUL, whether they are text or not.
WORDS = st.one_of(st.text(), st.binary().map(os.fsdecode)).map(lambda word: word.replace("\0", ""))


@settings(max_examples=60, deadline=None)
@given(words=st.lists(WORDS, max_size=4))
def test_no_words_make_a_traceback(words: list[str]) -> None:
    for command in ("issue", "revoke", "show", "verify", "sign"):
        result = run_main("--directory", "/nonexistent/ca", command, "--", *words)
        assert result.status in (1, 2)
        assert result.err.count("\n") == 1


def test_the_folder_can_come_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_CA_DIRECTORY", "D")
    assert good(run_main("verify")) == "D: good\n"


def test_nothing_secret_is_printed_or_kept(bare: Run) -> None:
    Path("pass").write_text("open sesame\n")
    new_request("web3")
    everything = [
        bare("--passphrase-file", "pass", *arguments)
        for arguments in [
            ("init",),
            ("issue", "--server", "--pem-directory", "S"),
            ("issue", "web1"),
            ("issue", "web1"),
            ("renew", "web1", "--new-key", "--out", "w"),
            ("sign", "r.pem"),
            ("list", "--json"),
            ("show", "web1", "--json"),
            ("show", "web1", "--pem"),
            ("verify",),
            ("verify", "web1.bundle"),
            ("revoke", "web1"),
            ("crl",),
        ]
    ]
    assert [result.status for result in everything] == [0, 0, 0, 1, *[0] * 9]
    spoken = "".join(result.out + result.err for result in everything)
    assert "sesame" not in spoken
    assert "PRIVATE KEY-----" not in spoken
    secret_lines = (
        Path("S/key.pem").read_text().splitlines()[1:-1] + Path("web1.bundle").read_text().splitlines()[5:7]
    )
    assert [line for line in secret_lines if line in spoken] == []
    kept = {path.name: path.read_bytes() for path in Path("D").iterdir()}
    assert [name for name, data in kept.items() if b"PRIVATE" in data] == [KEY]
    assert b"ENCRYPTED" in kept[KEY]
    assert not any(b"sesame" in data for data in kept.values())


def test_a_passphrase_comes_from_a_file_or_a_terminal(bare: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert "give --passphrase-file" in refused(bare("init", "--passphrase"))
    Path("empty").write_text("\n")
    assert "empty: a passphrase has 1 to 1023 bytes" in refused(bare("--passphrase-file", "empty", "init"))
    assert not Path("D").exists()
    Path("right").write_text("right")
    Path("wrong").write_text("wrong")
    good(bare("--passphrase-file", "right", "init"))
    assert "give --passphrase-file" in refused(bare("issue", "web1"))
    assert "ca.key: the passphrase is wrong" in refused(bare("--passphrase-file", "wrong", "issue", "web1"))
    assert "ca.key: the passphrase is wrong" in refused(bare("--passphrase-file", "wrong", "verify"))
    good(bare("--passphrase-file", "right", "issue", "web1"))
    good(bare("verify"))


def test_the_terminal_is_asked_and_echoes_nothing(tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        program = "import sys; from restpipe_ca.cli import main; sys.exit(main())"
        words = ["--directory", str(tmp_path / "D"), "init", "--passphrase"]
        os.execv(sys.executable, [sys.executable, "-c", program, *words])  # noqa: S606
    seen = b""
    with os.fdopen(terminal, "rb+", buffering=0) as conversation:
        for answer in (b"open sesame\n", b"open sesame\n"):
            while not seen.endswith(b": "):
                seen += conversation.read(1)
            seen += b"|"
            conversation.write(answer)
        with contextlib.suppress(OSError):  # how Linux tells that the other end has gone
            while more := conversation.read(1):
                seen += more
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, seen
    assert b"sesame" not in seen
    assert Store(tmp_path / "D").unlock(lambda: b"open sesame")


def test_a_full_disk_is_one_clear_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in refused(run("issue", "web1"))
    assert json.loads(good(run("list", "--json"))) == []


def test_every_command_and_option_explains_itself() -> None:
    assert sorted(cli.commands) == sorted(
        ["init", "issue", "sign", "renew", "revoke", "crl", "list", "show", "verify"]
    )
    for name, command in cli.commands.items():
        assert command.help
        help_text = good(run_main(name, "--help"))
        assert help_text.startswith(f"Usage: restpipe-ca {name}")


def test_an_ordinary_user_is_told_how_to_name_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.delenv("RP_CA_DIRECTORY", raising=False)
    monkeypatch.setattr(Path, "mkdir", refuse)
    said = refused(run_main("init")).strip()
    assert said.startswith("restpipe-ca: /var/lib/restpipe")
    assert said.endswith(": Permission denied; --directory or RP_CA_DIRECTORY names another folder")
