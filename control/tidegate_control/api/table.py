"""Every operation of the API. What is not here does not exist; what is here has a scope."""

from __future__ import annotations

from functools import partial

from tidegate_control.access.caller import EDITOR, PUBLISHER, READER
from tidegate_control.api import (
    answers,
    bundles,
    history,
    kinds,
    lists,
    meta,
    objects,
    pages,
    plans,
    publish,
    questions,
    traffic,
)
from tidegate_control.api.answers import of_object, of_write, ref
from tidegate_control.api.bodies import MERGE_PATCH
from tidegate_control.api.kinds import Kind
from tidegate_control.api.operation import Body, Operation, Parameter, Reply

DRY_RUN = Parameter(
    "dry_run",
    "Answer with the plan of the change, and change nothing.",
    {"type": "boolean", "default": False},
)
MESSAGE = Parameter(
    "message",
    "What else the commit is to say, below its subject.",
    {"type": "string", "minLength": 1, "maxLength": 1000},
)
CASCADE = Parameter(
    "cascade",
    "Remove what would be left empty, or widen access, too; without it such a delete is refused, and names it.",
    {"type": "boolean", "default": False},
)
_WRITE = (DRY_RUN, MESSAGE)
_OBJECTS, _QUESTIONS, _HOSTS = "Objects", "Questions", "Hosts"
_TRAFFIC, _HISTORY, _SERVER = "Traffic", "History", "Server"


def operations() -> tuple[Operation, ...]:
    """Return all of them."""
    of_kinds = [one for kind in kinds.KINDS for one in _of_kind(kind)]
    return (*of_kinds, *_overlay(), *_questions(), *_traffic(), *_hosts(), *_history(), *_server())


def _of_kind(kind: Kind) -> tuple[Operation, ...]:
    path, one, many = f"/{kind.path}", _one_of(kind), kind.path if kind.kind != "test" else "access tests"
    title = kind.title
    made = Reply("It is there now.", ref("Written"), 201, headers={"Location": "Where it is."})
    return (
        Operation(
            "GET", path, f"list{title}s", _OBJECTS, f"List {many}", READER,
            partial(lists.list_objects, kind), answers.page(title),
            parameters=lists.parameters(kind), is_conditional=True,
        ),
        Operation(
            "POST", path, f"create{title}", _OBJECTS, f"Add {one}", EDITOR,
            partial(objects.create, kind), made,
            parameters=_WRITE, body=Body(ref(f"New{title}")), also=(of_write("What it would do."),),
            takes_match=True, problems=(409, 412),
        ),
        *_one(kind, f"{path}/{{name}}"),
        Operation(
            "DELETE", f"{path}/{{name}}", f"delete{title}", _OBJECTS, f"Remove {one}", EDITOR,
            partial(objects.delete, kind), of_write("It is gone, and every mention of it."),
            parameters=(*_WRITE, CASCADE), takes_match=True, problems=(404, 409, 412, 428),
        ),
    )  # fmt: skip


def _one_of(kind: Kind) -> str:
    return f"{'an' if kind.noun[0] in 'aeiou' else 'a'} {kind.noun}"


def _overlay() -> tuple[Operation, ...]:
    return _one(kinds.THE_OVERLAY, "/overlay")


def _one(kind: Kind, path: str) -> tuple[Operation, ...]:
    title, noun = kind.title, "the overlay" if kind is kinds.THE_OVERLAY else _one_of(kind)
    return (
        Operation(
            "GET", path, f"get{title}", _OBJECTS, f"Read {noun}", READER,
            partial(objects.get, kind), of_object(title), is_conditional=True, problems=(404,),
        ),
        Operation(
            "PUT", path, f"replace{title}", _OBJECTS, f"Replace {noun}", EDITOR,
            partial(objects.replace, kind), of_write("It is as was sent."),
            parameters=_WRITE, body=Body(ref(f"Written{title}")), takes_match=True,
            problems=(404, 409, 412, 428),
        ),
        Operation(
            "PATCH", path, f"change{title}", _OBJECTS, f"Change {noun}", EDITOR,
            partial(objects.patch, kind), of_write("It is changed."),
            description="A merge patch (RFC 7396): what it names is replaced, null takes a field out, lists are whole.",
            parameters=_WRITE, body=Body({"type": "object"}, MERGE_PATCH), takes_match=True,
            problems=(404, 409, 412, 428),
        ),
    )  # fmt: skip


