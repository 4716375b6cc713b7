"""Each bound that docs/ARCHITECTURE.md promises is reached by a test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ARCHITECTURE = TESTS.parent / "docs" / "ARCHITECTURE.md"

REACHED_BY = {
    "a frame": ["unit/protocol/test_frames.py::test_a_larger_one_is_refused_by_its_first_bytes_alone"],
    "one stream": ["unit/protocol/test_streams.py::test_more_than_was_granted_is_refused"],
    "events in flight over one link": [
        "unit/daemon/test_router_ending.py::test_too_many_streams_of_one_sender_are_refused"
    ],
    "bytes waiting to be sent to one peer": [
        "unit/daemon/test_router_ending.py::test_a_backlog_to_one_peer_refuses_events_to_it_alone",
        "unit/daemon/test_router_ending.py"
        "::test_what_waits_for_a_peer_that_does_not_read_is_bounded_over_all_streams",
        "unit/daemon/test_router_fairness.py"
        "::test_no_new_event_is_taken_from_a_neighbour_for_which_too_much_waits",
    ],
    "refusals waiting for a neighbour": [
        "unit/transport/test_link.py"
        "::test_nothing_more_is_read_from_a_neighbour_that_does_not_read_its_refusals",
        "unit/daemon/test_router_fairness.py::test_refusals_are_bounded_and_make_no_routes",
    ],
    "events waiting for one peer, or for a handler": [
        "unit/daemon/test_router_waiting.py::test_a_full_line_refuses",
        "unit/daemon/test_router_fairness.py::test_a_flood_of_one_peer_leaves_the_queue_to_others",
    ],
    "memory of all events that wait in a daemon": [
        "unit/daemon/test_router_waiting.py::test_what_all_that_waits_holds_together_is_bounded",
        "unit/daemon/test_router_fairness.py::test_the_bytes_of_what_waits_are_shared_too",
    ],
    "unacknowledged bytes of a session": [
        "unit/protocol/test_session.py::test_a_full_session_pauses_until_the_other_side_answers"
    ],
    "requests in one web worker": ["unit/web/test_app.py::test_overload_is_refused_at_once"],
    "of these, those that wait for one client's reply to begin": [
        "unit/web/test_app.py::test_what_waits_for_one_client_leaves_half_of_the_places_to_others"
    ],
    "connections to one web worker": [
        "unit/web/test_connections.py::test_a_connection_is_refused_where_all_are_busy",
        "unit/web/test_connections.py::test_an_idle_connection_makes_room_for_a_new_one",
    ],
    "what a caller sends ahead of its next response": [
        "unit/web/test_http1.py::test_what_is_sent_ahead_is_bounded"
    ],
    "a caller that takes nothing of its response": [
        "unit/web/test_http1.py::test_a_caller_that_takes_nothing_of_its_response_is_given_up"
    ],
    "bodies": [
        "unit/web/test_app.py::test_too_large_is_said_at_once",
        "integration/test_requests.py::test_a_body_over_the_handlers_limit_is_413",
    ],
    "bodies kept in a web worker to be sent again": [
        "unit/web/test_body.py::test_what_is_too_much_to_keep_is_not_kept_in_part",
        "unit/web/test_body.py::test_what_finds_no_room_beside_the_others_is_not_kept",
    ],
    "what a web worker has read of a body and not sent": [
        "unit/web/test_http1.py::test_an_upload_that_is_not_read_is_not_read_from_the_caller",
        "integration/test_memory.py::test_an_upload_takes_no_memory",
    ],
    "bodies that a handler worker's methods hold whole": [
        "unit/handler/test_incoming.py::test_what_all_bodies_hold_together_is_bounded"
    ],
    "events that a handler worker works on": [
        "unit/handler/test_capacity.py::test_plain_methods_are_bounded_by_threads",
        "unit/handler/test_dispatch.py::test_async_methods_are_bounded",
    ],
    "events that a handler worker has beside these: their replies are being sent": [
        "unit/daemon/test_pool.py::test_replies_have_a_bound_that_one_peer_cannot_reach",
        "unit/handler/test_dispatch.py::test_replies_are_bounded_and_no_peer_can_have_all",
    ],
    "async methods that go on after their cancellation": [
        "unit/handler/test_dispatch.py::test_async_methods_that_ignore_their_cancellation_hold_no_places"
    ],
    "streams that a handler worker's threads read": [
        "unit/handler/test_bursts.py::test_some_threads_are_never_taken",
        "unit/handler/test_bursts.py::test_one_that_asks_alone_leaves_threads_to_methods_and_to_others",
    ],
    "threads whose events were given up, or that have read a stream for 0.25 s": [
        "unit/handler/test_dispatch.py::test_threads_that_work_for_nobody_are_no_peers_alone"
    ],
    "generators that keep their threads while their readers pause": [
        "unit/handler/test_threads.py::test_past_a_bound_the_thread_that_has_stayed_for_longest_goes"
    ],
    "clients (256 more links for those who come back by another way), TLS handshakes, workers": [
        "unit/daemon/test_accepting.py::test_too_many_clients_are_refused",
        "unit/daemon/test_accepting.py::test_a_client_that_comes_back_by_another_way_is_not_one_too_many",
        "unit/transport/test_handshakes.py::test_nobody_is_forgotten_and_no_bound_is_passed",
        "unit/daemon/test_local.py::test_too_many_workers_are_refused",
    ],
    "names being looked up, each until the system has answered": [
        "unit/daemon/test_resolver.py::test_lookups_at_once_are_bounded_and_shared",
        "unit/daemon/test_router_fairness.py::test_too_many_names_at_once_are_no_unknown_clients",
    ],
    "files that are read: configuration, certificates and keys; lists; known clients": [
        "unit/test_files.py::test_what_is_larger_than_its_bound_is_refused",
        "unit/test_files.py::test_devices_are_bounded_as_well",
    ],
}
"""What is bounded, as the table has it, and the tests that reach the bound."""


def test_each_bound_of_the_table_is_reached() -> None:
    section = re.split(r"^## ", ARCHITECTURE.read_text(), flags=re.MULTILINE)
    bounds = next(part for part in section if part.startswith("Bounds\n"))
    rows = re.findall(r"^\| (.+?) \|", bounds, re.MULTILINE)
    assert rows[:2] == ["what", "---"]
    assert rows[2:] == list(REACHED_BY)


@pytest.mark.parametrize("name", [name for names in REACHED_BY.values() for name in names])
def test_what_reaches_it_is_there(name: str) -> None:
    path, _, function = name.partition("::")
    tree = ast.parse((TESTS / path).read_text())
    assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
