"""Enrolling a host: which commands to run there, and the form for the public key that comes out of them."""

from __future__ import annotations

from starlette.responses import Response

from tidegate_compiler.edit.allocate import allocate
from tidegate_compiler.edit.change import EditError
from tidegate_compiler.model import Inventory
from tidegate_control.ui.visit import Visit


def enrol(visit: Visit) -> Response:
    """Show how a host comes into the fleet. The form goes where that of a new client goes: to its plan."""
    inventory = visit.snapshot.checked.inventory
    addresses, full = [], ""
    if inventory is not None:
        try:
            addresses = free_addresses(inventory)
        except EditError as error:
            full = str(error)
    gateways = list(visit.snapshot.objects("gateway"))
    return visit.page(
        "enrol.html",
        fleet=inventory.overlay.fleet if inventory is not None else "FLEET",
        addresses="\n".join(addresses),
        full=full,
        gateways="\n".join(gateways) if len(gateways) <= 4 else "",
        commit=visit.snapshot.commit,
    )


def free_addresses(inventory: Inventory) -> list[str]:
    """Return the lowest free address of each family. EditError when the overlay is full."""
    taken = (address.value for client in inventory.clients.values() for address in client.addresses)
    return [str(found) for found in allocate([prefix.value for prefix in inventory.overlay.prefixes], taken)]
