from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DELIVERED_NO: Delivered
DELIVERED_UNKNOWN: Delivered
DELIVERED_YES: Delivered
DESCRIPTOR: _descriptor.FileDescriptor
ROLE_HANDLER: Role
ROLE_PIPE: Role
ROLE_UNSPECIFIED: Role
ROLE_WEB: Role

class Event(_message.Message):
    __slots__ = ["body_length", "content_type", "headers", "id", "target", "timeout_ms", "to", "traceparent", "tracestate", "verb"]
    BODY_LENGTH_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    body_length: int
    content_type: str
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    id: bytes
    target: str
    timeout_ms: int
    to: str
    traceparent: str
    tracestate: str
    verb: str
    def __init__(self, id: _Optional[bytes] = ..., verb: _Optional[str] = ..., target: _Optional[str] = ..., content_type: _Optional[str] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ..., timeout_ms: _Optional[int] = ..., to: _Optional[str] = ..., body_length: _Optional[int] = ...) -> None: ...

class Goaway(_message.Message):
    __slots__ = ["code", "detail"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    code: int
    detail: str
    def __init__(self, code: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ["name", "value"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ["capacity", "major", "minor", "received", "role", "session", "software"]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    capacity: int
    major: int
    minor: int
    received: int
    role: Role
    session: bytes
    software: str
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ..., role: _Optional[_Union[Role, str]] = ..., session: _Optional[bytes] = ..., received: _Optional[int] = ..., capacity: _Optional[int] = ..., software: _Optional[str] = ...) -> None: ...

class Notice(_message.Message):
    __slots__ = ["attempts", "connected", "kind", "peer", "peer_address", "since"]
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_ADDED: Notice.Kind
    CONNECTION_FAIL: Notice.Kind
    CONNECTION_REMOVED: Notice.Kind
    CONNECTION_SUCCESS: Notice.Kind
    IDLE: Notice.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    KIND_UNSPECIFIED: Notice.Kind
    PEER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    attempts: int
    connected: int
    kind: Notice.Kind
    peer: str
    peer_address: str
    since: float
    def __init__(self, kind: _Optional[_Union[Notice.Kind, str]] = ..., peer: _Optional[str] = ..., peer_address: _Optional[str] = ..., attempts: _Optional[int] = ..., since: _Optional[float] = ..., connected: _Optional[int] = ...) -> None: ...

class Origin(_message.Message):
    __slots__ = ["address", "peer", "port"]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    address: str
    peer: str
    port: int
    def __init__(self, peer: _Optional[str] = ..., address: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ["body_length", "code", "content_type", "headers", "status"]
    BODY_LENGTH_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    body_length: int
    code: int
    content_type: str
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    status: int
    def __init__(self, code: _Optional[int] = ..., status: _Optional[int] = ..., content_type: _Optional[str] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ..., body_length: _Optional[int] = ...) -> None: ...

class Reset(_message.Message):
    __slots__ = ["code", "delivered", "detail", "names"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    code: int
    delivered: Delivered
    detail: str
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, code: _Optional[int] = ..., detail: _Optional[str] = ..., delivered: _Optional[_Union[Delivered, str]] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ["major", "minor", "name", "received", "resumed", "session", "software"]
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    name: str
    received: int
    resumed: bool
    session: bytes
    software: str
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ..., session: _Optional[bytes] = ..., resumed: bool = ..., received: _Optional[int] = ..., software: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Delivered(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