def _questions() -> tuple[Operation, ...]:
    name = {"type": "string", "minLength": 1, "maxLength": 63}
    names = {"type": "array", "items": name}
    return (
        Operation(
            "GET", "/validate", "validate", _QUESTIONS, "Diagnostics of the inventory", READER,
            questions.validate, Reply("Every diagnostic.", ref("Diagnosed")),
            description="With `at`, what has expired by then is reported, too.",
            parameters=(questions.AT,), is_conditional=True, is_costly=True,
        ),
        Operation(
            "POST", "/validate", "validateProposal", _QUESTIONS, "Diagnostics of a proposal", READER,
            questions.validate_proposal, Reply("Every diagnostic.", ref("Diagnosed")),
            body=Body(ref("Proposal")), is_costly=True, problems=(404, 409),
        ),
        Operation(
            "GET", "/plan", "planBetween", _QUESTIONS, "Plan between two commits", READER,
            plans.between, Reply("What differs.", answers.PLAN_BETWEEN),
            parameters=plans.BETWEEN, is_costly=True, problems=(404, 409),
        ),
        Operation(
            "POST", "/plan", "planProposal", _QUESTIONS, "Plan of a proposal", READER,
            plans.proposed, Reply("What it would do.", answers.PLAN_PROPOSED),
            description="A set of edits, or files as a pull request would have them. Nothing is written.",
            body=Body(ref("Proposal")), is_costly=True, problems=(404, 409),
        ),
        Operation(
            "GET", "/explain", "explain", _QUESTIONS, "What happens to a packet, and why", READER,
            questions.explain, Reply("The verdict.", answers.EXPLANATION),
            parameters=(
                Parameter("client", "The client that sends it.", name, required=True),
                Parameter(
                    "destination", "The IPv4 or IPv6 address that it goes to.",
                    {"type": "string", "minLength": 2, "maxLength": 45}, required=True,
                ),
                Parameter(
                    "port", "tcp/N, udp/N, sctp/N, icmp or proto/N.",
                    {"type": "string", "minLength": 4, "maxLength": 10}, required=True,
                ),
                questions.AT,
            ),
            is_costly=True, problems=(404, 409),
        ),
        Operation(
            "GET", "/access", "access", _QUESTIONS, "Who reaches what", READER,
            questions.access, Reply("Rows of clients that reach the same.", ref("Access")),
            description="Without `at` it is told for all time.",
            parameters=(
                Parameter("client", "Only this client; may be repeated.", names),
                Parameter("resource", "Only this resource; may be repeated.", names),
                questions.AT,
            ),
            is_conditional=True, is_costly=True, problems=(404, 409),
        ),
        Operation(
            "GET", "/test-run", "runTests", _QUESTIONS, "Run the access tests", READER,
            questions.run_tests, Reply("The verdict on each.", answers.TEST_RUN),
            parameters=(questions.AT,), is_costly=True, problems=(409,),
        ),
    )  # fmt: skip


def _traffic() -> tuple[Operation, ...]:
    given = (*traffic.WINDOW, *traffic.ONLY, traffic.AT)
    return (
        Operation(
            "GET", "/replay", "replay", _TRAFFIC, "Recorded flows judged by the inventory", READER,
            traffic.replay, Reply("What would break, and what would pass.", answers.REPLAYED),
            description="What was recorded in observe was let through, so this is what enforce would break.",
            parameters=(traffic.COMMIT, *given, traffic.AGAINST), problems=(404, 409, 422, 503),
        ),
        Operation(
            "POST", "/replay", "replayProposal", _TRAFFIC, "Recorded flows judged by a proposal", READER,
            traffic.replay_proposal, Reply("What it changes for them.", answers.REPLAYED),
            description="Compared with the inventory as it is. Nothing is written.",
            parameters=given, body=Body(ref("Proposal")), problems=(404, 409, 422, 503),
        ),
        Operation(
            "GET", "/readiness", "readiness", _TRAFFIC, "Days without an unexplained denial", READER,
            traffic.readiness, Reply("By gateway and policy.", answers.READINESS),
            description="The switch to enforce is a local act on the gateway; nothing here reaches it.",
            parameters=(traffic.COMMIT, *given), problems=(404, 409, 422, 503),
        ),
        Operation(
            "GET", "/suggest", "suggest", _TRAFFIC, "The fewest policies that admit recorded flows", READER,
            traffic.suggest, Reply("Policies, with evidence and excess.", answers.SUGGESTED),
            parameters=(traffic.COMMIT, *traffic.WINDOW, traffic.REFUSED), problems=(404, 409, 422, 503),
        ),
    )  # fmt: skip


