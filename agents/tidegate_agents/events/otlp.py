"""Events as OTLP/HTTP logs: protobuf messages of OpenTelemetry's own classes, and what a receiver says of them.

    ExportLogsServiceRequest ─ resource: the gateway ─ scope ─ a LogRecord for each event

The attributes of a LogRecord are the fields of `event.to_json` under the same names, and so hold the event's identity;
its time is the record's. https://opentelemetry.io/docs/specs/otlp/#otlphttp,
https://opentelemetry.io/docs/specs/otel/logs/data-model/
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from tidegate_agents.events.batches import Part
from tidegate_agents.events.names import PolicyNames
from tidegate_schema import __version__, event, hostevent
from tidegate_schema.event import Kind

CONTENT_TYPE = "application/x-protobuf"
SCOPE = "tidegate.events"
_INFO, _WARN = SeverityNumber.SEVERITY_NUMBER_INFO, SeverityNumber.SEVERITY_NUMBER_WARN
_INT_MAX = (1 << 63) - 1
_LENGTH_BYTES_MOST = 10  # of a length in the wire format


class _Said(NamedTuple):
    """A record, as a LogRecord has it."""

    wall_ns: int
    warns: bool
    name: str
    """Of the kind of event."""
    fields: dict[str, Any]


class Otlp:
    """Encodes the records of one ring of packets and flows."""

    content_type = CONTENT_TYPE
    _size = event.RECORD_BYTES

    def __init__(self, gateway: str, epoch: str, names: PolicyNames) -> None:
        self._gateway, self._epoch, self._names = gateway, epoch, names
        self._resource = Resource(
            attributes=[
                _attribute("service.name", "tidegate"),
                _attribute("service.version", __version__),
                _attribute("service.instance.id", gateway),
            ]
        )
        self._scope = InstrumentationScope(name=SCOPE, version=__version__)
        self.overhead = self._request(b"").ByteSize() + 2 * _LENGTH_BYTES_MOST

    def encode(self, records: bytes | memoryview) -> tuple[bytes, int]:
        """Return the records, which stand one after the other, as a message, and how many of them cannot be read.

        It is a ScopeLogs: written one after the other, such messages are one with all that is in them
        (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
        """
        size = self._size
        made = [self._log(records[at : at + size]) for at in range(0, len(records), size)]
        return b"".join(made), made.count(b"")

    def wrap(self, parts: Iterable[Part]) -> Iterable[Part]:
        """Yield what is posted for these messages."""
        yield self._request(b"".join(parts)).SerializeToString()

    def _request(self, log_records: bytes) -> ExportLogsServiceRequest:
        logs = ResourceLogs(resource=self._resource, scope_logs=[ScopeLogs(scope=self._scope)])
        request = ExportLogsServiceRequest(resource_logs=[logs])
        request.resource_logs[0].scope_logs[0].MergeFromString(log_records)
        return request

    def _log(self, record: bytes | memoryview) -> bytes:
        try:
            said = self._read(record)
        except ValueError:
            return b""
        del said.fields["@timestamp"]
        made = ScopeLogs()
        log = made.log_records.add(
            time_unix_nano=said.wall_ns,
            observed_time_unix_nano=said.wall_ns,
            severity_number=_WARN if said.warns else _INFO,
            severity_text="WARN" if said.warns else "INFO",
            event_name=f"tidegate.{said.name}",
        )
        texts = []
        for name, value in said.fields.items():
            if isinstance(value, int) and value <= _INT_MAX:
                log.attributes.add(key=name).value.int_value = value
            else:  # OTLP's integers have a sign: of a number without room in them, its digits
                texts.append(_text(name, str(value)))
        log.MergeFromString(b"".join(texts))
        return made.SerializeToString()

    def _read(self, record: bytes | memoryview) -> _Said:
        one = event.unpack(record)
        kind = Kind(one.kind)
        fields = event.to_json(one, self._gateway, self._epoch, self._names.of(one.generation))
        return _Said(one.wall_ns, kind is Kind.GAP or not one.verdict, kind.name.lower(), fields)


class HostOtlp(Otlp):
    """Encodes the records of the ring of what happens to the gateway itself."""

    _size = hostevent.RECORD_BYTES

    def _read(self, record: bytes | memoryview) -> _Said:
        one = hostevent.unpack(record)
        fields = hostevent.to_json(one, self._gateway, self._epoch)
        return _Said(one.wall_ns, one.told["event"] in hostevent.GRAVE, hostevent.ACTION, fields)


@functools.lru_cache(1 << 12)
def _text(name: str, value: str) -> bytes:
    """Return an attribute as what a LogRecord with nothing else is; most texts come again and again."""
    return LogRecord(attributes=[_attribute(name, value)]).SerializeToString()


def _attribute(name: str, value: str) -> KeyValue:
    return KeyValue(key=name, value=AnyValue(string_value=value))


def rejected(answer: bytes) -> int:
    """Return how many records a receiver that answered 2xx did not take (`partial_success`).

    0 when it does not say, or nothing that can be read: any 2xx is an ACK.
    """
    try:
        said = ExportLogsServiceResponse.FromString(answer)
    except DecodeError:
        return 0
    return max(said.partial_success.rejected_log_records, 0)
