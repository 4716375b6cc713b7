"""What can be done to a scene, drawn at random. Each fault is over and healed when it returns."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

from tests.faults.scene import Scene
from tests.support.nodes import PARTS, Node

MAX_PAUSE_S = 3.0
"""Longer than heartbeats are patient here."""

HANDLERS = ("handlers", "handlers.2")


class Faults:
    """Does one thing after another; `done` says what, for whoever must find out why."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self.done: list[str] = []
        self._scene = scene
        self._random = random.Random(seed)
        self._began = time.monotonic()
        self._all: list[tuple[int, Callable[[], str]]] = [
            (6, self._break_link),
            (3, self._hang_link),
            (2, self._refuse),
            (2, self._slow_link),
            (2, self._reorder),
            (4, self._kill),
            (4, self._restart),
            (3, self._stand_still),
            (2, self._reload_web),
        ]

    def step(self) -> None:
        """One fault, then a moment of peace, which may be none."""
        weights = [weight for weight, _ in self._all]
        _, fault = self._random.choices(self._all, weights)[0]
        at = time.monotonic() - self._began
        self.done.append(f"{at:7.2f} s: {fault()}")
        time.sleep(self._random.choice((0.0, 0.1, 0.5, 1.5)))

    def _pause(self) -> float:
        pause_s = self._random.uniform(0.05, MAX_PAUSE_S)
        time.sleep(pause_s)
        return pause_s

    def _process(self) -> tuple[Node, str]:
        node = self._random.choice(self._scene.nodes)
        part = self._random.choice(PARTS)
        return node, self._random.choice(HANDLERS) if part == "handlers" else part

    # Links.

    def _break_link(self) -> str:
        link = self._scene.link
        size = self._random.randint(1, 100_000)
        name, verb = self._random.choice(
            [("cut", link.cut), ("reset", link.reset), (f"truncated at {size}", lambda: link.truncate(size))]
        )
        verb()
        return f"link {name}"

    def _hang_link(self) -> str:
        self._scene.link.hang()
        pause_s = self._pause()
        self._scene.link.heal()
        return f"link hung for {pause_s:.2f} s"

    def _refuse(self) -> str:
        self._scene.link.refuse()
        pause_s = self._pause()
        self._scene.link.heal()
        return f"link away for {pause_s:.2f} s"

    def _slow_link(self) -> str:
        link = self._scene.link
        link.delay_s = self._random.choice((0.0, 0.05, 0.2))
        link.bytes_per_s = self._random.choice((0, 200_000, 1_000_000))
        what = f"delay {link.delay_s} s, {link.bytes_per_s or 'any number of'} bytes a second"
        pause_s = self._pause()
        link.heal()
        return f"{what}, for {pause_s:.2f} s"

    def _reorder(self) -> str:
        link = self._scene.link
        before = link.overtaken
        link.reorder()
        link.reset()
        pause_s = self._pause()
        link.heal()
        return f"{link.overtaken - before} connections overtaken within {pause_s:.2f} s"

    # Processes.

    def _kill(self) -> str:
        node, part = self._process()
        self._scene.kill(node, part)
        return f"{node.role} {part} killed"

    def _restart(self) -> str:
        node, part = self._process()
        self._scene.restart(node, part)
        return f"{node.role} {part} restarted"

    def _stand_still(self) -> str:
        node, part = self._process()
        node.processes[part].stop()
        pause_s = self._pause()
        node.processes[part].cont()
        return f"{node.role} {part} stood still for {pause_s:.2f} s"

    def _reload_web(self) -> str:
        node = self._random.choice(self._scene.nodes)
        node.web.send(signal.SIGHUP)
        return f"{node.role} web reloaded"
