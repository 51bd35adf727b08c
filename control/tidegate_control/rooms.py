"""The rooms behind the door, and what they work with."""

from __future__ import annotations

import contextlib

from tidegate_control import api, intake
from tidegate_control.access import privatefiles
from tidegate_control.access.privatefiles import StateError
from tidegate_control.app import Room
from tidegate_control.following import Following
from tidegate_control.git.process import GitError
from tidegate_control.git.repository import Repository
from tidegate_control.intake.store import EventStore, StoreError, open_store
from tidegate_control.inventory.service import Inventory
from tidegate_control.retention import Retention
from tidegate_control.settings import Settings
from tidegate_control.ui import routes as ui

ROOMS: tuple[Room, ...] = (intake.routes, api.routes, ui.routes)
"""In the order in which they are asked: the pages last, for theirs are the paths of any shape."""
_PASSWORD_MAX_BYTES = 1024


class RoomError(ValueError):
    """What a room works with is not to be had; the message is one line."""


def open_inventory(settings: Settings, undo: contextlib.ExitStack) -> Inventory:
    """Open the repository, and follow its remote until `undo`; RoomError.

    That is raised when it is no repository, when its branch is not there or checked out, or has no such directory: the
    first write would begin an inventory under a misspelt name. A remote that does not answer is no reason not to serve
    what is here.
    """
    try:
        repository = Repository(
            settings.repository,
            branch=settings.branch,
            inventory=settings.inventory,
            remote=settings.remote,
            review=settings.write == "review",
        )
        undo.callback(repository.close)
        head = repository.head()
    except GitError as error:
        raise RoomError(f"{settings.repository}: {error}") from None
    # With the slash a directory is found, and no file.
    if repository.inventory and repository.objects.find(f"{head}:{repository.inventory}/") is None:
        raise RoomError(
            f"{settings.repository}: there is no directory {repository.inventory} on {settings.branch}; commit one "
            "there (tidegate init makes it), or say where it is in the setting inventory"
        )
    inventory = Inventory(repository)
    if settings.remote is not None:
        undo.enter_context(Following(inventory))
    return inventory


def open_events(settings: Settings, undo: contextlib.ExitStack) -> EventStore:
    """Open the store of events, which `undo` closes, and let old ones expire; RoomError."""
    try:
        events = open_store(settings.events_url, _password(settings))
    except (StoreError, StateError) as error:
        raise RoomError(str(error)) from None
    undo.callback(events.close)
    undo.enter_context(Retention(events, settings.events_days))
    return events


def _password(settings: Settings) -> str:
    path = settings.events_password_file
    if path is None:
        return ""
    data = privatefiles.read_private(path, _PASSWORD_MAX_BYTES)
    try:
        text = (data or b"").decode("utf-8").strip()
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        raise StateError(f"events_password_file: {path}: it holds no password on one line")
    return text
