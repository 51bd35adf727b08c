"""A complete configuration for another WireGuard program, made on the client itself: as text or as a QR code."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate_agents import host
from tidegate_agents.client import chosen, render
from tidegate_agents.files import read_bounded, write_atomic
from tidegate_schema.extras import advice
from tidegate_schema.wgquick import ClientConfig

_MAX_BYTES = 1024


def configuration(places: host.Places, bundle_directory: Path, *, with_key: bool) -> tuple[str, list[str]]:
    """Return the file, and notes for whoever asked for it. HostError when there is no release or no key."""
    settings = chosen.local_settings(places)
    config, _, problem = chosen.release(places, bundle_directory)
    private = None
    if with_key:
        host.public_key(places)
        private = read_bounded(places.key, _MAX_BYTES).decode("ascii").strip()
    notes = [problem] if problem else []
    standbys = sum(not peer.allowed_ips for peer in config.peers)
    if standbys:
        verb = "gateway is" if standbys == 1 else "gateways are"
        notes.append(f"{standbys} standby {verb} left out: only 'tidegate client run' moves to one.")
    if with_key:
        notes.append(
            "Use it on one device, while no agent runs: a gateway sends to the last one that it heard from."
        )
    else:
        notes.append("The public key that the app shows goes into the inventory, as a client of its own.")
    return text(config, settings, private), notes


def text(config: ClientConfig, settings: Mapping[str, Any], private: str | None) -> str:
    """Return a wg-quick file that needs nothing beside it; without a key when `private` is None. Pure."""
    lines = ["[Interface]"]
    lines.append("# PrivateKey: the app has its own" if private is None else f"PrivateKey = {private}")
    lines += [f"Address = {', '.join(config.addresses)}", f"MTU = {config.mtu or settings['mtu']}"]
    lines += [f"ListenPort = {settings['listen_port']}"] if settings["listen_port"] else []
    for key, peer in render.peers(config, settings).items():
        if not peer.allowed_ips:
            continue
        lines += ["", "[Peer]", f"PublicKey = {key}", f"Endpoint = {peer.endpoint}"]
        lines.append(f"AllowedIPs = {', '.join(sorted(peer.allowed_ips))}")
        if peer.persistent_keepalive:
            lines.append(f"PersistentKeepalive = {peer.persistent_keepalive}")
    return "\n".join(lines) + "\n"


def qr_code(content: str, *, coloured: bool) -> str:
    """Return a QR code in half blocks, light where a code is light; HostError when it does not fit.

    `coloured` says white on black, which a terminal need not be; without it, the text is for one that is.
    """
    try:
        import segno
    except ModuleNotFoundError:
        raise host.HostError(f"--qr needs the module 'segno'; {advice('client')}") from None
    try:
        # Byte mode holds 2,953 bytes at most (ISO/IEC 18004, version 40-L); a terminal's lines are fewer.
        code = segno.make_qr(content, error="L")
    except segno.DataOverflowError:
        raise host.HostError(f"{len(content)} bytes do not fit into a QR code; use --out FILE") from None
    out = io.StringIO()
    code.terminal(out, compact=True, border=2)
    if not coloured:
        return out.getvalue()
    # Select Graphic Rendition (ECMA-48, 8.3.117): bright white on black, and back.
    return "".join(f"\x1b[40;97m{line}\x1b[0m\n" for line in out.getvalue().splitlines())


def write(path: Path, content: str) -> None:
    """Write the file, for its owner alone. HostError when it cannot be."""
    try:
        write_atomic(path, content.encode())
    except OSError as error:  # which names a file beside it
        raise host.HostError(f"{path}: {error.strerror}") from None
