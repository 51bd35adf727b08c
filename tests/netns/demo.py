"""`./run demo`: the whole path in one terminal, in under a minute, with nothing mocked.

    inventory in git ─► compile ─► sign, publish ─► agents ─► real WireGuard ─► observe, enforce, revoke ─► events

Everything it makes is in namespaces and a temporary directory of its own, and goes away with it, on Ctrl-C too.
Exit status 0 only if every expectation held.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from ruamel.yaml import YAML

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import sandbox
from netns.lab import (
    DEVICE,
    REPOSITORY,
    TIDEGATE,
    WEB4,
    WEB6,
    Agent,
    Lab,
    LogEndpoint,
    Pings,
    get,
    lab,
    ping,
    serve_web,
    sh,
    until,
)

_INSIDE = "TIDEGATE_DEMO_INSIDE"
_FILES = {"alice-laptop": "clients/engineering.yaml", "bob-laptop": "clients/contractors.yaml"}
_FILES |= {"fra1": "gateways/frankfurt.yaml"}


@dataclass
class Screen:
    """What the viewer sees: the state of each client now, and every expectation with its outcome."""

    console: Console
    started: float = field(default_factory=time.monotonic)
    doing: str = ""
    clients: dict[str, dict[str, str]] = field(default_factory=dict)
    outcomes: list[tuple[str, bool]] = field(default_factory=list)
    live: Live | None = None

    def say(self, doing: str) -> None:
        """Tell what is being done now."""
        self.doing = doing
        if self.live is None:
            self.console.print(f"      {doing} …")
        self.refresh()

    def expect(self, what: str, held: bool) -> None:
        """Note an expectation and whether it held."""
        self.outcomes.append((what, held))
        if self.live is None:
            self.console.print(Text(f"{self._mark(held)} {self._age():4.1f} s  {what}"))
        self.refresh()

    def show(self, client: str, **cells: str) -> None:
        """Change what is shown of one client."""
        self.clients.setdefault(client, {}).update(cells)
        self.refresh()

    def refresh(self) -> None:
        """Draw again."""
        if self.live is not None:
            self.live.update(self.render(), refresh=True)

    def render(self) -> Group:
        """Return the whole picture."""
        columns = ("handshake", "ping v4", "ping v6", "HTTP v4", "HTTP v6", "events")
        now = Table(
            "client", *columns, title="Tidegate: two clients, a gateway, a service", title_justify="left"
        )
        for client, cells in self.clients.items():
            now.add_row(
                client,
                *(Text(cells.get(column, ""), _STYLES.get(cells.get(column, ""), "")) for column in columns),
            )
        lines = [
            Text(f" {self._mark(held)} {what}", "green" if held else "bold red")
            for what, held in self.outcomes
        ]
        doing = [Text(f" … {self.doing} ({self._age():.0f} s)", "dim")] if self.doing else []
        return Group(now, *lines, *doing)

    def _age(self) -> float:
        return time.monotonic() - self.started

    @staticmethod
    def _mark(held: bool) -> str:
        return "✓" if held else "✗"


_STYLES = {"yes": "green", "no": "red"}


class Demo:
    """The story, told in steps; each step's expectations go to the screen."""

    def __init__(self, made: Lab, screen: Screen) -> None:
        self.lab, self.screen = made, screen
        self.repository = made.directory / "fleet"
        self.inventory = self.repository / "inventory"
        self.out = made.directory / "out"
        self.endpoint: LogEndpoint | None = None

    def run(self) -> None:
        """Tell the whole story."""
        for step in (
            *(self.inventory_in_git, self.publish_first, self.start_hosts, self.observe),
            *(self.switch_to_enforce, self.events_arrive, self.revoke),
        ):
            step()
        self.screen.say("")

    # Steps --------------------------------------------------------------------------------------------------

    def inventory_in_git(self) -> None:
        """Commit the example inventory with the public keys that the hosts have just made."""
        self.screen.say("committing an inventory with the hosts' own public keys")
        shutil.copytree(REPOSITORY / "inventory", self.inventory)
        for agent in self.lab.agents:
            file = self.inventory / _FILES[agent.name]
            old = YAML(typ="safe", pure=True).load(file)[agent.name]["public_key"]
            file.write_text(file.read_text().replace(old, agent.public_key))
        self._git("init", "-q", "-b", "main")
        self._commit("Enrol alice, bob and fra1")

    def publish_first(self) -> None:
        """Validate, test, compile, sign and publish to the watched directories."""
        self.screen.say("validating, testing, compiling, signing, publishing")
        self.screen.expect(
            "the inventory validates and its access tests pass", self._ok("validate") and self._ok("test")
        )
        self._publish("--first")
        published = all(
            (self.lab.bundles / agent.kind / agent.name / "current").exists() for agent in self.lab.agents
        )
        self.screen.expect("every host has a signed release in its bundle directory", published)

    def start_hosts(self) -> None:
        """Start the web server, the log endpoint and the agents."""
        self.screen.say("starting the gateway and the clients on real WireGuard")
        serve_web(self.lab.service)
        self.endpoint = LogEndpoint(self.lab.service, self.lab.directory)
        self.lab.start(
            *("authz_mode=observe", "logging_enabled=on", "flush_interval=0.2"),
            f"log_endpoint={self.endpoint.url}",
        )
        status = self.lab.gateway.status() or {}
        engine = "wireguard-go" if status.get("wireguard_go") else "the kernel's WireGuard"
        for agent in (self.lab.alice, self.lab.bob):
            shaken = agent.host.sh("wg", "show", DEVICE, "latest-handshakes").split()[1]
            age = f"{time.time() - int(shaken):.0f} s ago" if shaken != "0" else "never"
            self.screen.show(agent.name, handshake=age)
            self.screen.expect(f"{agent.name} and fra1 have shaken hands ({engine})", shaken != "0")

    def observe(self) -> None:
        """In observe everybody gets everywhere."""
        self.screen.say("observe: the gateway discards the identity and always forwards")
        for agent in (self.lab.alice, self.lab.bob):
            self.screen.expect(f"observe: {agent.name} gets through", all(self._probe(agent)))

    def switch_to_enforce(self) -> None:
        """The switch, live: bob is cut off, alice does not lose a ping."""
        self.screen.say("enforce: the gateway uses the identity")
        pings = Pings(self.lab.alice.host)
        before = (self.lab.gateway.status() or {}).get("pid")
        self.lab.gateway.set("authz_mode=enforce")
        self.screen.expect(
            "enforce: bob-laptop, whom no policy allows, is cut off", not any(self._probe(self.lab.bob))
        )
        self.screen.expect(
            "enforce: alice-laptop, an engineer, is untouched", all(self._probe(self.lab.alice))
        )
        sent, answered = pings.end()
        self.screen.expect(
            f"{answered} of {sent} pings of alice-laptop answered across the switch", sent == answered > 10
        )
        self.screen.expect("nothing was restarted", (self.lab.gateway.status() or {}).get("pid") == before)

    def events_arrive(self) -> None:
        """The log endpoint has events of the flows, with client ID and verdict."""
        self.screen.say("waiting for the events")
        endpoint = self.endpoint
        assert endpoint is not None
        wanted = {(self.lab.alice.client_id, "allow", "enforce"), (self.lab.bob.client_id, "deny", "enforce")}

        def told() -> set[tuple[str, str, str]]:
            return {
                (e["tidegate.client.id"], e["tidegate.verdict"], e["tidegate.mode"])
                for e in endpoint.events()
                if "tidegate.client.id" in e
            }

        self.screen.expect(
            "the log endpoint has alice's allowed and bob's denied flows",
            self._within("the events arrive", lambda: wanted <= told()),
        )
        events = endpoint.events()
        for agent in (self.lab.alice, self.lab.bob):
            count = sum(event.get("tidegate.client.id") == agent.client_id for event in events)
            self.screen.show(agent.name, events=str(count))
        sequences: dict[str, list[int]] = {}
        for event in events:
            sequences.setdefault(event["tidegate.epoch"], []).append(event["event.sequence"])
        self.screen.expect(
            f"none of the first {len(events)} events is missing or twice",
            all(sorted(found) == list(range(len(found))) for found in sequences.values()),
        )

    def revoke(self) -> None:
        """One commit takes alice out of her group; her access ends without a restart."""
        self.screen.say("revoking alice-laptop: one commit, compile, publish")
        before = (self.lab.gateway.status() or {}).get("pid")
        group = self.inventory / "groups/people.yaml"
        group.write_text(group.read_text().replace("[alice-laptop, ", "["))
        tests = self.inventory / "tests/engineering.yaml"
        tests.write_text("".join(line for line in tests.open() if "alice-laptop" not in line))
        self._commit("Revoke alice-laptop")
        self._publish()
        ended = self._within("alice is cut off", lambda: not ping(self.lab.alice.host))
        self.screen.expect("alice-laptop's access has ended", ended and not any(self._probe(self.lab.alice)))
        self.screen.expect("nothing was restarted", (self.lab.gateway.status() or {}).get("pid") == before)

    # Tools --------------------------------------------------------------------------------------------------

    def _probe(self, agent: Agent) -> list[bool]:
        """Ping and ask the web server over both families, and show what came of it."""
        results = {
            "ping v4": ping(agent.host, WEB4),
            "ping v6": ping(agent.host, WEB6),
            "HTTP v4": get(agent.host, WEB4, 1) is not None,
            "HTTP v6": get(agent.host, WEB6, 1) is not None,
        }
        self.screen.show(agent.name, **{name: "yes" if held else "no" for name, held in results.items()})
        return list(results.values())

    def _publish(self, *more: str) -> None:
        sh(*TIDEGATE, "compile", str(self.inventory), "--out", str(self.out))
        revision = self._git("rev-parse", "HEAD").strip()
        target = ("--to", str(self.lab.bundles), "--key", str(self.lab.signer.private))
        in_repository = ("env", "-C", str(self.repository))  # whose ref says what was published last
        sh(*in_repository, *TIDEGATE, "publish", str(self.out), *target, "--source", revision, *more)

    def _ok(self, verb: str) -> bool:
        done = subprocess.run([*TIDEGATE, verb, str(self.inventory)], capture_output=True, check=False)
        return done.returncode == 0

    def _within(self, what: str, true: Callable[[], bool]) -> bool:
        try:
            until(what, true)
        except AssertionError:
            return False
        return True

    def _git(self, *arguments: str) -> str:
        author = ("-c", "user.name=Demo", "-c", "user.email=demo@example.net", "-c", "commit.gpgsign=false")
        return sh("git", *author, "-C", str(self.repository), *arguments)

    def _commit(self, message: str) -> None:
        self._git("add", "--all")
        self._git("commit", "-q", "--message", message)


