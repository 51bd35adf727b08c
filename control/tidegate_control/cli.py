"""`tidegate control …`."""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tidegate_control import settings as settings_file
from tidegate_control.access import privatefiles
from tidegate_control.access.caller import SCOPES
from tidegate_control.access.privatefiles import StateError
from tidegate_control.access.tokens import MAX_SECONDS, Token, TokenError, Tokens
from tidegate_control.settings import Settings, SettingsError
from tidegate_schema.cli import Failure

_F = TypeVar("_F", bound=Callable[..., Any])
_FILE = click.Path(dir_okay=False, path_type=Path)
_UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}


def _settings_option(command: _F) -> _F:
    return click.option(
        "--settings",
        "path",
        type=_FILE,
        default="/etc/tidegate/control.yaml",
        show_default=True,
        help="The server's settings.",
    )(command)


@click.group("control")
def control() -> None:
    """Serve the inventory: API, web pages, and intake of events."""


@control.command("serve", short_help="Run the server.")
@_settings_option
def serve(path: Path) -> None:
    """Run the server in the foreground, until SIGTERM or Ctrl-C; whoever has asked by then is still answered.

    \b
    Example:
      tidegate control serve --settings control.yaml
    """
    from tidegate_control import serve as serving  # the web's modules, which no other command needs

    try:
        serving.serve(_loaded(path), lambda line: click.echo(line, err=True))
    except serving.ServeError as error:
        raise Failure(str(error)) from None


@control.command("check", short_help="Say whether the server could start.")
@_settings_option
def check(path: Path) -> None:
    """Read the settings and open all that the server needs, except its port.

    \b
    Example:
      tidegate control check --settings control.yaml
    """
    from tidegate_control import serve as serving

    settings = _loaded(path)
    try:
        with serving.prepared(settings):
            pass
    except serving.ServeError as error:
        raise Failure(str(error)) from None
    click.echo(f"{path}: the server can start, and would listen on {settings.listen}")


@control.group("token")
def token() -> None:
    """Make, list and end the tokens of API, web pages and intake."""


@token.command("add", short_help="Make a token and print it, once.")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(SCOPES),
    help="What it allows; may be repeated. editor and publisher imply reader.",
)
@click.option("--gateway", metavar="NAME", help="With gateway-intake: the gateway whose events it brings.")
@click.option(
    "--expires",
    default="90d",
    show_default=True,
    metavar="TIME",
    help="When it ends: 12h, 90d, 8w, or a date (UTC); within 366 days.",
)
@click.option("--email", help="Its holder's address, as the author of commits.")
@_settings_option
def add(
    name: str, scopes: tuple[str, ...], gateway: str | None, expires: str, email: str | None, path: Path
) -> None:
    """Make a token and print it on standard output. It is shown this once: the server keeps a hash.

    \b
    Examples:
      tidegate control token add alice --scope editor --email alice@example.net
      tidegate control token add gw1 --scope gateway-intake --gateway gw1 --expires 52w > token
    """
    tokens, seconds = _tokens(path), _seconds(expires, time.time())
    try:
        made, text = tokens.add(name, scopes, seconds=seconds, gateway=gateway, email=email)
    except (TokenError, StateError) as error:
        raise Failure(str(error)) from None
    click.echo(text)
    click.echo(
        f"{name} ({', '.join(made.scopes)}) ends {_when(made.expires)}; it is not shown again", err=True
    )


@token.command("list", short_help="List the tokens, without their text.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_settings_option
def list_(as_json: bool, path: Path) -> None:
    """List the tokens, those that have ended of late too. Nobody can list their text.

    \b
    Examples:
      tidegate control token list
      tidegate control token list --json
    """
    now = time.time()
    try:
        found = _tokens(path).all()
    except StateError as error:
        raise Failure(str(error)) from None
    if as_json:
        click.echo(json.dumps([_document(one, now) for one in found], indent=2))
        return
    for one in found:
        whose = f" of {one.gateway}" if one.gateway else ""
        scopes = ",".join(one.scopes) + whose
        click.echo(f"{one.id}  {one.state(now):<7}  {_when(one.expires)}  {one.name}  {scopes}  {one.email}")
    if not found:
        click.echo("there are no tokens; make one with 'tidegate control token add'", err=True)


@token.command("revoke", short_help="End a token now.")
@click.argument("name")
@_settings_option
def revoke(name: str, path: Path) -> None:
    """End a token, by its name or its ID, and every session that began with it. A running server follows at once.

    \b
    Example:
      tidegate control token revoke alice
    """
    try:
        ended = _tokens(path).revoke(name)
    except (TokenError, StateError) as error:
        raise Failure(str(error)) from None
    click.echo(f"{ended.name} ({ended.id}) is revoked")


def _loaded(path: Path) -> Settings:
    try:
        return settings_file.load(path)
    except SettingsError as error:
        raise Failure(str(error)) from None


def _tokens(path: Path) -> Tokens:
    try:
        return Tokens(privatefiles.state_directory(_loaded(path).state))
    except StateError as error:
        raise Failure(str(error)) from None


def _seconds(text: str, now: float) -> int:
    """Read how long a token lives: a span, or the date that it ends on."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})([hdw])", text)
    if match:
        seconds = int(match[1]) * _UNITS[match[2]]
    else:
        try:
            when = datetime.datetime.fromisoformat(text)
        except ValueError:
            raise click.UsageError(
                f"--expires {text!a}: write 12h, 90d, 8w, or a date like 2027-06-30"
            ) from None
        when = when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
        seconds = int(when.timestamp() - now)
    if not 0 < seconds <= MAX_SECONDS:
        raise click.UsageError(f"--expires {text!a}: a token ends within 366 days, and not in the past")
    return seconds


def _document(token: Token, now: float) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "email": token.email,
        "scopes": list(token.scopes),
        "gateway": token.gateway,
        "created": _when(token.created),
        "expires": _when(token.expires),
        "revoked": _when(token.revoked) if token.revoked else None,
        "state": token.state(now),
    }


def _when(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
