"""The commands that prove and explain: `test`, `verify`, `explain`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from tidegate_compiler import accesstests, fields, junit, pipeline, report
from tidegate_compiler import verify as proof
from tidegate_compiler.advice import document as advice
from tidegate_compiler.advice.advise import advise
from tidegate_compiler.diagnostics import did_you_mean, show
from tidegate_compiler.judge import Judgement, Packet, court, judge, packet
from tidegate_compiler.model import Inventory
from tidegate_compiler.options import at_option as _at
from tidegate_compiler.options import compiled as _compiled
from tidegate_compiler.options import json_option as _json
from tidegate_compiler.reach import Reach
from tidegate_compiler.terminal import say as _print
from tidegate_schema.cli import PATH, Failure

OK, PROBLEMS, DENIED = 0, 1, 3


@click.command(epilog="Example: tidegate test inventory --junit report.xml --require-coverage")
@click.argument("inventory", metavar="INV", type=PATH)
@click.option("--junit", "junit_file", metavar="FILE", type=PATH, help="Write a JUnit XML report, too.")
@click.option("--require-coverage", is_flag=True, help="Fail when a policy decides no test.")
@_at
@_json
def test(
    inventory: Path, junit_file: Path | None, require_coverage: bool, at: int | None, as_json: bool
) -> int:
    """Run the inventory's access tests, and name the policies that no test touches.

    A test without `at` is about --at, by default now. Exit status: 0 all as expected, 1 not.
    """
    compiled = _compiled(inventory)
    now = int(time.time()) if at is None else at
    outcome = accesstests.run(compiled.inventory, Reach(compiled.fleet), now)
    if junit_file is not None:
        junit_file.write_bytes(junit.junit(outcome, require_coverage))
    if as_json:
        _print([report.to_json(report.test_document(outcome))])
    else:
        _print(report.test_lines(outcome, str(inventory)))
    return PROBLEMS if outcome.failures or (require_coverage and outcome.untested) else OK


@click.command(epilog="Example: tidegate compile inventory --out out && tidegate verify inventory out")
@click.argument("inventory", metavar="INV", type=PATH)
@click.argument("out", metavar="OUT", type=PATH)
@_json
def verify(inventory: Path, out: Path, as_json: bool) -> int:
    """Prove that a compile output says what its inventory says, by a reader that shares no code with the compiler.

    Every difference is one line; one about access comes with a packet as witness. Exit status: 0 proven, 1 not.
    """
    try:
        differences = proof.verify(inventory, out)
    except proof.RefusalError as error:
        raise Failure(f"{inventory}: {error}") from None
    if as_json:
        _print([report.to_json(report.proof_document(differences))])
    else:
        _print(report.proof_lines(differences, str(inventory), str(out)))
    return PROBLEMS if differences else OK


@click.command(
    epilog="Examples: tidegate explain inventory alice-laptop 10.20.0.80 tcp/8080; "
    "tidegate explain inventory alice-laptop fd20::80 icmp --at 2027-01-31"
)
@click.argument("inventory", metavar="INV", type=PATH)
@click.argument("client")
@click.argument("destination", metavar="DEST")
@click.argument("port", metavar="PROTO/PORT")
@_at
@_json
def explain(inventory: Path, client: str, destination: str, port: str, at: int | None, as_json: bool) -> int:
    """Say whether a client's packet is allowed, which policy decides, and which way it takes.

    For a denied one also what would have allowed it: policies that lack one thing, and the smallest changes.

    Exit status: 0 allowed, 3 denied, 1 the question has no answer.
    """
    compiled = _compiled(inventory)
    try:
        address = fields.address(destination)
        fields.one_port(port)
    except fields.FieldError as error:
        wrong = port if error.code == "TG026" else destination
        raise Failure(f"{show(wrong)}: {error}") from None
    over = court(compiled.fleet)
    if client not in over.clients:
        raise Failure(f"there is no client {show(client)}{did_you_mean(client, over.clients)}")
    asked = packet(client, address, port, int(time.time()) if at is None else at)
    judgement = judge(over, asked)
    told = report.explanation(
        asked, port, judgement, over.clients[client], compiled.inventory, str(inventory)
    )
    told |= _advice(inventory, compiled.inventory, asked, port, judgement)
    _print([report.to_json(told)] if as_json else [*report.explanation_lines(told), *advice.lines(told)])
    return OK if judgement.allow else DENIED


def _advice(root: Path, known: Inventory, asked: Packet, port: str, judgement: Judgement) -> dict[str, Any]:
    """Return the advice on a packet, every place exact: the few files it speaks of are read again, carefully."""
    exact: frozenset[str] = frozenset()
    while True:
        places = advice.Places(str(root))
        told = advice.document(advise(known, asked, port, judgement, places), places)
        if places.rough <= exact:
            return told
        exact |= places.rough
        known = pipeline.validate(root, careful=exact).inventory or known
