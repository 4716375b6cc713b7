"""Metrics for statsd. Counting costs a dictionary lookup, whatever statsd is up to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections import deque

from statsd import StatsClient  # type: ignore[import-untyped]

from restpipe.host.options import Statsd

logger = logging.getLogger(__name__)

CONNECT_NEW = "client.connect.new.tick"
CONNECT_ATTEMPT_TIME = "client.connect.new.attempt.timing"
CONNECTED = "client.connect.connected.tick"
BROKEN = "client.connect.broken.tick"
HEARTBEAT_TIME = "client.connect.heartbeat.timing"
HEARTBEAT_SUCCESS = "client.connect.heartbeat.success.tick"
HEARTBEAT_FAIL = "client.connect.heartbeat.fail.tick"
SEND = "message.send.tick"
SEND_TIME = "message.send.timing"
RECEIVE = "message.receive.tick"
RECEIVE_HANDLE_TIME = "message.receive.handle.timing"
DROPPED = "statsd.dropped.tick"
"""Ticks and timings that were too many to keep."""

FLUSH_INTERVAL_S = 1.0
RESOLVE_INTERVAL_S = 60.0
"""A datagram sent to where statsd used to be fails silently: its name is looked up again now and then."""
GOODBYE_S = 0.5
"""How long the last flush may hold up the end of the process."""
MAX_NAMES = 1000
MAX_TIMINGS = 200
"""Of one name, between two flushes; the oldest are dropped."""

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.\-]")


def handled_tick(name: str) -> str:
    """Events of one kind (`get_time`, say) that were received and handled."""
    return f"message.received.handle.{name}.tick"


def handled_timing(name: str) -> str:
    """How long handling one kind of event took."""
    return f"message.received.handle.{name}.timing"


class Stats:
    """Collects from any thread; `run` sends once a second from a thread of its own."""

    def __init__(self, config: Statsd) -> None:
        self._config = config
        self._enabled = config.enabled
        self._lock = threading.Lock()
        self._batch = Batch()
        self._client: StatsClient | None = None
        self._connected_as: Statsd | None = None
        self._resolved_at = 0.0
        self._failing = False

    @classmethod
    def off(cls) -> Stats:
        """Collects and sends nothing."""
        return cls(Statsd(host="", port=0))

    def configure(self, config: Statsd) -> None:
        """What is sent from now on goes there."""
        with self._lock:
            self._config = config
            self._enabled = config.enabled

    def tick(self, name: str, n: int = 1) -> None:
        if self._enabled:
            with self._lock:
                self._batch.tick(name, n)

    def timing(self, name: str, seconds: float) -> None:
        if self._enabled:
            with self._lock:
                self._batch.timing(name, seconds)

    async def run(self) -> None:
        """Send, until cancelled; then once more, within half a second. Never fails."""
        stop, stopped = threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def flush_until_stopped() -> None:
            while not stop.wait(FLUSH_INTERVAL_S):
                self.flush()
            self.flush()
            with contextlib.suppress(RuntimeError):  # the loop did not wait for us
                loop.call_soon_threadsafe(stopped.set)

        # Not the loop's pool of threads: a look-up that hangs would keep the process from ending.
        threading.Thread(target=flush_until_stopped, name="statsd", daemon=True).start()
        try:
            await stopped.wait()
        finally:
            stop.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), GOODBYE_S)

    def flush(self) -> None:
        """Send what was collected, or drop it if that fails. Blocks: not for an event loop's thread."""
        with self._lock:
            batch, self._batch = self._batch, Batch()
            config = self._config
        if batch.empty or not config.enabled:
            return
        try:
            batch.send(self._connected(config))
        except Exception as exc:
            self._forget_address()
            self._report(exc)
        else:
            self._failing = False

    def _connected(self, config: Statsd) -> StatsClient:
        stale = time.monotonic() - self._resolved_at > RESOLVE_INTERVAL_S
        if self._client is None or stale or config is not self._connected_as:
            self._forget_address()
            self._client = _connect(config)
            self._connected_as = config
            self._resolved_at = time.monotonic()
        return self._client

    def _forget_address(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    def _report(self, exc: Exception) -> None:
        # Once per outage: statsd's troubles are no reason to fill the log.
        level = logging.DEBUG if self._failing else logging.WARNING
        logger.log(level, "statsd at %s:%d: %s", self._config.host, self._config.port, exc)
        self._failing = True


class Batch:
    """What is collected between two flushes: sums of ticks, the newest timings, bounded."""

    def __init__(self) -> None:
        self._ticks: dict[str, int] = {}
        self._timings: dict[str, deque[float]] = {}
        self._dropped = 0

    @property
    def empty(self) -> bool:
        return not (self._ticks or self._timings or self._dropped)

    def tick(self, name: str, n: int) -> None:
        if name in self._ticks:
            self._ticks[name] += n
        elif len(self._ticks) < MAX_NAMES:
            self._ticks[name] = n
        else:
            self._dropped += n

    def timing(self, name: str, seconds: float) -> None:
        kept = self._timings.get(name)
        if kept is None:
            if len(self._timings) >= MAX_NAMES:
                self._dropped += 1
                return
            kept = self._timings[name] = deque(maxlen=MAX_TIMINGS)
        self._dropped += len(kept) == MAX_TIMINGS
        kept.append(seconds)

    def send(self, client: StatsClient) -> None:
        """Many metrics a datagram."""
        with client.pipeline() as pipeline:
            for name, n in self._ticks.items():
                pipeline.incr(_safe(name), n)
            for name, kept in self._timings.items():
                for seconds in kept:
                    pipeline.timing(_safe(name), seconds * 1000)
            if self._dropped:
                pipeline.incr(DROPPED, self._dropped)


def _connect(config: Statsd) -> StatsClient:
    try:
        return StatsClient(config.host, config.port)
    except OSError:
        return StatsClient(config.host, config.port, ipv6=True)


def _safe(name: str) -> str:
    """statsd gives `:`, `|`, `@` and line ends a meaning, and its client library sends ASCII alone."""
    return _NOT_IN_NAMES.sub("_", name)