def _inside(directory: Path) -> int:
    """Tell the story in this sandbox."""
    console = Console()
    screen = Screen(console)
    failure = ""
    live = Live(screen.render(), console=console, auto_refresh=False) if console.is_terminal else None
    screen.live = live
    try:
        if live is not None:
            live.start()
        with lab(directory) as made:
            Demo(made, screen).run()
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        failure = str(error)
    except KeyboardInterrupt:
        failure = "interrupted"
    finally:
        if live is not None:
            live.stop()
    held = sum(held for _, held in screen.outcomes)
    if failure:
        console.print(Text(f"stopped: {failure}", "bold red"))
    seconds = time.monotonic() - screen.started
    console.print(f"{held} of {len(screen.outcomes)} expectations held, in {seconds:.1f} s", highlight=False)
    return 0 if held == len(screen.outcomes) and not failure else 1


def main() -> int:
    """Enter a sandbox, tell the story there, and remove what it left."""
    if _INSIDE in os.environ:
        return _inside(Path(os.environ[_INSIDE]))
    sandbox.add_sbin_to_path()
    reason = sandbox.why_not()
    if reason is not None:
        print(f"The demo needs network namespaces and WireGuard: {reason}", file=sys.stderr)
        print(
            "Run it as root, or allow unprivileged user namespaces; './run demo' installs the packages it can.",
            file=sys.stderr,
        )
        return 1
    with tempfile.TemporaryDirectory(prefix="tidegate-demo-") as directory:
        command = [*sandbox.sandbox_prefix(), sys.executable, __file__]
        story = subprocess.Popen(command, env={**os.environ, _INSIDE: directory})
        # Ctrl-C reaches the story too, which ends in order; this process waits for that and then tidies up.
        signal.signal(signal.SIGINT, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: _end(story))
        return 1 if story.wait() else 0


def _end(story: subprocess.Popen[bytes]) -> None:
    """Ask the story to end, then end its namespaces and with them everything in them."""
    story.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        story.wait(3)
    story.kill()


if __name__ == "__main__":
    sys.exit(main())
