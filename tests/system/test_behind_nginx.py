"""The example site in Debian's nginx before the installed services: the integration tests' own requests."""

from __future__ import annotations

import json

import pytest

from tests.integration.test_nginx import *  # noqa: F403  (the tests themselves)
from tests.integration.test_nginx import Front
from tests.system.inside import Inside, free_of_complaints, put_nginx_in_front


@pytest.fixture(scope="module")
def front(inside: Inside) -> Front:
    """In the place of the nginx that the integration tests start themselves."""
    machine = inside.machine
    folder = put_nginx_in_front(machine)
    buffers = (machine.file("/var/lib/nginx/body"), machine.file("/var/lib/nginx/proxy"))
    return Front(folder / "8001", folder / "8002", buffers)


def test_the_ports_of_the_example(inside: Inside, front: Front) -> None:
    for url in ("http://localhost:8001/client/client-1/told", "http://localhost:8002/server/told"):
        assert json.loads(inside.machine.run(f"curl --silent --show-error --fail {url}//here"))[
            "arguments"
        ] == ["here"]


def test_nothing_met_the_bounds_of_its_sandbox(inside: Inside, front: Front) -> None:
    assert not free_of_complaints(inside.machine)
