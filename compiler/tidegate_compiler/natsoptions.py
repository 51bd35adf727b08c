"""The options of `publish` that a target nats:// or tls:// takes, as one value."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tidegate_compiler.targets import NatsOptions

_FILE = click.Path(dir_okay=False, path_type=Path)


_NAMES = ("ca", "cert", "key", "replicas")


def named(context: click.Context) -> list[str]:
    """Return the options that stand on the command line; those from the environment may be for other targets."""
    sources = {name: context.get_parameter_source(f"nats_{name}") for name in _NAMES}
    return [f"--nats-{name}" for name, source in sources.items() if source is ParameterSource.COMMANDLINE]


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --nats-ca, --nats-cert, --nats-key and --nats-replicas, and hand them on as `nats`."""

    @functools.wraps(command)
    def wrapped(
        *args: Any,
        nats_ca: Path | None,
        nats_cert: Path | None,
        nats_key: Path | None,
        nats_replicas: int,
        **others: Any,
    ) -> Any:
        if (nats_cert is None) != (nats_key is None):
            raise click.UsageError("--nats-cert and --nats-key go together: name both")
        return command(*args, nats=NatsOptions(nats_ca, nats_cert, nats_key, nats_replicas), **others)

    for name, kind, text in (
        ("ca", _FILE, "Certificates (PEM) that may vouch for a NATS server; default: the system's."),
        ("cert", _FILE, "The publisher's certificate (PEM) for NATS."),
        ("key", _FILE, "The certificate's private key (PEM)."),
        ("replicas", click.IntRange(1, 5), "On how many servers of a NATS cluster a new stream lives."),
    ):
        wrapped = click.option(
            f"--nats-{name}",
            type=kind,
            envvar=f"TIDEGATE_NATS_{name.upper()}",
            default=1 if name == "replicas" else None,
            show_default=name == "replicas",
            metavar="N" if name == "replicas" else "FILE",
            help=f"{text} Also from $TIDEGATE_NATS_{name.upper()}.",
        )(wrapped)
    return wrapped
