"""What happens to hosts and to the cable between them, in network namespaces: all requests are answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.faults.network import OTHER_ADDRESS, Network, unavailable
from tests.faults.scene import Scene
from tests.faults.test_links import all_answered
from tests.support.conditions import wait_for

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "they are available")

MakeScene = Callable[..., Scene]


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as made:
        yield made


def test_packets_that_vanish_are_missed_at_both_ends(scene: MakeScene, network: Network) -> None:
    with scene(network=network) as made:
        with made.load(seed=21) as load:
            wait_for(load.more(30), "requests")
            network.drop()
            for node in made.nodes:
                node.pipe.wait_log("nothing heard for")
            network.heal()
            wait_for(load.more(50), "requests go on")
        all_answered(made.verdict(load))


@pytest.mark.parametrize("direction", ["from_client", "from_server"])
def test_a_half_open_link_is_found_by_the_end_that_hears_nothing(
    scene: MakeScene, network: Network, direction: str
) -> None:
    """The other end's packets still come through, and must not hide that nothing is answered."""
    with scene(network=network) as made:
        with made.load(seed=22) as load:
            wait_for(load.more(30), "requests")
            network.drop(**{"from_client": False, "from_server": False, direction: True})
            for node in made.nodes:
                node.pipe.wait_log("the link to .* is gone")
            network.heal()
            wait_for(load.more(50), "requests go on")
        all_answered(made.verdict(load))


def test_a_firewall_that_resets(scene: MakeScene, network: Network) -> None:
    with scene(network=network) as made:
        with made.load(seed=23) as load:
            wait_for(load.more(30), "requests")
            network.reject()
            made.client.pipe.wait_log("cannot connect to .*: Connection refused")
            network.heal()
            wait_for(load.more(50), "requests go on")
        all_answered(made.verdict(load))


def test_a_host_that_vanishes_and_comes_back(scene: MakeScene, network: Network) -> None:
    with scene(network=network) as made:
        with made.load(seed=24) as load:
            wait_for(load.more(30), "requests")
            network.unplug()
            made.server.pipe.wait_log("nothing heard for")
            network.heal()
            wait_for(load.more(50), "requests go on")
        all_answered(made.verdict(load))


def test_a_client_whose_address_changes_goes_on_with_its_session(scene: MakeScene, network: Network) -> None:
    with scene(network=network) as made:
        with made.load(seed=25) as load:
            wait_for(load.more(30), "requests")
            network.change_address()
            made.server.pipe.wait_log(
                rf"client-1 at {OTHER_ADDRESS}:\d+ is connected and resumes its session"
            )
            wait_for(load.more(50), "requests go on")
        all_answered(made.verdict(load))


def test_a_laptop_that_wakes_up_in_another_network(scene: MakeScene, network: Network) -> None:
    """Its processes stood still, and then its address was another."""
    with scene(network=network) as made:
        with made.load(seed=26) as load:
            wait_for(load.more(30), "requests")
            for process in made.client.processes.values():
                process.stop()
            made.server.pipe.wait_log("nothing heard for")
            network.change_address()
            for process in made.client.processes.values():
                process.cont()
            wait_for(load.more(50), "requests go on")
        all_answered(made.verdict(load))
