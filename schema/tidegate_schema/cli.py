"""The command tree: every command's name, where it lives, and what its exit status means.

Commands are named here as text and imported when called, so that this package imports nobody, a host
needs only the parts it runs, and `tidegate --help` costs one small import.

Exit statuses (CI relies on them):

====== ==========================================================================
0      done; no problem, no change, proven, or the packet is allowed
1      the command's own failure: a problem in the input, a difference, or an operation refused
2      `plan`, `replay`: there are changes
3      `explain`: the packet is denied
64     usage error (EX_USAGE of sysexits(3)), so that it is never taken for "changes"
130    interrupted
====== ==========================================================================
"""

from __future__ import annotations

import gc
import importlib
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from tidegate_schema import __version__
from tidegate_schema.extras import advice

EXIT_USAGE = 64
PATH = click.Path(path_type=Path)
"""The type of an argument or option that names a file or directory, which need not be there."""

COMMANDS: Mapping[str, tuple[str, str, str]] = {
    # name: (module:attribute, the extra that installs what it needs, one-line help)
    "init": ("tidegate_compiler.initcli:init", "", "Scaffold a small inventory to start from."),
    "validate": ("tidegate_compiler.cli:validate", "", "Report every problem of an inventory."),
    "inventory": (
        "tidegate_compiler.edit.cli:inventory",
        "",
        "Edit an inventory in place: add, remove, fmt, import.",
    ),
    "schema": (
        "tidegate_compiler.schemafiles:schema",
        "",
        "Print the schemas that editors complete and check by.",
    ),
    "compile": ("tidegate_compiler.compilecli:compile_", "", "Turn an inventory into one bundle per host."),
    "plan": ("tidegate_compiler.plan.cli:plan", "", "Say what a change does for whom."),
    "test": ("tidegate_compiler.proofcli:test", "", "Run the inventory's access tests."),
    "verify": (
        "tidegate_compiler.proofcli:verify",
        "",
        "Prove that a compile output says what its inventory says.",
    ),
    "access": ("tidegate_compiler.access.cli:access", "", "Say who reaches what."),
    "explain": (
        "tidegate_compiler.proofcli:explain",
        "",
        "Say whether a packet is allowed, and which policy decides.",
    ),
    "replay": (
        "tidegate_control.learn.cli:replay_",
        "",
        "Judge recorded flows by an inventory: what would break.",
    ),
    "suggest": (
        "tidegate_control.learn.cli:suggest_",
        "",
        "Suggest the fewest policies that admit recorded flows.",
    ),
    "publish": ("tidegate_compiler.publishcli:publish", "", "Sign bundles and push them to a target."),
    "nats": ("tidegate_compiler.natscli:nats", "", "Set up a nats-server for a fleet."),
    "keys": ("tidegate_compiler.keyscli:keys", "", "Make signing keys, and say whose signatures count."),
    "client": ("tidegate_agents.client.cli:client", "client", "Run the agent of a client host."),
    "gateway": ("tidegate_agents.gateway.cli:gateway", "gateway", "Run the agent of a gateway host."),
    "control": (
        "tidegate_control.cli:control",
        "control",
        "Serve the inventory: API, web pages, intake of events.",
    ),
    "doctor": (
        "tidegate_agents.doctor.cli:doctor",
        "",
        "Say what would keep a host's agent from its work.",
    ),
}


class Failure(click.ClickException):
    """A refusal or failure told in one line on stderr; exit status 1."""

    exit_code = 1


def _lacking(name: str | None, error: ModuleNotFoundError) -> Failure | None:
    """Say which extra brings the module that a command lacks; None when no extra would, so it is our own mistake."""
    extra = COMMANDS[name][1] if name is not None and name in COMMANDS else ""
    if error.name is None or error.name.startswith("tidegate_") or not extra:
        return None
    return Failure(f"'{name}' needs the module {error.name!r}; {advice(extra)}")


class LazyGroup(click.Group):
    """A group that knows its commands' names and help, and imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table: the order of use, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module and return it; None when the name is not in the table."""
        if cmd_name not in COMMANDS:
            return None
        target, _, _ = COMMANDS[cmd_name]
        module, _, attribute = target.partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if ctx.resilient_parsing:  # the Tab key: nothing, rather than a message in the middle of a line
                return None
            if (failure := _lacking(cmd_name, error)) is None:
                raise
            raise failure from None
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, and tell a module that it imports only when it runs, and that is not installed."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if (failure := _lacking(ctx.invoked_subcommand, error)) is None:
                raise
            raise failure from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and tell which one may be meant; click looks among imported commands only."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib  # only a mistake pays for it

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            if not near or "Did you mean" in error.format_message():
                raise
            raise click.UsageError(f"{error.format_message()} Did you mean {near[0]!r}?", ctx) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands from the table, importing nothing, so that the Tab key answers at once."""
        named = [
            CompletionItem(name, help=text)
            for name, (_, _, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command list from the table, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog='Shell completion: eval "$(_TIDEGATE_COMPLETE=bash_source tidegate)", or zsh_source, fish_source.',
)
@click.version_option(__version__, prog_name="tidegate")
def tidegate() -> None:
    """A WireGuard-based zero-trust data plane, run from git."""


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit; the only place that turns an error into an exit status.

    A user's error is one line on stderr and never a traceback. `args` defaults to `sys.argv[1:]`.
    """
    kept: list[object] = []
    status = run(args, obj=kept)
    if kept and _flushed():
        os._exit(status)  # the system takes the memory back at once, the interpreter value by value
    sys.exit(status)


def _flushed() -> bool:
    """Write out what was printed; False when that fails, or nobody listens, and the interpreter has to say so."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        return False
    return True


def keep(value: object) -> None:
    """Keep a large value to the end of the process, which then comes without freeing it: it would take a tenth more.

    Nor does the cycle collector walk over what there is by now, which would take another tenth.
    """
    context = click.get_current_context(silent=True)
    kept = context.find_root().obj if context is not None else None
    if isinstance(kept, list):
        kept.append(value)
        gc.freeze()


def run(args: list[str] | None = None, **extra: Any) -> int:
    """Run the command line and return its exit status instead of exiting; see the table above."""
    try:
        result = tidegate.main(args=args, prog_name="tidegate", standalone_mode=False, **extra)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)  # the help of a group, which is all ours
        return EXIT_USAGE
    except click.UsageError as error:
        shown, said = io.StringIO(), error.format_message()
        error.show(shown)
        click.echo(shown.getvalue().replace(said, _printable(said)), nl=False, err=True)
        return EXIT_USAGE
    except click.ClickException as error:
        _say(f"tidegate: {error.format_message()}")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("tidegate: interrupted", err=True)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        where = f"{_path(error.filename)}: " if error.filename else ""
        _say(f"tidegate: {where}{error.strerror or error}")
        return 1
    return result if isinstance(result, int) else 0


def _path(name: str | bytes | int) -> str:
    return os.fsdecode(name) if isinstance(name, bytes) else str(name)


def _say(line: str) -> None:
    click.echo(_printable(line), err=True)


def _printable(line: str) -> str:
    """Return one line, escaped what no terminal should get: a path on the command line may be a stranger's."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
