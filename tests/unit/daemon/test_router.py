"""Any sequence of anything that neighbours do: each event has one end, and nothing is left."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from restpipe.daemon.channel import NOTHING, PLACE, REPLYING, Channel
from restpipe.daemon.peers import Peer
from restpipe.daemon.pool import Worker
from restpipe.daemon.router import Limits
from restpipe.protocol import frames
from restpipe.protocol.frames import MAX_BODY, Frame
from tests.unit.daemon.kit import CANCELLED, Bench, data, event, frame, reply, reset, taken, window


class Told:
    """What the opener of one event has heard."""

    def __init__(self) -> None:
        self.ends = 0
        self.cancelled = False


class RouterMachine(RuleBasedStateMachine):
    """Two senders, two peers and up to three workers do whatever they may, and some things that they may not.

    Each neighbour reads what it is sent at moments of its own choice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(limits=Limits(6, 200_000), max_waiting=3)
        self.senders = [self.bench.sender(), self.bench.sender()]
        self.peers: list[Peer] = []
        for name, address in (("alpha", "10.0.0.1"), ("beta", "10.0.0.2")):
            self.peers.append(self.bench.join(name, address)[0])
        self.workers: list[Worker] = []
        self.next_number = 1
        self.openers: dict[tuple[int, int], Told] = {}
        """What was opened, by opener and stream."""
        self.seen: dict[int, set[int]] = {}
        """Streams that each answerer has been shown, by answerer."""
        self.kept: list[object] = []

    # Reading.

    def read(self, channel: Channel, budget: int = 1 << 30) -> None:
        self.kept.append(channel)
        opened = self.seen.setdefault(id(channel), set())
        for one in taken(channel, budget):
            told = self.openers.get((id(channel), one.stream))
            if told is not None:
                assert not told.ends, "something came after the end"
                assert not told.cancelled, "something came to an opener that hung up"
                told.ends += one.kind == frames.RESET or (one.ends and one.kind != frames.WINDOW)
            elif one.kind == frames.EVENT:
                assert one.stream not in opened
                opened.add(one.stream)
            elif one.kind != frames.ORIGIN:
                assert one.stream in opened, "a frame of a stream that was never opened"

    def channels(self) -> list[Channel]:
        of_peers = [peer.channel for peer in self.peers if peer.channel is not None]
        return [*self.senders, *of_peers, *self.workers]

    @rule(which=st.integers(0, 6), budget=st.integers(1, 300))
    def reads(self, which: int, budget: int) -> None:
        channels = self.channels()
        self.read(channels[which % len(channels)], budget)

    # Opening.

    @rule(
        which=st.integers(0, 1),
        to=st.sampled_from(["alpha", "beta", "10.0.0.1", "10.0.0.9", "host.example", ""]),
        timeout_s=st.sampled_from([0.0, 1.0, 30.0]),
        end=st.booleans(),
    )
    def sender_opens(self, which: int, to: str, timeout_s: float, end: bool) -> None:
        sender, number = self.senders[which], self.next_number
        self.next_number += 2
        self.openers[id(sender), number] = Told()
        self.bench.send(sender, event(number, to, b"x", timeout_s=timeout_s, end=end))

    @rule(which=st.integers(0, 1), timeout_s=st.sampled_from([0.0, 1.0, 30.0]), good=st.booleans())
    def peer_opens(self, which: int, timeout_s: float, good: bool) -> None:
        channel = self.peers[which].channel
        if channel is None or not self.peers[which].online:
            return
        number = self.next_number
        self.next_number += 2
        self.openers[id(channel), number] = Told()
        bad = frame(frames.EVENT, number, b"\xff")
        opening = event(number, timeout_s=timeout_s) if good or self.workers else bad
        self.bench.arrive(self.peers[which], opening)

    @rule(name=st.booleans(), found=st.booleans())
    def resolver_answers(self, name: bool, found: bool) -> None:
        answer = self.bench.lookups.pop("host.example", None)
        if answer is not None:
            answer(frozenset({"10.0.0.2"} if found else ()), self.bench.now)

    # Frames of streams that are open, or were, or never have been.

    @rule(
        which=st.integers(0, 6),
        pick=st.integers(0, 30),
        kind=st.sampled_from(
            ["data", "end", "reply", "whole reply", "reset", "window", "event", "origin", "99"]
        ),
        size=st.sampled_from([0, 10, MAX_BODY]),
    )
    def frame_comes(self, which: int, pick: int, kind: str, size: int) -> None:
        channels = self.channels()
        channel = channels[which % len(channels)]
        candidates = sorted({*channel.routes, *self.seen.get(id(channel), ()), 9998})
        number = candidates[pick % len(candidates)]
        body = bytes(size)
        made = {
            "data": data(number, body),
            "end": data(number, body, end=True),
            "reply": reply(number, body, end=False),
            "whole reply": reply(number, body),
            "reset": reset(number, CANCELLED),
            "window": window(number),
            "event": event(number, "alpha"),
            "origin": frame(frames.ORIGIN, number),
            "99": frame(99, number, b"", body),
        }[kind]
        told = self.openers.get((id(channel), number))
        if kind == "reset" and told is not None and number in channel.routes:
            self.read(channel)
            told.cancelled = not told.ends
        self.receive(channel, made)

    def receive(self, channel: Channel, *received: Frame) -> None:
        if channel in self.senders:
            # An EVENT on a stream that is over would be a new one: real senders use no number twice.
            received = tuple(
                one for one in received if one.kind != frames.EVENT or one.stream in channel.routes
            )
            self.bench.send(channel, *received)
        elif isinstance(channel, Worker):
            self.bench.answer(channel, *received)
        else:
            peer = next(peer for peer in self.peers if peer.channel is channel)
            own = [one for one in received if one.kind != frames.EVENT or one.stream in channel.routes]
            self.bench.arrive(peer, *own)

    # Coming and going.

    @precondition(lambda self: len(self.workers) < 3)
    @rule(capacity=st.integers(0, 3))
    def worker_comes(self, capacity: int) -> None:
        self.workers.append(self.bench.worker(capacity))

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 2))
    def worker_goes(self, which: int) -> None:
        worker = self.workers.pop(which % len(self.workers))
        self.kept.append(worker)
        self.bench.lose_worker(worker)

    @rule(which=st.integers(0, 1))
    def sender_goes(self, which: int) -> None:
        sender = self.senders[which]
        self.kept.append(sender)
        self.bench.router.lose(sender, "gone", self.bench.now)
        assert sender.routes == {}
        for (channel, _), told in self.openers.items():
            told.cancelled |= channel == id(sender) and not told.ends
        self.senders[which] = self.bench.sender()

    @rule(which=st.integers(0, 1))
    def link_breaks(self, which: int) -> None:
        self.peers[which].online = False

    @rule(which=st.integers(0, 1))
    def peer_comes(self, which: int) -> None:
        self.bench.join(self.peers[which].name, f"10.0.0.{which + 1}")

    @rule(which=st.integers(0, 1))
    def session_is_given_up(self, which: int) -> None:
        channel = self.peers[which].channel
        if channel is not None:
            self.kept.append(channel)
            self.bench.lose_peer(self.peers[which])
            for (opener, _), told in self.openers.items():
                told.cancelled |= opener == id(channel) and not told.ends

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.bench.pass_time(seconds)

    # What holds at all times, and at the end.

    @invariant()
    def queues_and_routes_agree(self) -> None:
        bench = self.bench
        queues = [bench.pool.queue, *(peer.queue for peer in bench.peers)]
        waiting = {route for channel in self.channels() for route in channel.routes.values() if route.waits}
        queued = [route for queue in queues for line in queue._lines.values() for route in line]
        assert len(queued) == len(set(queued)) == sum(map(len, queues))
        assert set(queued) <= waiting
        for route in waiting.difference(queued):
            assert route.waiting is not None
            assert route.waiting.event.to == "host.example"
        for channel in self.channels():
            for number, route in channel.routes.items():
                ends = {(id(route.opener), route.opener_number), (id(route.answerer), route.answerer_number)}
                assert (id(channel), number) in ends

    @invariant()
    def what_is_taken_is_counted(self) -> None:
        sizes: Counter[Channel] = Counter()
        places: Counter[Channel] = Counter()
        replies: Counter[Channel] = Counter()
        for route in {route for channel in self.channels() for route in channel.routes.values()}:
            if route.waiting is not None:
                sizes[route.opener] += route.waiting.size
            for end in (route.opener, route.answerer):
                if end is not None:
                    places[end] += route.holds == PLACE
                    replies[end] += route.holds == REPLYING
            assert (route.holds == NOTHING) is not isinstance(route.answerer, Worker)
        for channel in self.channels():
            assert channel.waiting_size == sizes[channel]
            assert (channel.places, channel.replies) == (places[channel], replies[channel])
        assert self.bench.router.waiting_size == sizes.total()

    @invariant()
    def places_are_given_as_long_as_shares_allow(self) -> None:
        pool, now = self.bench.pool, self.bench.now
        for worker in self.workers:
            assert worker.places <= worker.capacity
        for opener, line in pool.queue._lines.items():
            waiting = next(iter(line)).waiting
            assert waiting is not None
            assert pool.pick(opener, now, whole=waiting.whole) is None

    @invariant()
    def a_peer_that_is_waited_for_is_away(self) -> None:
        for peer in self.peers:
            assert not (peer.online and peer.queue)

    def teardown(self) -> None:
        """All answerers go: every event must have one end by then, and nothing be left."""
        for worker in list(self.workers):
            self.read(worker)
            self.worker_goes(0)
        for which in (0, 1):
            self.link_breaks(which)
        self.bench.pass_time(100)
        for channel in self.channels():
            self.read(channel)
        for which in (0, 1):
            self.session_is_given_up(which)
        for channel in self.channels():
            self.read(channel)
            assert channel.routes == {}
        assert self.bench.waiting == 0
        assert self.bench.deadlines.next_at is None
        for told in self.openers.values():
            assert told.ends + told.cancelled == 1, "an event without an end, or with two"


RouterMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestRouterMachine = RouterMachine.TestCase
