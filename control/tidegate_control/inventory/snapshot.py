"""The inventory as one commit has it. What is the same as in an earlier one is not made again."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from tidegate_compiler import pipeline
from tidegate_compiler.check import Checked, check
from tidegate_compiler.check.step import is_right
from tidegate_compiler.diagnostics import Diagnostic, Where
from tidegate_compiler.edit.survey import NAMED, Survey
from tidegate_compiler.load import Documents, load
from tidegate_compiler.model import Inventory
from tidegate_compiler.pipeline import Compiled
from tidegate_compiler.plan import source
from tidegate_compiler.resolve import Fleet
from tidegate_control.git.repository import Content
from tidegate_control.inventory.model import KINDS, Object
from tidegate_control.inventory.sheets import Sheet


@dataclass(frozen=True)
class Snapshot:
    """A commit's inventory; what takes long is made when somebody asks for it. May be used by several threads."""

    commit: str
    content: Content
    documents: Documents
    flaws: tuple[Diagnostic, ...] = ()
    _sheets: Mapping[str, Sheet] = field(repr=False, default_factory=dict)
    _fleet: Fleet | None = field(repr=False, default=None)

    @classmethod
    def of(cls, commit: str, content: Content, like: Snapshot | None = None) -> Snapshot:
        """Return the snapshot of a commit; files that `like` has with the same bytes are not parsed again."""
        with pipeline.without_collector():
            documents, problems = load(content.files, like=like.documents if like else ())
        known = like._sheets if like else {}
        sheets = {
            document.file: known[document.file]
            if like is not None
            and document.file in known
            and like.files[document.file] == content.files[document.file]
            else Sheet(document)
            for document in documents
        }
        fleet = like._fleet_if_made() if like else None
        made = cls(commit, content, documents, tuple(problems), sheets, fleet)
        if like is not None:
            made._take_over(like)
        return made

    def _take_over(self, like: Snapshot) -> None:
        """Keep what is known of another one and holds here as well."""
        model = like.__dict__.get("_model")
        if model is not None and not self.content.problems and not self.flaws:
            with pipeline.without_collector():
                if is_right(model, like.documents, self.documents):
                    self.__dict__["_model"] = model
        objects = like.__dict__.get("_objects")
        if objects is not None:
            self.__dict__["_objects"] = {
                kind: known.with_sheets([sheet for sheet in self._sheets.values() if sheet.kind == kind])
                for kind, known in objects.items()
            }

    @property
    def files(self) -> Mapping[str, bytes]:
        """Return the inventory's files by path."""
        return self.content.files

    @cached_property
    def checked(self) -> Checked:
        """Return all that `check` says of it, warnings too."""
        return pipeline.validate_files(self.files, list(self.content.problems), like=self.documents)

    @property
    def has_errors(self) -> bool:
        """Tell whether it has any error; sooner known than what they are, and than any warning."""
        return self._model is None

    @cached_property
    def _model(self) -> Inventory | None:
        """Return an inventory of the same overlay and gateways; None when there are errors."""
        if "checked" in self.__dict__:
            return self.checked.inventory
        with pipeline.without_collector():
            problems = [*self.content.problems, *self.flaws]
            found = check(self.documents, problems, self.files, with_warnings=False)
        return self.checked.inventory if found.rough else found.inventory

    def at(self, commit: str) -> Snapshot:
        """Return the same inventory as that of another commit, with all that is known of it."""
        made = copy.copy(self)
        object.__setattr__(made, "commit", commit)
        return made

    def survey(self) -> Survey:
        """Return what the editing of inventories has to know of it; of addresses in use nothing."""
        return Survey({kind: _Places(self._objects[kind].sheets) for kind in NAMED}, (), frozenset())

    @cached_property
    def compiled(self) -> Compiled | None:
        """Return its hosts; None when it has errors."""
        checked = self.checked
        if checked.inventory is None:
            return None
        fleet = Fleet(checked.inventory, checked.grants, self._fleet)
        return Compiled(checked.inventory, fleet, self.files, checked.diagnostics)

    def objects(self, kind: str) -> Objects:
        """Return the objects of a kind by name, in order of name; each is made when it is asked for. KeyError."""
        return self._objects[kind]

    def sheet(self, file: str) -> Sheet | None:
        """Return the objects of a file that can be read."""
        return self._sheets.get(file)

    def place(self, kind: str, name: str) -> Sheet | None:
        """Return the file that an object is in."""
        return self._objects[kind].sheets.get(name)

    def side(self, title: str, root: str) -> source.Side | None:
        """Return it as a side of a plan, whose places are told from `root`; None when it has errors."""
        compiled = self.compiled
        if compiled is None:
            return None
        content = source.Content(title, root, self.files, list(self.content.problems))
        return source.of_compiled(content, compiled)

    def _fleet_if_made(self) -> Fleet | None:
        made = self.__dict__.get("compiled")
        return made.fleet if made is not None else self._fleet

    @cached_property
    def _objects(self) -> Mapping[str, Objects]:
        of_kind: dict[str, list[Sheet]] = {kind: [] for kind in KINDS}
        for sheet in self._sheets.values():
            of_kind[sheet.kind].append(sheet)
        return {kind: Objects(sheets) for kind, sheets in of_kind.items()}


class Objects(Mapping[str, Object]):
    """The objects of some files; of a name that stands twice, the first counts, as for `check`."""

    def __init__(self, files: list[Sheet]) -> None:
        self._files = files
        found = {name: sheet for sheet in reversed(files) for name in sheet.names}
        self.sheets = {name: found[name] for name in sorted(found)}

    def with_sheets(self, files: list[Sheet]) -> Objects:
        """Return the objects of other files, most of which are the same."""
        if files == self._files:
            return self
        changed = [new for old, new in zip(self._files, files, strict=False) if old is not new]
        if [(f.file, f.names) for f in files] != [(f.file, f.names) for f in self._files]:
            return Objects(files)
        made = copy.copy(self)
        made._files, made.sheets = files, dict(self.sheets)
        for sheet in changed:
            made.sheets.update((name, sheet) for name in sheet.names if self.sheets[name].file == sheet.file)
        return made

    def differing(self, other: Objects) -> set[str]:
        """Return the names of all that stands in a file which both do not have with the same bytes."""
        return {name for sheet in {*self._files} ^ {*other._files} for name in sheet.names}

    def __getitem__(self, name: str) -> Object:
        return self.sheets[name].read(name)

    def __contains__(self, name: object) -> bool:
        return name in self.sheets

    def __iter__(self) -> Iterator[str]:
        return iter(self.sheets)

    def __len__(self) -> int:
        return len(self.sheets)


class _Places(Mapping[str, Where]):
    """Where objects stand; each is looked for when it is asked for."""

    def __init__(self, sheets: Mapping[str, Sheet]) -> None:
        self._sheets = sheets

    def __getitem__(self, name: str) -> Where:
        return self._sheets[name].where(name)

    def __contains__(self, name: object) -> bool:
        return name in self._sheets

    def __iter__(self) -> Iterator[str]:
        return iter(self._sheets)

    def __len__(self) -> int:
        return len(self._sheets)
