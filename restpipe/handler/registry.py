"""Which method answers which event: found once when the class is loaded, looked up for each event. Pure.

A noun's segments are joined with underscores, so `time/utc` and `time_utc` are the same noun, as they have
always been. A segment that is empty or holds an encoded slash is no noun at all.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from restpipe.handler.api import EventHandler, is_streamed
from restpipe.handler.target import bad_request
from restpipe.host import stats
from restpipe.http import VERBS

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_METHODS = (classmethod, staticmethod, functools.partialmethod, functools.singledispatchmethod)
"""Callable once they are bound."""
_log = logging.getLogger(__name__)


class Method:
    """One method of a handler, with all that is known about it beforehand."""

    __slots__ = (
        "_leading",
        "_max",
        "_min",
        "_signature",
        "call",
        "is_async",
        "name",
        "of_head",
        "streamed",
        "tick",
        "timing",
    )

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self.name = name
        self.call = call
        self.is_async = inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)
        self.streamed = is_streamed(call)
        self.of_head = name.startswith("head_")
        self.tick = stats.handled_tick(name)
        self.timing = stats.handled_timing(name)
        # With `self` counted in, a query parameter of that name is found out before the call.
        function = getattr(call, "__func__", call)
        self._leading = 2 if function is call else 3
        self._signature = _signature(function)
        self._min, self._max = _count_arguments(self._signature, self._leading)

    @property
    def callable_with_event(self) -> bool:
        """It takes context and post data at all."""
        return self._max >= 0

    def check(self, arguments: Sequence[str], query: Mapping[str, Any]) -> None:
        """Raise `StreamReset` (BAD_REQUEST) unless the method can be called with these."""
        if not query and self._min <= len(arguments) <= self._max:
            return
        try:
            self._signature.bind(*(None,) * self._leading, *arguments, **query)
        except TypeError as error:
            raise bad_request(f"{self.name}: {error}") from None


class Registry:
    """The methods of one event handler, by verb and noun."""

    def __init__(self, methods: Mapping[tuple[str, str], Method]) -> None:
        self._methods = dict(methods)

    @classmethod
    def of(cls, handler: EventHandler) -> Registry:
        """Collect all that can be called on it; what only looks so is named in the log."""
        return cls({(verb, noun): method for verb, noun, method in _find_methods(handler)})

    def __len__(self) -> int:
        return len(self._methods)

    def __iter__(self) -> Iterator[Method]:
        return iter(self._methods.values())

    def find(self, verb: str, noun: Sequence[str]) -> Method | None:
        """Find the method for an event, None if there is none; HEAD falls back to the method for GET."""
        key = noun[0] if len(noun) == 1 else _join(noun)
        found = self._methods.get((verb, key))
        if found is None and verb == "HEAD":
            found = self._methods.get(("GET", key))
        return found

    def allowed(self, noun: Sequence[str]) -> list[str]:
        """List the verbs of a noun as the Allow header has them; empty for an unknown noun."""
        key = _join(noun)
        if not any((verb, key) in self._methods for verb in VERBS):
            return []
        return [verb for verb in VERBS if verb == "OPTIONS" or self.find(verb, noun)]


def method_name(verb: str, noun: Sequence[str]) -> str:
    """Return the name of the method that an event asks for, whether there is one or not."""
    return f"{verb.lower()}_{'_'.join(noun)}"


def _join(noun: Sequence[str]) -> str:
    # An empty segment would let `a//b`, which cannot be written, be asked for as `a/` and the like.
    return "" if "" in noun else "_".join(noun)


def _find_methods(handler: EventHandler) -> Iterator[tuple[str, str, Method]]:
    for name in dir(type(handler)):
        verb, noun = _split_name(name)
        if not noun or noun.startswith("_"):
            continue
        method = _method(handler, name)
        if method is not None and method.callable_with_event:
            yield verb, noun, method
        else:
            _log.warning(
                "%s.%s answers no event: it does not take (ctx, post_data)", type(handler).__name__, name
            )


def _split_name(name: str) -> tuple[str, str]:
    """Verb and noun, both empty if the name does not begin with a verb."""
    prefix, _, noun = name.partition("_")
    verb = prefix.upper()
    return (verb, noun) if prefix.islower() and verb in VERBS else ("", "")


def _method(handler: EventHandler, name: str) -> Method | None:
    # Static, because reading a property would run it.
    static = inspect.getattr_static(type(handler), name)
    if isinstance(static, type) or not (callable(static) or isinstance(static, _METHODS)):
        return None
    call = getattr(handler, name)
    return Method(name, call) if callable(call) else None


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return what a method is called with. What a decorator wraps may take other arguments than that."""
    for follow in (False, True):
        with contextlib.suppress(TypeError, ValueError):
            return inspect.signature(function, follow_wrapped=follow)
    # Of a method that is written in C.
    return inspect.signature(lambda *arguments, **query: None)


def _count_arguments(signature: inspect.Signature, leading: int) -> tuple[int, int]:
    """Fewest and most arguments that can stand behind the leading ones; the most is -1 if none of it fits."""
    fewest = most = -leading
    for parameter in signature.parameters.values():
        if parameter.kind in _POSITIONAL:
            most += 1
            fewest += parameter.default is inspect.Parameter.empty
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            most = 1_000_000
        elif (
            parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is inspect.Parameter.empty
        ):
            fewest = 2_000_000  # not without a query: `bind` will say what is missing
    return max(fewest, 0), max(most, -1)