def _hosts() -> tuple[Operation, ...]:
    return (
        Operation(
            "GET", "/compile", "compile", _HOSTS, "List what each host would be sent", READER,
            bundles.listing, answers.HOSTS, parameters=bundles.PARAMETERS, is_conditional=True, problems=(409,),
        ),
        Operation(
            "GET", "/compile/{kind}/{name}", "compileHost", _HOSTS, "Read what one host would be sent", READER,
            bundles.one, Reply("Its files.", answers.HOST), is_conditional=True, problems=(404, 409),
        ),
        Operation(
            "GET", "/compile.tar", "compileArchive", _HOSTS, "Download what `tidegate compile` writes", READER,
            bundles.archive,
            Reply("A tar archive.", {"type": "string", "contentMediaType": bundles.TAR}, media_type=bundles.TAR),
            is_conditional=True, is_costly=True, problems=(409,),
        ),
        Operation(
            "POST", "/publish", "publish", _HOSTS, "Hand a commit over to the signer", PUBLISHER,
            publish.publish, Reply("The command has ended well.", answers.HANDED),
            description="The server holds no key: it runs the configured command, or leaves a request in a directory.",
            body=Body(publish.SCHEMA), problems=(409, 412),
            also=(Reply("The request waits for the signer.", answers.HANDED, 202),),
        ),
    )  # fmt: skip


def _history() -> tuple[Operation, ...]:
    made = Reply("It is undone.", ref("Undone"), 201, headers={"Location": "The new commit."})
    return (
        Operation(
            "GET", "/history", "listHistory", _HISTORY, "List commits", READER,
            history.listing, Reply("Commits, the newest first.", answers.COMMITS),
            parameters=history.PARAMETERS, is_conditional=True, problems=(404,),
        ),
        Operation(
            "GET", "/history/{commit}", "getCommit", _HISTORY, "Read what a commit changed", READER,
            history.one, Reply("Lines of a unified diff.", answers.DIFF), problems=(404,),
        ),
        Operation(
            "POST", "/history/{commit}/revert", "revertCommit", _HISTORY, "Undo a commit by a new one", EDITOR,
            history.revert, made, parameters=(DRY_RUN,),
            also=(Reply("What it would do, or that there is nothing to undo.", ref("Undone")),),
            takes_match=True, problems=(404, 409, 412, 422, 428),
        ),
    )  # fmt: skip


def _server() -> tuple[Operation, ...]:
    return (
        Operation(
            "GET", "/me", "me", _SERVER, "Who asks", READER,
            meta.me, Reply("The caller.", answers.CALLER),
        ),
        Operation(
            "GET", "/status", "status", _SERVER, "The revision that is served, and how it is", READER,
            meta.status, Reply("The status.", answers.STATUS),
        ),
        Operation(
            "GET", "/openapi.json", "openapi", _SERVER, "This description", READER,
            pages.openapi, Reply("OpenAPI 3.1.", {"type": "object"}),
        ),
        Operation(
            "GET", "/docs", "docs", _SERVER, "This description as a page", READER,
            pages.docs, Reply("A page.", {"type": "string"}, media_type=pages.HTML),
        ),
        Operation(
            "GET", "/docs.css", "docsStyle", _SERVER, "The page's style sheet", READER,
            pages.style, Reply("A style sheet.", {"type": "string"}, media_type=pages.CSS),
        ),
    )  # fmt: skip
