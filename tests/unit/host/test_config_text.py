"""What people and scripts read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from restpipe.host import config_text
from restpipe.host.config import Config, Role, load
from restpipe.host.options import options


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "f").write_text("[pipe]\nport = 5")
    return load(Role.SERVER, {"RP_RUNTIME_DIR": "/r", "DEBUG": "1"}, tmp_path / "f")


def test_each_value_is_shown_with_its_source(config: Config, tmp_path: Path) -> None:
    lines = [" ".join(line.split()) for line in config_text.in_force(config).splitlines()]
    assert f"port = 5 # {tmp_path / 'f'}" in lines
    assert "debug = true # environment DEBUG" in lines
    assert "wait_s = 30.0 # default" in lines
    assert "mode = 0o660 # default" in lines
    assert lines[0] == "[pipe]"


def test_json(config: Config, tmp_path: Path) -> None:
    shown = json.loads(config_text.as_json(config))
    assert shown["pipe.port"] == {"value": 5, "source": str(tmp_path / "f")}
    assert shown["tls.key"] == {"value": "/var/lib/restpipe/server/key.pem", "source": "default"}
    assert set(shown) == {option.key for option in options(Role.SERVER)}


def test_table_has_one_row_an_option() -> None:
    rows = config_text.markdown().splitlines()
    assert len(rows) == 2 + len(list(options()))
    assert len({row.count("|") for row in rows}) == 1
    assert (
        "| `pipe.port` (server only) | `1234` | a whole number from 0 to 65,535 | "
        "`RP_SERVER_BIND_PORT`, `BIND_PORT`, `RP_PIPE_PORT` | "
        "Port that the server listens on; 0 takes any free one. Needs a restart. |"
    ) in rows
    assert "`1 GiB`" in config_text.markdown()


def test_table_of_one_role() -> None:
    table = config_text.markdown(Role.CLIENT)
    assert "pipe.bind" not in table
    assert "`/var/lib/restpipe/client`" in table
    assert "`RP_CLIENT_KEY_FILENAME`" in table
