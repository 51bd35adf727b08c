"""Values to text and JSON: what the commands print. Nothing here decides, and nothing here prints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tidegate_compiler.codes import CODES
from tidegate_compiler.diagnostics import LOG_COMMAND, Diagnostic, show_path
from tidegate_compiler.model import Inventory
from tidegate_compiler.times import format_instant

if TYPE_CHECKING:  # what only some commands need, so that the others start sooner
    from tidegate_compiler.accesstests import Report
    from tidegate_compiler.judge import Judgement, Packet
    from tidegate_compiler.plan.limits import Exceeded
    from tidegate_compiler.publish import Published, Row
    from tidegate_compiler.resolve import ClientHost
    from tidegate_compiler.verify import Difference


def to_json(value: Any) -> str:
    """Return indented JSON in ASCII, so that a terminal shows it and a CI service logs it harmlessly."""
    return LOG_COMMAND.sub(r"#\\u0023", json.dumps(value, indent=2, sort_keys=True))


def diagnostic_lines(diagnostics: Iterable[Diagnostic], root: str) -> list[str]:
    """Return one `path:line:column: severity CODE message (slug)` each, as editors and CI read them."""
    prefix = show_path(root.rstrip("/")) + "/"
    return [
        f"{prefix}{d.where}: {d.severity} {d.code} {d.message} [{CODES[d.code].slug}]" for d in diagnostics
    ]


def counts(diagnostics: Sequence[Diagnostic]) -> str:
    """Return "2 errors, 1 warning"."""
    errors = sum(diagnostic.is_error for diagnostic in diagnostics)
    return f"{counted(errors, 'error')}, {counted(len(diagnostics) - errors, 'warning')}"


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, in the plural unless it is one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def diagnostics_document(diagnostics: Sequence[Diagnostic]) -> dict[str, Any]:
    """Return the diagnostics as `validate --format json` prints them."""
    errors = sum(diagnostic.is_error for diagnostic in diagnostics)
    return {
        "format": 1,
        "errors": errors,
        "warnings": len(diagnostics) - errors,
        "diagnostics": [
            {
                "code": d.code,
                "name": CODES[d.code].slug,
                "severity": d.severity,
                "file": show_path(d.where.file),
                "line": d.where.line,
                "column": d.where.column,
                "message": d.message,
            }
            for d in diagnostics
        ],
    }


def explanation(
    asked: Packet, port: str, judgement: Judgement, client: ClientHost, inventory: Inventory, root: str
) -> dict[str, Any]:
    """Return everything `explain` says, as its --json prints it."""
    from tidegate_compiler.judge import why

    route = judgement.route
    where = inventory.policies[judgement.policy].where if judgement.policy else None
    return {
        "format": 1,
        "verdict": "allow" if judgement.allow else "deny",
        "reason": judgement.reason,
        "why": why(judgement, client, asked.address),
        "client": asked.client,
        "client_id": client.client_id,
        "destination": str(asked.address),
        "port": port,
        "at": format_instant(int(asked.at)),
        "policy": judgement.policy,
        "file": f"{show_path(root.rstrip('/'))}/{show_path(where.file)}" if where else None,
        "line": where.line if where else None,
        "gateway": route.gateway if route else None,
        "endpoint": route.endpoint if route else None,
        "route": str(route.network) if route else None,
        "standbys": list(route.standbys) if route else [],
    }


def explanation_lines(document: dict[str, Any]) -> list[str]:
    """Return the explanation for people."""
    lines = [
        f"{document['verdict']}: {document['client']} -> {document['destination']} {document['port']}"
        f" at {document['at']}",
        f"  because  {document['why']}",
    ]
    if document["policy"]:
        lines.append(f"  policy   {document['policy']} ({document['file']}:{document['line']})")
    if document["gateway"]:
        standby = f", standby {', '.join(document['standbys'])}" if document["standbys"] else ""
        lines.append(f"  gateway  {document['gateway']}{standby}")
        lines.append(
            f"  path     {document['client']} -- {document['route']} --> {document['endpoint']}"
            f" --> {document['destination']}"
        )
    return lines


def test_lines(report: Report, root: str) -> list[str]:
    """Return the failures, the policies no test touches, and the totals."""
    prefix = show_path(root.rstrip("/")) + "/"
    lines = [f"{prefix}{result.test.where}: {result.title}: {result.outcome}" for result in report.failures]
    lines += [f"{prefix}{one.where}: no test touches the policy {one.name}" for one in report.untested]
    passed = len(report.results) - len(report.failures)
    lines.append(f"{passed} passed, {len(report.failures)} failed, {len(report.untested)} policies untested")
    return lines


def test_document(report: Report) -> dict[str, Any]:
    """Return the report as `test --json` prints it."""
    return {
        "format": 1,
        "results": [
            {
                "file": show_path(result.test.where.file),
                "line": result.test.where.line,
                "client": result.client,
                "destination": result.test.destination,
                "port": result.test.port,
                "at": format_instant(result.at),
                "expect": result.test.expect,
                "witness": str(result.witness.address),
                "verdict": "allow" if result.judgement.allow else "deny",
                "reason": result.judgement.reason,
                "policy": result.judgement.policy,
                "passed": result.passed,
            }
            for result in report.results
        ],
        "untested_policies": [
            {"name": one.name, "file": show_path(one.where.file), "line": one.where.line}
            for one in report.untested
        ],
    }


def row_cells(row: Row) -> tuple[str, ...]:
    """Return one host's line of the publish table."""
    if row.reason:
        return (row.kind, row.host, row.action, "-", "-", row.reason)
    return (row.kind, row.host, row.action, str(row.serial), format_instant(row.not_after), row.digest[:12])


ROW_TITLES = ("kind", "host", "result", "serial", "valid until", "digest")


def published_document(
    found: Published, exceeded: Iterable[Exceeded], dry_run: bool, since: str | None, recorded: str | None
) -> dict[str, Any]:
    """Return every row, what is past a limit, and the commit that is recorded, as `publish --json` prints them."""
    return {
        "format": 1,
        "dry_run": dry_run,
        "since": since,
        "recorded": recorded,
        "limits": [
            {"name": one.name, "value": one.value, "limit": one.limit, "message": one.message}
            for one in exceeded
        ],
        "left_behind": [{"kind": kind, "host": host} for kind, host in found.left_behind],
        "hosts": [
            {
                "kind": row.kind,
                "host": row.host,
                "result": row.action,
                "serial": row.serial,
                "not_after": row.not_after,
                "digest": row.digest,
                "reason": row.reason or None,
            }
            for row in found.rows
        ],
    }


def proof_lines(differences: Sequence[Difference], inventory: str, out: str) -> list[str]:
    """Return one line per difference, under the output's path, and the outcome."""
    prefix = show_path(out.rstrip("/"))
    if not differences:
        return [f"proven: {prefix} says what {show_path(inventory)} says"]
    return [*(f"{prefix}/{found}" for found in differences), counted(len(differences), "difference")]


def proof_document(differences: Sequence[Difference]) -> dict[str, Any]:
    """Return the outcome as `verify --json` prints it."""
    return {
        "format": 1,
        "proven": not differences,
        "differences": [found.document() for found in differences],
    }
