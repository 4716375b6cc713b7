"""The two messages of the bare chain, made without the protobuf compiler."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_TEXT = FieldDescriptorProto.TYPE_STRING
_BYTES = FieldDescriptorProto.TYPE_BYTES
_NUMBER = FieldDescriptorProto.TYPE_UINT32

_file = FileDescriptorProto(name="chain.proto", package="chain", syntax="proto3")


def _declare(name: str, **fields: FieldDescriptorProto.Type.ValueType) -> None:
    message = _file.message_type.add(name=name)
    for number, (field, kind) in enumerate(fields.items(), 1):
        message.field.add(name=field, number=number, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)


_declare("Event", verb=_TEXT, noun=_TEXT, mime=_TEXT, data=_BYTES)
_declare("Reply", code=_NUMBER, mime=_TEXT, data=_BYTES)
_pool = DescriptorPool()
_pool.Add(_file)

Event: Any = GetMessageClass(_pool.FindMessageTypeByName("chain.Event"))
Reply: Any = GetMessageClass(_pool.FindMessageTypeByName("chain.Reply"))
