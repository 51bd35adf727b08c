"""Others write to the remote too, and merge reviews there: the inventory follows it, now and every half minute."""

from __future__ import annotations

import logging

from tidegate_control.chores import Chore
from tidegate_control.inventory.errors import InventoryError
from tidegate_control.inventory.service import Inventory

log = logging.getLogger("tidegate.control")
_EVERY_SECONDS = 30.0


class Following(Chore):
    """Keeps an inventory where its remote is; what keeps it from that is logged once, until it is something else."""

    name = "following"

    def __init__(self, inventory: Inventory) -> None:
        super().__init__()
        self._inventory = inventory
        self._problem = ""

    def turn(self) -> float:
        """Fetch, and move the branch."""
        problem = ""
        try:
            self._inventory.refresh()
        except InventoryError as error:
            problem = str(error)
        if problem and problem != self._problem:
            log.error("the inventory does not follow its remote: %s", problem)
        self._problem = problem
        return _EVERY_SECONDS
