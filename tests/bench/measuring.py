"""What is measured, one measurement of it, and what many of them come to."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from tests.bench.cpu import Meter
from tests.bench.failures import BenchError
from tests.bench.h2load import load

T = TypeVar("T")

IN_FLIGHT = (1, 16, 64)
WARM_UP_S = 1.0


class Subject(NamedTuple):
    name: str
    socket: Path
    target: str
    pids: Mapping[str, int]
    """The processes that have a part in an answer, by the names that are shown."""


class Sample(NamedTuple):
    rate: float
    """Requests a second."""
    failed: int
    cpu_us: Mapping[str, float]
    """CPU time of each process, in microseconds a request."""

    @property
    def total_us(self) -> float:
        return sum(self.cpu_us.values())


def warm_up(subject: Subject) -> None:
    """BenchError where it answers nothing, or nothing but errors."""
    result = load(subject.socket, subject.target, 16, WARM_UP_S)
    if result.failed == result.done:
        raise BenchError(f"{subject.name}: every request for {subject.target} failed")


def measure(subject: Subject, in_flight: int, seconds: float) -> Sample:
    meter = Meter(subject.pids)
    result = load(subject.socket, subject.target, in_flight, seconds)
    cpu_us = {name: spent / result.done for name, spent in meter.spent_us().items()}
    return Sample(result.done / seconds, result.failed, cpu_us)


def median_rate(samples: Sequence[Sample]) -> float:
    return statistics.median(sample.rate for sample in samples)


def median_total_us(samples: Sequence[Sample]) -> float:
    return statistics.median(sample.total_us for sample in samples)


def median_cpu_us(samples: Sequence[Sample]) -> dict[str, float]:
    """Of each process by itself."""
    return {name: statistics.median(sample.cpu_us[name] for sample in samples) for name in samples[0].cpu_us}


def failures(samples: Sequence[Sample]) -> int:
    return sum(sample.failed for sample in samples)


def rate_ratio(samples: Sequence[Sample], others: Sequence[Sample]) -> float:
    return median_ratio(samples, others, lambda sample: sample.rate)


def median_ratio(of: Sequence[T], to: Sequence[T], value: Callable[[T], float]) -> float:
    """Taken within a round, where both had the same neighbours."""
    return statistics.median(value(one) / value(other) for one, other in zip(of, to, strict=True))


def cpu_text(samples: Sequence[Sample]) -> str:
    """`196: web 89, pipe 29`; without those that hardly took part."""
    parts = ", ".join(f"{name} {us:.0f}" for name, us in median_cpu_us(samples).items() if us >= 1)
    return f"{median_total_us(samples):.0f}: {parts}"
