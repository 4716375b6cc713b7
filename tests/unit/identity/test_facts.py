"""What is shown of an identity, and what is said against it."""

from __future__ import annotations

import json
import os
import pwd
import socket
from pathlib import Path

import pytest
from cryptography import x509

from restpipe.host.config import Role
from restpipe.identity.facts import facts_of, in_words, stands
from tests.support.certificates import Made, leaf
from tests.unit.identity.conftest import Configure


def test_a_good_one(ca: Made, configure: Configure, now: float) -> None:
    config = configure()
    made = leaf("web1", ca)
    made.write(config.tls.directory, ca)
    facts = facts_of(config, now)
    assert facts["faults"] == []
    assert (facts["role"], facts["name"], facts["use"], facts["issuer"]) == (
        "client",
        "web1",
        ["client"],
        "CN=Test CA",
    )
    assert int(facts["serial"], 16) == made.certificate.serial_number
    assert facts["days_left"] == 29
    key = facts["files"]["key"]
    assert (key["path"], key["mode"]) == (str(config.tls.key), "0600")
    assert key["owner"].split(":")[0] == pwd.getpwuid(os.geteuid()).pw_name
    json.dumps(facts)
    text = in_words(facts)
    assert "name:         web1" in text
    assert "0600" in text
    assert "PRIVATE" not in text + json.dumps(facts)


def test_faults_are_told(ca: Made, configure: Configure, now: float) -> None:
    config = configure(Role.SERVER)
    assert facts_of(config, now)["faults"] == [
        f"{path}: missing" for path in (config.tls.key, config.tls.certificate, config.tls.ca)
    ]
    leaf("web1", ca, days=-0.1).write(config.tls.directory, ca)
    config.tls.key.chmod(0o640)
    found = facts_of(config, now)["faults"]
    assert len(found) == 3
    assert "not for use as a server" in found[0]
    assert "expired" in found[1]
    assert found[2].startswith(f"{config.tls.key}: has mode 0640")
    assert in_words(facts_of(config, now))
    config.tls.ca.write_text("nothing")
    assert "there is no certificate in it" in facts_of(config, now)["faults"][0]


def test_a_request_that_waits_is_shown(configure: Configure, now: float, tmp_path: Path) -> None:
    config = configure()
    config.tls.directory.mkdir()
    assert not stands(config)
    (config.tls.directory / "request.key").touch()
    assert stands(config)
    assert "a key waits for its certificate" in in_words(facts_of(config, now))


def test_a_renamed_host_is_shown(
    configure: Configure, ca: Made, now: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(Role.SERVER)
    names = [x509.DNSName(name) for name in ("old.example", "localhost")]
    leaf("old.example", ca, ("server",), names=names).write(config.tls.directory, ca)
    monkeypatch.setattr(socket, "gethostname", lambda: "new.example")
    facts = facts_of(config, now)
    assert "note:         this host is called new.example, but" in in_words(facts)
    assert not facts["faults"]
