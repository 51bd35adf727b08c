"""The forms: a new object, another text of one that is there, one that goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.responses import Response

from tidegate_compiler.diagnostics import Diagnostic
from tidegate_compiler.fields import NAME_RULE
from tidegate_control import problems
from tidegate_control.inventory.errors import Exists, Invalid, InventoryError, NotFound, Refused
from tidegate_control.ui import forms, keycheck, listing, places, review
from tidegate_control.ui.kinds import Kind
from tidegate_control.ui.pages.objects import (
    base_of,
    is_commit,
    kind_of,
    known_names,
    name_of,
    object_of,
    titles,
)
from tidegate_control.ui.visit import Visit

_MISSING = "TG012"
_KEY = "public_key"
_FILE_OPTION = "with --file"
FILES = 12
"""How many files of a kind the form names."""


@dataclass(frozen=True)
class Wrong:
    """Why a form comes back: a line about all of it, and diagnostics or lines at fields; `more` are not told."""

    refusal: str = ""
    at: Mapping[str, tuple[Any, ...]] | None = None
    others: tuple[Diagnostic, ...] = ()
    status: int = 422
    more: int = 0


@dataclass(frozen=True)
class Line:
    """A line at a field that is no diagnostic of the inventory; it has no code and no place."""

    message: str
    is_error: bool = True
    severity: str = "error"
    code: str = ""
    where: str = ""


def new(visit: Visit) -> Response:
    """Make an object: the form, its plan, the commit."""
    kind = kind_of(visit)
    if kind.word == "overlay":
        raise NotFound("there is one overlay, and it is there already")
    if visit.request.method == "GET":
        return _form(visit, kind, None, forms.to_text({}, kind))
    if visit.form.get("step") == "check":
        return _check(visit, kind, None)
    name = visit.form.get("name", "").strip()
    fields = forms.to_fields(visit.form, kind)
    run = partial(
        visit.services.inventory.create,
        kind.word,
        name,
        fields,
        author=visit.author,
        file=visit.form.get("file", "").strip() or None,
    )
    proposal = review.Proposal(
        f"New {kind.singular}{f' {name}' if kind.is_named else ''}",
        "Create it",
        f"/new/{kind.path}",
        f"/{kind.path}",
        [(f"/{kind.path}", kind.plural)],
        run,
        base_of(kind, name) if kind.is_named else f"/{kind.path}",
        _carried(visit, kind),
        can_go_back=True,
    )
    return _step(visit, kind, None, proposal)


def edit(visit: Visit) -> Response:
    """Change an object: the form, its plan, the commit."""
    kind = kind_of(visit)
    name = name_of(visit, kind)
    found = object_of(visit.snapshot, kind, name)
    if visit.request.method == "GET":
        return _form(visit, kind, name, forms.to_text(found.fields, kind))
    if visit.form.get("step") == "check":
        return _check(visit, kind, name)
    moved = _moved(visit, kind, name)
    if moved and visit.form.get("step") == "plan":
        return _form(visit, kind, name, _text(visit, kind, name), changed=moved)
    run = partial(
        visit.services.inventory.update,
        kind.word,
        name,
        forms.to_fields(visit.form, kind),
        author=visit.author,
    )
    base = base_of(kind, name)
    proposal = review.Proposal(
        f"Change {name if kind.is_named else kind.singular}",
        "Commit this change",
        f"{base}/edit",
        base,
        _crumbs(kind, name),
        run,
        # What an access test is called follows from what it says, so the old page may be gone.
        base if kind.word != "test" else "/tests",
        _carried(visit, kind),
        can_go_back=True,
    )
    return _step(visit, kind, name, proposal)


def delete(visit: Visit) -> Response:
    """Remove an object: the plan, and where more would go than was asked for, that first; then the commit."""
    kind = kind_of(visit)
    if kind.word == "overlay":
        raise NotFound("an inventory has an overlay; edit it instead")
    name = name_of(visit, kind)
    object_of(visit.snapshot, kind, name)
    cascade = visit.form.get("cascade") == "yes"
    base = base_of(kind, name)
    proposal = review.Proposal(
        f"Delete {name if kind.is_named else f'this {kind.singular}'}",
        f"Delete {name if kind.is_named else 'it'}",
        f"{base}/delete",
        base,
        _crumbs(kind, name),
        partial(visit.services.inventory.delete, kind.word, name, author=visit.author, cascade=cascade),
        f"/{kind.path}",
        {"cascade": "yes"} if cascade else {},
        is_danger=True,
        asks_cascade=not cascade,
    )
    if visit.request.method == "POST" and visit.form.get("step") == "commit":
        return review.commit(visit, proposal)
    return review.plan(visit, proposal)


def _step(visit: Visit, kind: Kind, name: str | None, proposal: review.Proposal) -> Response:
    """Go one step: back to the form, to the plan, or to the commit; what is wrong comes back in the form."""
    step = visit.form.get("step", "plan")
    if step == "edit":
        return _form(visit, kind, name, _text(visit, kind, name))
    wrong = _key_problem(visit, kind, name)
    if wrong is None:
        try:
            return review.commit(visit, proposal) if step == "commit" else review.plan(visit, proposal)
        except (Invalid, Exists, Refused) as error:
            wrong = _wrong(visit, kind, name, error)
    text = _text(visit, kind, name)
    if "public_key" in (wrong.at or {}):
        text["public_key"] = ""  # whatever it is that is no key: it may be a part of a private one
    return _form(visit, kind, name, text, wrong)


def _check(visit: Visit, kind: Kind, name: str | None) -> Response:
    """Tell what is wrong so far with a form that is being filled in: a part of a page, for scripts."""
    boxes = _boxes(kind, name is None)
    own = visit.form.get("name", "").strip() if name is None else name
    fields = forms.to_fields(visit.form, kind) | _known_key(visit, kind, name)
    missing = [
        field.title for field in kind.fields if field.is_required and field.name not in (*fields, _KEY)
    ]
    if kind.is_named and not own:
        missing.insert(0, "Name")
    wrong = Wrong()
    if own or not kind.is_named:
        file = visit.form.get("file", "").strip() or None
        try:
            visit.costly(
                lambda: visit.services.inventory.check(kind.word, own, fields, is_new=name is None, file=file)
            )
        except (Invalid, Exists, Refused) as error:
            wrong = _wrong(visit, kind, name, error)
    at, others = dict(wrong.at or {}), wrong.others
    has_no_key = kind.field(_KEY) is not None and _KEY not in fields
    if missing or has_no_key:  # which is no fault of fields that nobody has come to
        at[places.NAME] = tuple(one for one in at.get(places.NAME, ()) if not one.code)
        others = tuple(one for one in others if one.code != _MISSING)
    elsewhere = [one for field, found in at.items() if field not in boxes for one in found]
    return visit.page(
        "check.html",
        boxes=boxes,
        at={field: at[field] for field in boxes if at.get(field)},
        others=[*elsewhere, *others],
        refusal=wrong.refusal,
        missing=missing,
        waits=has_no_key,
        titles=titles(kind),
    )


def _known_key(visit: Visit, kind: Kind, name: str | None) -> dict[str, Any]:
    """Return the key that the object has already. No check is sent another: it waits for the plan (`parts.checks`)."""
    if name is None or kind.field(_KEY) is None:
        return {}
    return {
        field: value for field, value in object_of(visit.snapshot, kind, name).fields.items() if field == _KEY
    }


def _boxes(kind: Kind, is_new: bool) -> list[str]:
    """Return the fields at which a form can say what is wrong."""
    named = ["name"] if is_new and kind.is_named else []
    return [*named, *(field.name for field in kind.fields), *(["file"] if is_new else [])]


def _wrong(visit: Visit, kind: Kind, name: str | None, error: InventoryError) -> Wrong:
    if isinstance(error, Exists):
        return Wrong(at={places.NAME: (Line(str(error)),)}, status=409)
    status = problems.of_inventory(error).status
    if _FILE_OPTION in str(error):  # the command line's word for the field
        return Wrong(at={"file": (Line(str(error).replace(_FILE_OPTION, "one here")),)}, status=status)
    if not isinstance(error, Invalid) or not error.diagnostics:
        return Wrong(str(error), others=tuple(error.diagnostics), status=status)
    if name is None:
        of = places.Of(f"{kind.path}/", visit.form.get("name", "").strip())
    else:
        found = object_of(visit.snapshot, kind, name)
        of = places.Of(found.file, name, found.line if kind.word == "test" else 0)
    # Those in the object's own file first: most of the others follow from them.
    near = sorted(error.diagnostics, key=lambda one: not one.where.file.startswith(of.where))[: problems.MOST]
    told = places.at_fields(near, error.files, of)
    return Wrong("", told.at, told.others, status, len(error.diagnostics) - len(near))


def _key_problem(visit: Visit, kind: Kind, name: str | None) -> Wrong | None:
    """Refuse what is, and ask about what may be, a private key; a key that is there already is none to ask about."""
    if kind.field("public_key") is None:
        return None
    key = visit.form.get("public_key", "")
    if name is not None and object_of(visit.snapshot, kind, name).fields.get("public_key") == key.strip():
        return None
    told = keycheck.problem(key, visit.form.get("confirm_key") == "yes")
    return None if told is None else Wrong(at={"public_key": (Line(told),)})


def _moved(visit: Visit, kind: Kind, name: str) -> str:
    """Return what to say when the object is not what the form began with, "" when it is."""
    base = visit.form.get("base", "")
    now = object_of(visit.snapshot, kind, name).fields
    try:
        if not is_commit(base):
            raise NotFound("no commit")
        then = object_of(visit.services.inventory.snapshot(base), kind, name).fields
    except NotFound:
        return "Nobody knows which version this form began with; compare it with the object before you go on."
    if then == now:
        return ""
    changed = [
        f"{title} is now: {listing.one_line(now.get(field)) or 'not said'}"
        for field, title in titles(kind).items()
        if then.get(field) != now.get(field)
    ]
    return "Somebody has changed this since you opened the form, which still shows your text. " + "; ".join(
        changed
    )


def _form(
    visit: Visit,
    kind: Kind,
    name: str | None,
    text: Mapping[str, str],
    wrong: Wrong | None = None,
    changed: str = "",
) -> Response:
    base = "" if name is None else base_of(kind, name)
    at = dict(wrong.at or {}) if wrong else {}
    strangers = [] if name is None else forms.unknown(object_of(visit.snapshot, kind, name).fields, kind)
    return visit.page(
        "edit.html",
        wrong.status if wrong else 409 if changed else 200,
        kind=kind,
        is_new=name is None,
        found_name=name or "",
        base=base,
        action=f"{base}/edit" if name is not None else f"/new/{kind.path}",
        back=base or f"/{kind.path}",
        commit=visit.snapshot.commit,
        text=text,
        at=at,
        boxes=_boxes(kind, name is None),
        problems=bool(at or (wrong and wrong.others)),
        others=wrong.others if wrong else (),
        more=wrong.more if wrong else 0,
        refusal=wrong.refusal if wrong else "",
        asks_key=any(getattr(one, "message", "") == keycheck.SUSPECTED for one in at.get("public_key", ())),
        changed=changed,
        strangers=strangers,
        titles=titles(kind),
        name_hint=f"It is the {kind.singular}'s for good: {NAME_RULE}.",
        files=[file for file in visit.snapshot.files if file.startswith(f"{kind.path}/")][:FILES],
        known=known_names(visit.snapshot, kind),
    )


def _text(visit: Visit, kind: Kind, name: str | None) -> dict[str, str]:
    """Return the form's text as it was sent, but for a key that is not to be sent back: see `keycheck`."""
    names = ("name", "file", *(field.name for field in kind.fields))
    text = {field: visit.form.get(field, "") for field in names}
    return text if _key_problem(visit, kind, name) is None else text | {"public_key": ""}


def _carried(visit: Visit, kind: Kind) -> dict[str, str]:
    """Return the form's fields that go through the plan to the commit."""
    names = ("name", "file", "base", "confirm_key", *(field.name for field in kind.fields))
    return {name: visit.form[name] for name in names if name in visit.form}


def _crumbs(kind: Kind, name: str) -> list[tuple[str, str]]:
    if kind.word == "overlay":
        return [("/overlay", kind.plural)]
    return [(f"/{kind.path}", kind.plural), (base_of(kind, name), name if kind.is_named else kind.singular)]
