"""`tidegate publish`."""

from __future__ import annotations

import re
import sqlite3
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from tidegate_compiler import baseline, natsoptions, origin, output, progress, publish_limits, report, targets
from tidegate_compiler import publish as publishing
from tidegate_compiler.collector import without_collector
from tidegate_compiler.diagnostics import show, show_path
from tidegate_compiler.memory import Memory
from tidegate_compiler.options import json_option as _json
from tidegate_compiler.plan import limits as limits_
from tidegate_compiler.plan import source as plan_source
from tidegate_compiler.plan.options import limit_option
from tidegate_compiler.plan.plan import Plan
from tidegate_compiler.signing import load_signing
from tidegate_compiler.terminal import print_table
from tidegate_compiler.terminal import say as _print
from tidegate_schema import release
from tidegate_schema.cli import PATH, Failure
from tidegate_schema.cli import keep as keep_alive

OK, FAILED = 0, 1
_KEY_MAX_BYTES = 1 << 16
_DAY = 86400


def _duration(_: click.Context, __: click.Parameter, value: str) -> int:
    """Read a length of time, 30d, 12h or 90m, in seconds."""
    match = re.fullmatch(r"([0-9]{1,5})([dhm])", value)
    seconds = int(match[1]) * {"d": _DAY, "h": 3600, "m": 60}[match[2]] if match else 0
    if not 0 < seconds <= 3650 * _DAY:
        raise click.BadParameter(f"{show(value)}: write for instance 30d, 12h or 90m, at most 3650d")
    return seconds


def _ref(_: click.Context, __: click.Parameter, value: str) -> str:
    """Read the name of a git ref that is ours to move."""
    if not re.fullmatch(r"refs/tidegate/[A-Za-z0-9][A-Za-z0-9_-]{0,99}", value):
        raise click.BadParameter(f"{show(value)}: write refs/tidegate/NAME")
    return value


def _target(_: click.Context, __: click.Parameter, value: str) -> str:
    """Judge the form of a target's name before anything is read."""
    try:
        targets.open_target(value, targets.Options(fleet="any"))
    except targets.Unavailable as error:
        raise Failure(str(error)) from None
    except targets.TargetError as error:
        raise click.BadParameter(str(error)) from None
    return value


def _directories(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="dir")]


_EXAMPLES = """\b
Examples:
  tidegate publish out --to bundles --key keys/signing.key --first
  tidegate publish out --to bundles --key keys/signing.key
  tidegate publish out --to ssh://tidegate@gw1/bundles --key keys/signing.key --dry-run
  tidegate publish out --to tls://nats.example.net --nats-ca ca.pem --key keys/signing.key
  tidegate publish out --to bundles --key keys/signing.key --key agent:bob@example.net
  tidegate publish out --to bundles --key keys/signing.key --allow clients-removed-share
  tidegate publish out --to bundles --key keys/signing.key --since v1.2:inventory
"""


