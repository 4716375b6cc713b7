"""What the benchmarks make of what other programs say, and of many measurements."""

from __future__ import annotations

import pytest

from tests.bench.failures import BenchError, cause, short
from tests.bench.h2load import Load, parsed
from tests.bench.markdown import table
from tests.bench.measuring import Sample, cpu_text, failures, median_rate, rate_ratio
from tests.bench.peers.outcome import times

REPORT = """
finished in 1.00s, 4321.00 req/s, 1.10MB/s
requests: 4337 total, 4337 started, {done} done, {succeeded} succeeded, {failed} failed, 0 errored, 0 timeout
status codes: {succeeded} 2xx, 0 3xx, 0 4xx, {failed} 5xx
"""


def test_counts_of_h2load() -> None:
    assert parsed(REPORT.format(done=4321, succeeded=4321, failed=0), "") == Load(4321, 0)
    assert parsed(REPORT.format(done=4321, succeeded=4300, failed=21), "") == Load(4321, 21)


@pytest.mark.parametrize("report", ["", REPORT.format(done=0, succeeded=0, failed=0)])
def test_a_load_that_nothing_answers_is_told_with_its_reason(report: str) -> None:
    with pytest.raises(BenchError, match="because"):
        parsed(report, "because")


def test_why_a_process_ended() -> None:
    assert cause("Traceback:\nModuleNotFoundError: No module named 'x'\nWorker failed to boot.\n\n") == (
        "ModuleNotFoundError: No module named 'x'"
    )
    assert cause("starting\ncannot bind\n") == "cannot bind"
    assert cause("\n") == "it said nothing"


def test_a_failure_in_one_line() -> None:
    assert short(AssertionError("pipe ended (1) before: READY=1; its log:\nfirst\nlast")) == (
        "pipe ended (1) before: READY=1; its log: last"
    )
    assert short(AssertionError("in vain")) == "in vain"


def test_ratios_are_taken_within_a_round() -> None:
    ours = [Sample(rate, 0, {}) for rate in (50.0, 100.0, 30.0)]
    theirs = [Sample(rate, 0, {}) for rate in (100.0, 200.0, 30.0)]
    assert rate_ratio(ours, theirs) == 0.5
    assert median_rate(ours) == 50.0


def test_cpu_time_is_shown_whole_and_by_process() -> None:
    samples = [
        Sample(1.0, failed, {"web": us, "idle": 0.2}) for failed, us in ((0, 10.0), (2, 30.0), (1, 20.0))
    ]
    assert cpu_text(samples) == "20: web 20"
    assert failures(samples) == 3


def test_one_ratio_and_how_far_several_lie_apart() -> None:
    assert times([0.5]) == "0.50"
    assert times([0.7, 0.5, 0.6]) == "0.60 (0.50 to 0.70)"


def test_a_table() -> None:
    assert table(("a", "b"), [("x", "1")]) == "| a | b |\n| --- | --: |\n| x | 1 |"
