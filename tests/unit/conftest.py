"""What every unit test finds as if it were the first."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from restpipe.host import logs


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    """Processes configure it, and tests run what processes run."""
    loggers = [logging.getLogger(name) for name in ("", logs.ROOT, "asyncio")]
    before = [(list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    yield
    logging.disable(logging.NOTSET)
    logging.setLogRecordFactory(logging.LogRecord)
    for logger in logging.Logger.manager.loggerDict.values():
        if isinstance(logger, logs.OwnLogger):
            logger.__class__ = logging.Logger
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
