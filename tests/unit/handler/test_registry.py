"""Which methods can be reached, and with which arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from restpipe import ClientEventHandler, EventHandler, ServerEventHandler, streamed
from restpipe.errors import Code, StreamReset
from restpipe.handler.registry import VERBS, Registry

PostData = tuple[str, Any]


class Mixin:
    def put_mixed(self, ctx: Any, post_data: PostData) -> None: ...


class Handler(EventHandler, Mixin):
    was_read = False
    get_constant = 5

    def get_time_utc(self, ctx: Any, post_data: PostData) -> str:
        return "time"

    def get_cat(self, ctx: Any, post_data: PostData, a: str, b: str = "") -> None: ...

    def get_all(self, ctx: Any, post_data: PostData, *parts: str, **query: Any) -> None: ...

    def get_keyword(self, ctx: Any, post_data: PostData, *, size: str, unit: str = "") -> None: ...

    def head_cat(self, ctx: Any, post_data: PostData) -> None: ...

    def options_own(self, ctx: Any, post_data: PostData) -> None: ...

    async def post_async(self, ctx: Any, post_data: PostData) -> None: ...

    async def get_events(self, ctx: Any, post_data: PostData) -> AsyncIterator[bytes]:
        yield b""

    @staticmethod
    def get_static(ctx: Any, post_data: PostData, a: str) -> None: ...

    @classmethod
    def get_class(cls, ctx: Any, post_data: PostData, a: str) -> None: ...

    @streamed
    def put_large(self, ctx: Any, post_data: PostData) -> None: ...

    @functools.lru_cache  # noqa: B019
    def get_cached(self, ctx: Any, post_data: PostData) -> None: ...

    @property
    def get_property(self) -> None:
        type(self).was_read = True

    def get_nothing(self) -> None: ...

    def get__private(self, ctx: Any, post_data: PostData) -> None: ...

    def _get_private(self, ctx: Any, post_data: PostData) -> None: ...

    def __get_mangled(self, ctx: Any, post_data: PostData) -> None: ...

    def trace_x(self, ctx: Any, post_data: PostData) -> None: ...

    def GET_x(self, ctx: Any, post_data: PostData) -> None: ...  # noqa: N802

    def get(self, ctx: Any, post_data: PostData) -> None: ...


@pytest.fixture
def registry() -> Registry:
    return Registry.of(Handler())


def test_exactly_these_can_be_reached(registry: Registry) -> None:
    assert {method.name for method in registry} == {
        "get_all",
        "get_cached",
        "get_cat",
        "get_class",
        "get_events",
        "get_keyword",
        "get_static",
        "get_time_utc",
        "head_cat",
        "options_own",
        "post_async",
        "put_large",
        "put_mixed",
    }
    assert not Handler.was_read


def test_base_classes_answer_nothing() -> None:
    for base in (EventHandler, ServerEventHandler, ClientEventHandler):
        assert len(Registry.of(base())) == 0


def test_what_only_looks_like_a_method_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    Registry.of(Handler())
    named = {word for record in caplog.records for word in record.getMessage().split() if "." in word}
    assert named == {"Handler.get_nothing", "Handler.get_property", "Handler.get_constant"}


@pytest.mark.parametrize("noun", [("time", "utc"), ("time_utc",)])
def test_slash_and_underscore_are_the_same(registry: Registry, noun: tuple[str, ...]) -> None:
    found = registry.find("GET", noun)
    assert found is not None
    assert found.name == "get_time_utc"


@pytest.mark.parametrize(
    ("verb", "noun"),
    [
        ("GET", ("time/utc",)),
        ("GET", ("time", "utc", "")),
        ("GET", ("time", "", "utc")),
        ("GET", ("",)),
        ("GET", ("_private",)),
        ("GET", ("", "private")),
        ("GET", ("__class__",)),
        ("get", ("cat",)),
        ("POST", ("cat",)),
        ("TRACE", ("x",)),
        ("START", ("hook",)),
        ("STOP", ("hook",)),
        ("", ("get", "cat")),
        ("_GET", ("private",)),
    ],
)
def test_nothing_else_is_found(registry: Registry, verb: str, noun: tuple[str, ...]) -> None:
    assert registry.find(verb, noun) is None


def test_head_has_its_own_method_or_falls_back_to_get(registry: Registry) -> None:
    own, fallback = registry.find("HEAD", ("cat",)), registry.find("HEAD", ("all",))
    assert own is not None
    assert own.name == "head_cat"
    assert fallback is not None
    assert fallback.name == "get_all"
    assert registry.find("HEAD", ("async",)) is None


@pytest.mark.parametrize(
    ("noun", "allowed"),
    [
        ("cat", ["GET", "HEAD", "OPTIONS"]),
        ("async", ["POST", "OPTIONS"]),
        ("own", ["OPTIONS"]),
        ("unknown", []),
    ],
)
def test_allowed(registry: Registry, noun: str, allowed: list[str]) -> None:
    assert registry.allowed((noun,)) == allowed


def test_kinds_of_methods(registry: Registry) -> None:
    assert {method.name for method in registry if method.is_async} == {"post_async", "get_events"}
    assert {method.name for method in registry if method.streamed} == {"put_large"}


@pytest.mark.parametrize(
    ("noun", "arguments", "query"),
    [
        ("cat", ("a",), {}),
        ("cat", ("a", "b"), {}),
        ("cat", (), {"a": "x"}),
        ("cat", ("a",), {"b": ["x", "y"]}),
        ("all", (), {}),
        ("all", ("",) * 500, {"anything": "x"}),
        ("keyword", (), {"size": "1"}),
        ("static", ("a",), {}),
        ("class", ("a",), {}),
    ],
)
def test_arguments_that_fit(
    registry: Registry, noun: str, arguments: tuple[str, ...], query: dict[str, Any]
) -> None:
    method = registry.find("GET", (noun,))
    assert method is not None
    method.check(arguments, query)
    assert inspect.signature(method.call).bind(None, None, *arguments, **query)


@pytest.mark.parametrize(
    ("noun", "arguments", "query"),
    [
        ("cat", (), {}),
        ("cat", ("a", "b", "c"), {}),
        ("cat", ("a",), {"a": "x"}),
        ("cat", ("a",), {"c": "x"}),
        ("cat", ("a",), {"ctx": "x"}),
        ("cat", ("a",), {"post_data": "x"}),
        ("all", (), {"self": "x"}),
        ("all", (), {"ctx": "x"}),
        ("keyword", (), {}),
        ("keyword", ("1",), {}),
        ("static", (), {}),
        ("class", ("a",), {"cls": "x"}),
    ],
)
def test_arguments_that_do_not_fit_are_the_callers_fault(
    registry: Registry, noun: str, arguments: tuple[str, ...], query: dict[str, Any]
) -> None:
    method = registry.find("GET", (noun,))
    assert method is not None
    with pytest.raises(StreamReset, match=f"get_{noun}: ") as caught:
        method.check(arguments, query)
    assert caught.value.code is Code.BAD_REQUEST


def test_every_verb_can_have_a_method() -> None:
    def answer(self: Any, ctx: Any, post_data: PostData) -> None: ...

    handler = type("Every", (EventHandler,), {f"{verb.lower()}_x": answer for verb in VERBS})()
    registry = Registry.of(handler)
    for verb in VERBS:
        found = registry.find(verb, ("x",))
        assert found is not None
        assert found.name == f"{verb.lower()}_x"


# What decorators make of methods.


def with_more(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, ctx: Any, post_data: PostData, *arguments: Any, **query: Any) -> Any:
        return method(self, ctx, post_data, "more", *arguments, **query)

    return call


def with_less(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, ctx: Any, post_data: PostData, *arguments: Any) -> Any:
        return method(self, *arguments)

    return call


def with_query(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, ctx: Any, post_data: PostData, *arguments: Any, page: str = "1") -> Any:
        return page, method(self, ctx, post_data, *arguments)

    return call


class Called:
    """A function that is none."""

    def __call__(self, ctx: Any, post_data: PostData, a: str) -> str:
        return a


class Decorated(EventHandler):
    was_read = False

    @with_more
    def get_more(self, ctx: Any, post_data: PostData, more: str, a: str) -> str:
        return more + a

    @with_less
    def get_less(self, a: str) -> str:
        return a

    @with_query
    def get_query(self, ctx: Any, post_data: PostData) -> str:
        return "q"

    @functools.cached_property
    def get_lazy(self) -> Any:
        type(self).was_read = True
        return lambda ctx, post_data: None

    @functools.singledispatchmethod
    def get_single(self, ctx: Any, post_data: PostData, a: str) -> str:
        return a

    def get_base(self, ctx: Any, post_data: PostData, a: str) -> str:
        return a

    get_partial = functools.partialmethod(get_base)
    get_called = Called()
    get_in_c = print


@pytest.mark.parametrize(
    ("noun", "arguments", "query", "result"),
    [
        ("more", ("a",), {}, "morea"),
        ("less", ("a",), {}, "a"),
        ("query", (), {"page": "2"}, ("2", "q")),
        ("query", (), {}, ("1", "q")),
        ("single", ("a",), {}, "a"),
        ("partial", ("a",), {}, "a"),
        ("called", ("a",), {}, "a"),
    ],
)
def test_what_is_checked_is_what_is_called(
    noun: str, arguments: tuple[str, ...], query: dict[str, str], result: Any
) -> None:
    method = Registry.of(Decorated()).find("GET", (noun,))
    assert method is not None
    method.check(arguments, query)
    assert method.call(None, ("", ""), *arguments, **query) == result
    if noun not in ("more", "single"):  # these take any
        with pytest.raises(StreamReset):
            method.check(arguments, {**query, "unknown": "x"})


def test_what_is_computed_when_it_is_read_is_not_read() -> None:
    assert Registry.of(Decorated()).find("GET", ("lazy",)) is None
    assert not Decorated.was_read


def test_a_method_without_a_signature_takes_what_comes() -> None:
    method = Registry.of(Decorated()).find("GET", ("in", "c"))
    assert method is not None
    method.check(("a", "b"), {"sep": "x"})
