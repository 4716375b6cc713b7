"""A pipe daemon for tests: takes a web worker's link and answers events by itself, frame by frame."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

from restpipe.errors import Code, Delivered
from restpipe.protocol import frames
from restpipe.protocol.frames import END, Frame, FrameDecoder
from restpipe.protocol.schema_pb2 import Event, Hello, Reply, Reset, Welcome


class FakeEvent:
    """One event as it reached the daemon."""

    def __init__(self, worker: FakeWorker, stream: int, event: Event) -> None:
        self.event = event
        self.body = bytearray()
        self.body_ended = False
        self.reset: Reset | None = None
        self.changed = asyncio.Event()
        self.credit = 65536
        self._worker = worker
        self._stream = stream

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def whole_body(self) -> bytes:
        await self.until(lambda: self.body_ended or self.reset is not None)
        return bytes(self.body)

    def reply(self, reply: Reply, body: bytes = b"", *, end: bool = True) -> None:
        self.credit -= len(body)
        self._send(
            frames.encode(frames.REPLY, self._stream, reply.SerializeToString(), body, flags=end * END)
        )

    def data(self, body: bytes, *, end: bool = False) -> None:
        self.credit -= len(body) + frames.HEADER_SIZE
        self._send(frames.encode(frames.DATA, self._stream, b"", body, flags=end * END))

    async def stream(self, body: bytes, *, end: bool = True) -> None:
        """Sends `body` as credit allows."""
        for at in range(0, len(body), 32768):
            await self.until(lambda: self.credit > 40000 or self.reset is not None)
            if self.reset is not None:
                return
            self.data(body[at : at + 32768])
        if end:
            self.data(b"", end=True)

    def fail(self, code: Code, delivered: Delivered, detail: str = "", names: tuple[str, ...] = ()) -> None:
        reset = Reset(code=code, detail=detail, delivered=int(delivered), names=names)  # type: ignore[arg-type]
        self._send(frames.encode(frames.RESET, self._stream, reset.SerializeToString()))

    def cut(self) -> None:
        """Breaks the whole link."""
        self._worker.writer.transport.abort()

    def _send(self, data: bytes) -> None:
        self._worker.writer.write(data)


Answer = Callable[[FakeEvent], Awaitable[None]]


class FakeWorker:
    """The daemon's end of one web worker's link."""

    def __init__(self, writer: asyncio.StreamWriter, daemon: FakeDaemon) -> None:
        self.writer = writer
        self._daemon = daemon
        self._events: dict[int, FakeEvent] = {}

    async def serve(self, reader: asyncio.StreamReader) -> None:
        decoder = FrameDecoder()
        while data := await reader.read(262144):
            for frame in decoder.feed(data):
                self._take(frame)

    def _take(self, frame: Frame) -> None:
        if frame.kind == frames.HELLO:
            Hello.FromString(frame.head)
            welcome = Welcome(major=1, session=b"s" * 16)
            self.writer.write(frames.encode(frames.WELCOME, head=welcome.SerializeToString()))
        elif frame.kind == frames.PING:
            self.writer.write(frames.encode_count(frames.PONG, 0))
        elif frame.kind == frames.EVENT:
            event = FakeEvent(self, frame.stream, Event.FromString(frame.head))
            self._events[frame.stream] = event
            self._daemon.events.append(event)
            self._take_body(event, frame)
            self._grant(frame, len(frame.body))
            self._daemon.start(event)
        elif frame.stream in self._events:
            self._take_stream_frame(self._events[frame.stream], frame)

    def _take_stream_frame(self, event: FakeEvent, frame: Frame) -> None:
        if frame.kind == frames.DATA:
            self._take_body(event, frame)
            self._grant(frame, frames.HEADER_SIZE + len(frame.body))
        elif frame.kind == frames.WINDOW:
            event.credit += frames.decode_credit(frame)
        elif frame.kind == frames.RESET:
            event.reset = Reset.FromString(frame.head)
        event.changed.set()

    def _grant(self, frame: Frame, credit: int) -> None:
        if frame.body and self._daemon.grants_credit:
            self.writer.write(frames.encode_credit(frames.WINDOW, frame.stream, credit))

    @staticmethod
    def _take_body(event: FakeEvent, frame: Frame) -> None:
        event.body += frame.body
        event.body_ended = frame.ends


class FakeDaemon:
    """Listens on `path`; may be used from a test's loop, or run in a thread of its own (`with`)."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.path = path
        self.answer = answer
        self.events: list[FakeEvent] = []
        self.grants_credit = True
        self.loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Calls it in the daemon's thread."""
        assert self.loop is not None
        self.loop.call_soon_threadsafe(function, *args)

    def start(self, event: FakeEvent) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, event: FakeEvent) -> None:
        await self.answer(event)

    async def listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._take, self.path)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await FakeWorker(writer, self).serve(reader)
        except OSError:
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        for task in (*self._tasks,):
            task.cancel()
        if self._server is not None:
            self._server.close()

    def __enter__(self) -> FakeDaemon:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.loop is not None and self._thread is not None
        self.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        asyncio.run(self._live(ready))

    async def _live(self, ready: threading.Event) -> None:
        self.loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        await self.listen()
        ready.set()
        await self._stopping.wait()
        await self.close()


async def echo(event: FakeEvent) -> None:
    """Answers with what arrived, as JSON."""
    body = await event.whole_body()
    said = {
        "verb": event.event.verb,
        "to": event.event.to,
        "target": event.event.target,
        "content_type": event.event.content_type,
        "headers": [[header.name, header.value] for header in event.event.headers],
        "timeout_ms": event.event.timeout_ms,
        "traceparent": event.event.traceparent,
        "size": len(body),
        "body": body[:1000].decode("latin-1"),
    }
    text = json.dumps(said).encode()
    event.reply(Reply(content_type="application/json", status=200, body_length=len(text)), text)


async def silence(event: FakeEvent) -> None:
    """Never answers."""
