"""Events as OTLP/HTTP logs, as protobuf and as JSON: each log record is made the JSON object that it stands for.

    LogRecord.attributes        the members, but for
    LogRecord.time_unix_nano    @timestamp

and then read as strictly as a line. https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from tidegate_control.intake import otlpwire
from tidegate_control.intake.lines import COUNT_MOST, LINES_MOST, Reading, Sheet, TooMany
from tidegate_schema.event import timestamp

PROTOBUF, JSON = "application/x-protobuf", "application/json"
_MEMBERS_MOST = 64
_FEW, _SPARSE = 10_000, 16
"""Objects and lists that any JSON may have, and bytes for each of more than these."""


def read(content_type: str, body: bytes, gateway: str, *, dropped: int = 0) -> Reading:
    """Read a request; ValueError when it is none, else as `lines.read`."""
    request = _parsed(content_type, body)
    _check_counts(request)
    records = [
        record
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]
    sheet = Sheet(gateway, dropped)
    for number, record in enumerate(records, 1):
        try:
            event = _event(record)
        except ValueError as error:
            sheet.refuse(number, str(error))
        else:
            sheet.put_event(number, event)
    return sheet.reading()


def answer(content_type: str, rejected: int, why: str) -> bytes:
    """Return what is answered to a request of which all but `rejected` log records are kept."""
    said = ExportLogsServiceResponse()
    if rejected:
        said.partial_success.rejected_log_records = rejected
        said.partial_success.error_message = why
    if content_type == JSON:
        return json_format.MessageToJson(said, indent=None).encode()
    return said.SerializeToString()


def _parsed(content_type: str, body: bytes) -> ExportLogsServiceRequest:
    if content_type == JSON and _is_dense(body):
        raise ValueError("more objects than log records of events have")
    try:
        if content_type == JSON:
            request = ExportLogsServiceRequest()
            return json_format.Parse(body.decode("utf-8"), request, ignore_unknown_fields=True)
        otlpwire.check(body)
        return ExportLogsServiceRequest.FromString(body)
    except (DecodeError, json_format.ParseError, ValueError, RecursionError):
        raise ValueError("not an ExportLogsServiceRequest") from None


def _is_dense(body: bytes) -> bool:
    """Tell whether a JSON text has more objects and lists than events make of so many bytes.

    An attribute has two in 35 bytes at least. An empty one is three bytes, and some hundred in memory.
    """
    return body.count(b"{") + body.count(b"[") > max(_FEW, len(body) // _SPARSE)


def _check_counts(request: ExportLogsServiceRequest) -> None:
    """Raise TooMany, before any record is made a Python object."""
    count = sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)
    if count > LINES_MOST:
        raise TooMany(f"{count} log records, at most {LINES_MOST}: set batch_records on the gateway")


def _event(record: LogRecord) -> dict[str, Any]:
    if len(record.attributes) > _MEMBERS_MOST:
        raise ValueError("more attributes than an event has")
    if record.time_unix_nano > COUNT_MOST:
        raise ValueError("time_unix_nano: no time from 1970 to 2105")
    event: dict[str, Any] = {"@timestamp": timestamp(record.time_unix_nano)}
    for attribute in record.attributes:
        if attribute.key in event:
            raise ValueError("an attribute stands twice")
        kind = attribute.value.WhichOneof("value")
        if kind == "int_value":
            event[attribute.key] = attribute.value.int_value
        elif kind == "string_value":
            event[attribute.key] = attribute.value.string_value
        else:
            raise ValueError("an attribute that is neither a text nor an integer")
    return event
