"""What happens to hosts and to the cable between them, in network namespaces: all requests are answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.network import (
    CLIENT_ADDRESS,
    CLIENT_V6_ADDRESS,
    OTHER_ADDRESS,
    OTHER_SERVER_ADDRESS,
    SERVER_ADDRESS,
    SERVER_V6_ADDRESS,
    Network,
    unavailable,
)
from tests.faults.scene import HEARTBEAT_S, Scene
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
                # By the daemon's own clock: so long after the last sign of life it lets go.
                silent_s = float(node.pipe.wait_log(r"nothing heard for ([\d.]+) s").group(1))
                assert silent_s <= 2.5 * HEARTBEAT_S
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


@pytest.fixture
def named(scene: MakeScene, network: Network, folder: Path) -> Scene:
    """The client knows its server by a name alone, which its file of hosts (`folder`/hosts) resolves."""
    made = scene(network=network)
    made.client.prefix = network.prefix("client", folder / "hosts")
    made.client.configure({"pipe": {"servers": [f"server.test:{made.pair.port}"]}})
    made.server.configure({"pipe": {"bind": "::"}})
    _resolve(folder, SERVER_ADDRESS, SERVER_V6_ADDRESS)
    return made


def _resolve(folder: Path, *addresses: str) -> None:
    (folder / "hosts").write_text("".join(f"{address} server.test\n" for address in addresses))


@pytest.mark.parametrize(
    ("lost", "address"), [("ip", CLIENT_V6_ADDRESS), ("ip6", CLIENT_ADDRESS)], ids=["IPv4", "IPv6"]
)
def test_where_one_family_is_lost_the_other_is_dialed(
    named: Scene, network: Network, lost: str, address: str
) -> None:
    """Without a word about the one: all attempts at it would last far longer than the head start it has."""
    network.drop_family(lost)
    with named as made:
        made.server.pipe.wait_log(rf"client-1 at (::ffff:)?{address}:\d+ is connected")
        with made.load(seed=27) as load:
            wait_for(load.more(30), "requests")
            network.heal()
            network.drop_family("ip" if lost == "ip6" else "ip6")
            made.server.pipe.wait_log(r"client-1 at .* is connected and resumes its session")
            wait_for(load.more(50), "requests go on")
        all_answered(made.verdict(load))
        # Before it, the server may not have listened yet.
        assert "cannot connect" not in made.client.pipe.log_text().partition("begins a session")[2]


def test_a_name_is_looked_up_anew_each_time(named: Scene, network: Network, folder: Path) -> None:
    """The server has another address from one moment to the next, and keeps its name."""
    _resolve(folder, SERVER_ADDRESS)
    with named as made:
        with made.load(seed=28) as load:
            wait_for(load.more(30), "requests")
            network.move_server()
            made.client.pipe.wait_log(rf"cannot connect to server.test:{made.pair.port}")
            _resolve(folder, OTHER_SERVER_ADDRESS)
            made.client.pipe.wait_log(rf"at {OTHER_SERVER_ADDRESS}:\d+ is connected and resumes its session")
            wait_for(load.more(50), "requests go on")
        all_answered(made.verdict(load))
