"""One target under libFuzzer: `python -m tests.fuzz.one TARGET [libFuzzer's options] [FILE or FOLDER...]`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import atheris

with atheris.instrument_imports(include=["restpipe", "restpipe_ca"]):
    from tests.fuzz.targets import TARGETS


def main(arguments: Sequence[str]) -> None:
    """Does not return."""
    name, *options = arguments
    # Of what is damaged there are lines by design.
    logging.disable()
    atheris.Setup([f"restpipe-fuzz-{name}", *options], TARGETS[name].check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
