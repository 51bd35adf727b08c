"""The recipes of package and image, without building: the files, commands and settings that they name are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate_agents import settings
from tidegate_agents.doctor.checks import kernel

ROOT = Path(__file__).parents[3]
RECIPES = ROOT / "agents/packaging"
sys.path.append(str(RECIPES))
import closure  # noqa: E402 - the recipes are no package
import deb  # noqa: E402
import image  # noqa: E402
import tree  # noqa: E402

SCRIPTS = ("postinst", "prerm", "postrm")
MACHINES = sorted(tree.DEBIAN)


@pytest.mark.parametrize("script", SCRIPTS)
def test_maintainer_scripts_are_plain_shell_that_stops_at_an_error(script: str) -> None:
    path = RECIPES / "debian" / script
    subprocess.run(["sh", "-n", path], check=True)
    assert path.read_text().startswith("#!/bin/sh\nset -e\n")


@pytest.mark.parametrize("script", SCRIPTS)
def test_units_that_a_script_names_are_there(script: str) -> None:
    units = {path.name for path in (ROOT / "agents/tidegate_agents/systemd").iterdir()}
    named = set(re.findall(r"tidegate-[a-z]+(?:@\*)?\.service", (RECIPES / "debian" / script).read_text()))
    assert {name.replace("@*", "@") for name in named} <= units


def test_the_key_is_taken_away_by_a_purge_and_by_nothing_else() -> None:
    for script in SCRIPTS:
        text = (RECIPES / "debian" / script).read_text()
        before, _, purge = text.partition("    purge)\n")
        assert not re.search(r"rm .*(/etc|/var|/run)", before), script
        assert ("rm -rf /etc/tidegate /var/lib/tidegate" in purge) == (script == "postrm")


def test_nothing_is_enabled_or_started_by_an_installation() -> None:
    words = r"systemctl[^\n]* (start|restart|enable|preset|reload-or-restart)\b"
    assert not re.search(words, "".join((RECIPES / "debian" / script).read_text() for script in SCRIPTS))


def test_the_users_are_those_of_the_settings() -> None:
    chosen = settings.defaults("gateway")
    postinst = (RECIPES / "debian/postinst").read_text()
    for name, user in (("forwarder_uid", "tidegate-forwarder"), ("flusher_uid", "tidegate-flusher")):
        assert f"add_user {user} {chosen[name]} {name}\n" in postinst


def test_package_and_image_bring_every_program_that_an_agent_runs() -> None:
    packages = {"wg": "wireguard-tools", "wg-quick": "wireguard-tools", "ip": "iproute2", "nft": "nftables"}
    control = (RECIPES / "debian/control").read_text()
    depends = re.search(r"^Depends: (.*)$", control, re.MULTILINE)
    assert depends is not None
    for name in {name for kind in kernel.TOOLS.values() for name in kind}:
        assert packages[name] in depends[1]
        assert packages[name] in image.BASE
    assert "wireguard-go" in image.BASE
    assert "wireguard-go" in control


def test_the_image_s_recipe_is_of_things_that_are_there() -> None:
    recipe = (RECIPES / "Containerfile").read_text()
    lines = [line for line in recipe.splitlines() if line and not line.startswith("#")]
    assert [line.split()[0] for line in lines] == [
        *("ARG", "FROM", "COPY", "RUN", "VOLUME", "STOPSIGNAL", "ENTRYPOINT", "CMD"),
    ]
    assert "COPY tidegate.deb /tmp/tidegate.deb" in recipe  # what image.py puts into the context
    assert 'ENTRYPOINT ["/usr/bin/tidegate"]' in recipe  # what deb.py links
    assert 'root / "usr/bin/tidegate"' in Path(deb.__file__).read_text()
    assert not re.search(
        r"https?://|curl|wget|ADD ", recipe
    )  # nothing comes in but by the lock and apt's signatures


@pytest.mark.parametrize("machine", MACHINES)
def test_a_host_gets_what_pyproject_declares_and_nothing_to_work_with(machine: str) -> None:
    names = set(closure.lock_of("3.11", machine))
    assert {"click", "cryptography", "watchfiles", "pyroute2", "python-pytun", "h11"} <= names
    assert names.isdisjoint({"pytest", "ruff", "mypy", "nox", "hatchling", "setuptools", "aerleon", "pip"})


@pytest.mark.parametrize("machine", MACHINES)
def test_every_file_that_gets_in_has_a_hash(machine: str) -> None:
    for entry in closure.lock_of("3.13", machine).values():
        assert "--hash=sha256:" in entry
    options = tree.wheel_options("3.11", machine)
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(options)
    assert f"--platform=manylinux_2_{tree.GLIBC}_{machine}" in options
    assert f"libc6 (>= 2.{tree.GLIBC})" in (RECIPES / "debian/control").read_text()