@click.command(epilog=_EXAMPLES)
@click.argument("out", metavar="OUT", type=PATH)
@click.option(
    *("--to", "target"),
    metavar="TARGET",
    required=True,
    callback=_target,
    shell_complete=_directories,
    help="A directory, local or mounted; ssh://user@host/path; tls://host or nats://host (docs/nats.md).",
)
@click.option(
    "--key",
    "keys",
    metavar="KEY",
    type=click.Path(),
    multiple=True,
    required=True,
    help="A private signing key: a file, or agent:FINGERPRINT of an ssh-agent; may be repeated.",
)
@click.option(
    "--keys",
    "chain",
    metavar="FILE",
    type=PATH,
    default=None,
    help="The key sets; default: keys.json beside a key.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice([str(number) for number in release.FORMATS]),
    default=str(release.FORMAT),
    show_default=True,
    help="Format of the releases; 1 while some hosts run the version before.",
)
@click.option(
    "--valid-for",
    metavar="TIME",
    callback=_duration,
    default="30d",
    show_default=True,
    help="How long hosts may apply it: 30d, 12h or 90m.",
)
@click.option(
    "--source",
    metavar="REV",
    default=None,
    help="The commit that OUT is compiled from, which is checked; outside of a repository any text. "
    "Default: HEAD if OUT is compiled from it, else the inventory's digest.",
)
@click.option(
    "--since",
    metavar="OLD",
    default=None,
    help="What was published last, as OLD of 'tidegate plan'; default: what --ref says.",
)
@click.option(
    "--first", is_flag=True, help="Nothing was published before, so there is nothing to compare with."
)
@click.option(
    "--ref",
    callback=_ref,
    metavar="REF",
    default=baseline.REF,
    show_default=True,
    help="The git ref that says what was published last, moved when every host is done.",
)
@limit_option
@click.option(
    "--allow",
    "allowed",
    multiple=True,
    type=click.Choice(limits_.NAMES),
    help="Publish although the change is past this limit; may be repeated.",
)
@click.option(
    *("--keep", "keep"),
    metavar="N",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="How many releases of each host stay on the target.",
)
@click.option(
    "--serial-from",
    metavar="N",
    type=click.IntRange(1, 1 << 52),
    default=1,
    help="Give no release a serial below N: for a target that lost its releases.",
)
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(1, 32),
    default=4,
    show_default=True,
    help="How many hosts are pushed at a time.",
)
@click.option(
    "--ssh-config", metavar="FILE", type=PATH, help="For ssh://: read FILE instead of ~/.ssh/config (ssh -F)."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and sign and write nothing.")
@natsoptions.options
@_json
@click.pass_context
def publish(
    context: click.Context,
    out: Path,
    target: str,
    keys: tuple[str, ...],
    chain: Path | None,
    form: str,
    valid_for: int,
    source: str | None,
    since: str | None,
    first: bool,
    ref: str,
    limits: limits_.Limits,
    allowed: tuple[str, ...],
    keep: int,
    serial_from: int,
    jobs: int,
    ssh_config: Path | None,
    dry_run: bool,
    nats: targets.NatsOptions,
    as_json: bool,
) -> int:
    """Sign every host's bundle in a compile output and push it; hosts that have it already are left alone.

    The output is compared with what git says was published last, and past a limit nothing is published, unless --allow
    names that limit. An --allow that is not needed is refused, too. A run that was cut is run again.

    Exit status: 0 every host has its release, 1 some host has not, or nothing may be published.
    """
    if source is not None and not re.fullmatch(r"[ -~]{1,200}", source):
        raise Failure("--source is 1 to 200 printable ASCII characters")
    if first and since is not None:
        raise click.UsageError(
            "--first says that there is nothing to compare with, --since names it; give one"
        )
    _refuse_idle_options(context, target)
    signing = load_signing(keys, chain, int(form))
    begun = time.time()
    before = _before(ref, since)
    place = baseline.memory_path(ref)
    used = baseline.used_key_set(place) if before else 0
    if used > signing.key_set:
        raise Failure(f"{ref}: {publishing.forgotten_set(used, signing.key_set)}")
    with Memory(place, before, out) as memory, without_collector():
        try:
            with progress.shown():
                progress.stage("reading")
                compiled = output.read(out, memory.hosts, begun)
                signing.check_fleet(compiled.fleet)
                commit = origin.commit_of(compiled, out, source)
                progress.stage("comparing")
                found = _compared(compiled, out, since, first, ref, before, commit, memory, limits)
                introduction = _introduction(found, compiled)
            _print(map(show_path, introduction), err=True)
            exceeded = found.exceeded if found else ()
            title = found.old.title if found else None
            # Git is asked for the inventory's place only where a refusal names it.
            compared = since or (baseline.as_old(ref, before) if exceeded else ref)
            refused = publish_limits.refusal(exceeded, allowed, show_path(compared), show_path(str(out)))
            if refused is not None and not dry_run:
                if as_json:
                    nothing = publishing.Published()
                    _print([report.to_json(report.published_document(nothing, exceeded, False, title, None))])
                raise Failure(refused)
            said = source or (commit.sha if commit else compiled.inventory)
            terms = publishing.Terms(int(begun), valid_for, said, keep, serial_from, jobs, dry_run)
            options = targets.Options(not dry_run, jobs, str(ssh_config or ""), compiled.fleet, nats)
            digests = publishing.digests(compiled, memory.hosts)
            with progress.shown(), targets.open_target(target, options) as opened:
                done = publishing.publish(compiled, opened, signing, terms, digests)
        except (output.OutputError, targets.TargetError, baseline.BaselineError) as error:
            raise Failure(str(error)) from None
        except sqlite3.Error as error:
            raise Failure(f"{place}: damaged ({error}); remove it, it saves time and nothing else") from None
        _print([signing.title], err=True)
        _print(map(show_path, publish_limits.notices(done.left_behind)), err=True)
        if before and done.was_empty and serial_from == 1:
            _print(
                [
                    f"{show_path(target)} held nothing, and {ref} says that something was published: serials begin at "
                    "1, and hosts that saw higher ones refuse them as 'replayed'; see --serial-from"
                ],
                err=True,
            )
        if not dry_run and any(row.action != publishing.FAILED for row in done.rows):
            with suppress(OSError):  # the hosts have their releases all the same
                baseline.note_key_set(place, signing.key_set)
        recorded = None
        if done.is_complete and not dry_run:
            recorded = _record(ref, commit, before, compiled, out)
        if recorded:
            with suppress(OSError, sqlite3.Error):  # it saves time and nothing else
                memory.save(compiled, digests, recorded)
        keep_alive(compiled)
    if as_json:
        _print([report.to_json(report.published_document(done, exceeded, dry_run, title, recorded))])
    else:
        _tell(done, dry_run)
    if refused is not None:
        raise Failure(refused)
    return OK if done.is_complete else FAILED


def _refuse_idle_options(context: click.Context, target: str) -> None:
    """Refuse options on the command line that are for another kind of target."""
    named = natsoptions.named(context)
    if named and not target.startswith(("nats://", "tls://")):
        raise click.UsageError(f"{named[0]} is for a target nats:// or tls://")
    if context.params["ssh_config"] is not None and not target.startswith("ssh://"):
        raise click.UsageError("--ssh-config is for a target ssh://")


def _before(ref: str, since: str | None) -> str:
    """Return the commit that was published last, "" for none; what --since names does for one that is unreadable."""
    try:
        return baseline.published(ref)
    except baseline.BaselineError as error:
        if since is None:
            raise Failure(f"{error}; or name what was published last with --since") from None
        return ""


def _compared(
    compiled: output.Output,
    out: Path,
    since: str | None,
    first: bool,
    ref: str,
    before: str,
    commit: baseline.Commit | None,
    memory: Memory,
    limits: limits_.Limits,
) -> Plan | None:
    """Compare the output with what was published last; None when --first says that there is nothing."""
    if first and before:
        raise Failure(
            f"--first is not needed, {ref} says what was published last; leave it out, nothing is published"
        )
    if first:
        return None
    if since is None and not before and not baseline.has_repository():
        raise Failure(
            f"no git repository around {show_path(str(Path.cwd()))}: run it inside the fleet's repository, or give "
            "--since OLD (a directory or compile output); --first is for a fleet to which nothing was published yet"
        )
    if since is None and not before:
        raise Failure(
            f"nothing to compare with: no git ref {ref} says what was published last; add --first if nothing was, "
            "or --since OLD (a revision, directory or compile output)"
        )
    if since is None and memory.hosts:
        known = {host: one.files for host, one in memory.hosts.items()}
        side = plan_source.of_hosts(f"{ref} ({before[:12]})", known)
    else:
        side = baseline.read(since, ref, before, commit)
    return publish_limits.compare(side, compiled, str(out), limits)


def _introduction(found: Plan | None, compiled: output.Output) -> list[str]:
    if found is None:
        return [f"the first publish: {report.counted(len(compiled.hosts), 'host')}, compared with nothing"]
    return publish_limits.summary(found)


def _record(
    ref: str, commit: baseline.Commit | None, before: str, compiled: output.Output, out: Path
) -> str | None:
    """Move the ref to what is published now; a line says why it is not."""
    if commit is None:
        _print([origin.advice(compiled, out, ref, before)], err=True)
        return None
    try:
        baseline.record(ref, commit, before)
    except baseline.BaselineError as error:
        _print([str(error)], err=True)
        return None
    return commit.sha


def _tell(done: publishing.Published, dry_run: bool) -> None:
    """Print what happened to each host that is not as it was, and how many there are of each kind."""
    rows = [report.row_cells(row) for row in done.rows if row.action != publishing.UNCHANGED]
    if rows:
        print_table(report.ROW_TITLES, rows)
    counts = Counter(row.action for row in done.rows)
    told = ", ".join(f"{counts[action]} {action}" for action in publishing.ACTIONS if counts[action])
    _print([told or "no hosts"], err=True)
    if dry_run:
        _print(["dry run: this would be done; nothing is signed and nothing written"], err=True)
