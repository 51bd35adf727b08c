"""The documents as tests read them: pages, fences and the commands in them.

A fence of commands says where they are run, after the language: ```sh on=laptop1. The places:

    desk             a directory with git and a copy of inventory/       tests/unit/docs/test_commands.py
    laptop1, gw1     hosts of the lab, on real WireGuard                 tests/netns/test_docs.py
    nowhere          not run here; NOT_RUN says why, command by command

`status=N` is the exit status of the fence's last command when it is not 0; `agent=stopped` says that the reader has
stopped that host's agent before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
SHELL = ("sh", "console", "bash", "shell")
HOSTS = ("laptop1", "gw1")
PLACES = ("desk", *HOSTS, "nowhere")

_PACKAGES = "needs a package registry; ./run and its release session install in an empty environment"
_DEMO = "tests/netns/test_demo.py runs the demo itself; the script's words are tested in tests/unit/repo/test_run.py"
_SYSTEMD = "needs systemd as the first process of a host; tests/hosts/test_package.py (./run deb) has one"
_HOSTS = "a session of its own, with tests in tests/hosts"
_REMOTE = (
    "needs a remote repository; tests/unit/publish/test_baseline.py runs the fence as it stands, with one"
)
_SSH = "needs a host to log in to; tests/unit/publish/test_ssh.py publishes to a real sshd"
_CURL = "needs curl, which nothing here installs; tests/netns/test_metrics.py asks the same without it"
_NATS = "needs a nats-server: tests/unit/nats/test_page.py follows the page with one"
_POST = "needs curl and a server; tests/unit/control/intake/test_desk.py posts to one"
_API = "needs curl and a server; tests/unit/control/api/test_docs.py makes the requests of the page"
_SERVER = "it stays in the foreground; tests/unit/control/door/test_serve.py starts it"
NOT_RUN = {
    "tidegate control serve --settings ../control/control.yaml": _SERVER,
    "useradd --system --home-dir /var/lib/tidegate-control tidegate-control": _SYSTEMD,
    "install -d -m 700 /var/lib/tidegate-control": _SYSTEMD,
    "cp -r ../control/inventory.git /var/lib/tidegate-control/": _SYSTEMD,
    "chown -R tidegate-control: /var/lib/tidegate-control": _SYSTEMD,
    "install -d /etc/tidegate": _SYSTEMD,
    "echo 'repository: /var/lib/tidegate-control/inventory.git' > /etc/tidegate/control.yaml": _SYSTEMD,
    "install -m 644 control/tidegate_control/systemd/tidegate-control.service /etc/systemd/system/": _SYSTEMD,
    "systemctl enable --now tidegate-control": _SYSTEMD,
    'openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=NATS of example" '
    "-keyout ca.key -out ca.pem": _NATS,
    "for name in nats.example.net publisher.example alice-laptop.client.example; do \\\n"
    "  openssl req -x509 -CA ca.pem -CAkey ca.key -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 "
    "-subj /CN=tidegate \\\n"
    '  -addext "subjectAltName=DNS:$name" -addext "basicConstraints=critical,CA:FALSE" -keyout "$name.key" '
    '-out "$name.crt"; done': _NATS,
    "tidegate nats permissions out > accounts.conf": _NATS,
    "tidegate publish out --to tls://nats.example.net --key keys/signing.key --first --nats-ca ca.pem "
    "--nats-cert publisher.example.crt --nats-key publisher.example.key": _NATS,
    "tidegate client receive --once --from tls://nats.example.net --bundles /var/lib/tidegate-receive/bundles "
    "--name alice-laptop --fleet example --ca ca.pem --cert alice-laptop.client.example.crt "
    "--key alice-laptop.client.example.key": _NATS,
    "tidegate client receive --status": _NATS,
    'sed -i "s/2026-11-29/$(date -u -d yesterday +%F)/" flows.ndjson': _POST,
    'curl --fail-with-body -H "Authorization: Bearer $(cat ../control/fra1.token)" -H '
    "'Content-Type: application/x-ndjson' --data-binary @flows.ndjson http://127.0.0.1:8080/v1/events": _POST,
    'curl -H "Authorization: Bearer $(cat ../control/alice.token)" http://127.0.0.1:8080/api/v1/clients': _API,
    'curl -H "Authorization: Bearer $(cat ../control/alice.token)" -H '
    """'Content-Type: application/json' --data '{"name": "lab", "addresses": ["10.20.9.0/24"]}' """
    "'http://127.0.0.1:8080/api/v1/resources?dry_run=true'": _API,
    "apt install -y git python3-venv wireguard-tools wireguard-go iproute2 nftables": _PACKAGES,
    "python3 -m venv /opt/tidegate": _PACKAGES,
    "/opt/tidegate/bin/pip install '.[client,gateway]'": _PACKAGES,
    "/opt/tidegate/bin/pip install '.[gateway]'": _PACKAGES,
    "/opt/tidegate/bin/pip install '.[client]'": _PACKAGES,
    "ln -sfn /opt/tidegate/bin/tidegate /usr/local/bin/tidegate": _PACKAGES,
    "git fetch origin '+refs/tidegate/*:refs/tidegate/*'": _REMOTE,
    "tidegate compile inventory --out out": _REMOTE,
    'tidegate publish out --to "$TARGET" --key "$KEY"': _REMOTE,
    "git push origin +refs/tidegate/published": _REMOTE,
    "tidegate publish out --to ssh://tidegate@gw1.example.net/bundles --key keys/signing.key": _SSH,
    "./run demo": _DEMO,
    "./run tests": "it would run itself",
    "systemctl enable --now tidegate-gateway": _SYSTEMD,
    "systemctl kill --kill-whom=main --signal=SIGUSR1 tidegate-gateway": _SYSTEMD,
    "./run deb": _HOSTS,
    "./run image": _HOSTS,
    "apt install ./tidegate_0.1.0_amd64_python3.11.deb": "tests/hosts/test_package.py (./run deb) does it with dpkg",
    "podman run --cap-add NET_ADMIN --device /dev/net/tun --security-opt unmask=/proc/sys --network host"
    " --volume /etc/tidegate:/etc/tidegate --volume /var/lib/tidegate:/var/lib/tidegate tidegate:0.1.0"
    " gateway run --bundles /var/lib/tidegate/bundles": _HOSTS,
    "curl --unix-socket /run/tidegate/gateway-metrics.sock http://localhost/metrics": _CURL,
    "systemctl enable --now tidegate-client": _SYSTEMD,
}


@dataclass(frozen=True)
class Fence:
    """A fenced block of a page; `line` is that of the opening fence."""

    page: str
    line: int
    language: str
    words: dict[str, str]
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def on(self) -> str:
        return self.words.get("on", "")

    @property
    def commands(self) -> list[str]:
        return commands(self.text)


def read(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def fences(page: str) -> Iterator[Fence]:
    """Yield every fenced block of a page."""
    opened: tuple[int, str] | None = None
    body: list[str] = []
    for number, line in enumerate(read(page).splitlines(), 1):
        if line.startswith("```"):
            if opened is None:
                opened, body = (number, line[3:].strip()), []
            else:
                language, _, rest = opened[1].partition(" ")
                words = dict(word.partition("=")[::2] for word in rest.split())
                yield Fence(page, opened[0], language, words, "\n".join(body) + "\n")
                opened = None
        elif opened is not None:
            body.append(line)
    assert opened is None, f"{page}:{opened}: a fence is not closed"


def shell_fences(page: str) -> list[Fence]:
    return [fence for fence in fences(page) if fence.language in SHELL]


def prose(page: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Return the commands of a block, a continued line or a here-document with its command; comments are left out."""
    found: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        command = re.sub(r"\s+# .*$", "", line)
        while command.endswith("\\"):
            command += "\n" + next(lines)
        here = re.search(r"<<'(\w+)'", command)
        while here and not command.endswith(f"\n{here[1]}"):
            command += "\n" + next(lines)
        found.append(command)
    return found
