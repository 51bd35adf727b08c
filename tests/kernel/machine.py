"""An emulated machine that runs Debian's packaged kernel over this machine's own files.

    qemu (software emulation)
      kernel, initramfs     unpacked by ./run into .nox/kernel, nothing installed; the modules are loaded in order
      /                     this machine's, by 9p, read-only: same Python, same tools, same tree
      /run, /dev/shm        empty, in memory; all that can be written to
      ttyS0                 the console: kernel, and what the command prints
      ttyS1                 what the command has to tell

The command is the first process; when it ends, so does the machine. Emulation makes Python some twenty times slower.
"""

from __future__ import annotations

import lzma
import os
import platform
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

KERNEL = Path(__file__).resolve().parents[2] / ".nox" / "kernel"
QEMU = "qemu-system-x86_64"
WRITABLE = "/dev/shm"
TOLD_FILE = "/dev/ttyS1"
"""Where the command tells something."""
# crc32c is found by name when it is wanted, so that no module says that it depends on it.
MODULES = (
    *("crc32c_generic", "virtio_pci", "9pnet_virtio", "9p"),
    *("wireguard", "tun", "veth", "bridge"),
    *("nf_tables", "nft_ct", "nft_masq", "nft_chain_nat", "nft_fib_inet", "nf_conntrack_netlink"),
    *("nft_limit", "nft_connlimit", "nft_objref"),
)
INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs devtmpfs /dev
for module in {modules}; do insmod /modules/$module.ko; done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 host /root
mount -t proc proc /root/proc
mount -t sysfs sysfs /root/sys
mount -t devtmpfs devtmpfs /root/dev
mount -t tmpfs tmpfs /root/run
ln -s /proc/self/fd /root/dev/fd
ln -s /proc/self/fd/0 /root/dev/stdin
mkdir /root/dev/shm
mount -t tmpfs -o mode=755 tmpfs /root/dev/shm
exec switch_root /root /bin/sh -c "$(cat /command)"
"""


def why_not() -> str | None:
    """Return why this machine cannot emulate one, in one line, or None when it can."""
    if platform.machine() != "x86_64":
        return f"this machine is {platform.machine()}"
    missing = [name for name in (QEMU, "setpriv") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if not (KERNEL / "stamp").exists():
        return "./run has fetched no kernel: it takes Debian's package linux-image-amd64"
    return None


class Machine:
    """A running machine. Its console, what it tells and its process ID are files in a directory."""

    def __init__(
        self, directory: Path, command: Sequence[str], environment: Mapping[str, str], where: Path
    ) -> None:
        """Start it; `command` runs in the directory `where`, and its files here are in `directory`."""
        console, told_ = directory / "console", directory / "told"
        told_.touch()
        initramfs = directory / "initramfs"
        initramfs.write_bytes(_initramfs(_script(command, environment, where)))
        # Who is killed leaves no machine behind.
        arguments = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            QEMU,
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ]
        arguments += ["-accel", "tcg", "-cpu", "max", "-m", "1024"]
        arguments += ["-kernel", str(_one("boot/vmlinuz-*")), "-initrd", str(initramfs)]
        # One processor, whose own counter is the clock: with two, Linux takes the HPET, and each look at it leaves the
        # emulation (measured: twice the processor time in all). Mitigations protect nobody here.
        arguments += ["-append", "console=ttyS0 quiet panic=-1 mitigations=off"]
        arguments += ["-serial", f"file:{console}", "-serial", f"file:{told_}"]
        arguments += ["-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"]
        arguments += ["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]
        with (directory / "qemu").open("wb") as said:
            self._process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        (directory / "pid").write_text(str(self._process.pid))

    def end(self) -> None:
        """Switch it off."""
        self._process.kill()
        self._process.wait()


def told(directory: Path, silence: float) -> Iterator[str]:
    """Yield each line that a machine's command tells; ends with the machine, or after so many seconds without one."""
    heard, deadline = 0, time.monotonic() + silence
    while time.monotonic() < deadline:
        is_over = (directory / "pid").exists() and not is_at_work(directory)
        text = (directory / "told").read_text(errors="replace") if (directory / "told").exists() else ""
        for line in text.splitlines(keepends=True)[heard:]:
            if line.endswith("\n"):
                heard, deadline = heard + 1, time.monotonic() + silence
                yield line.rstrip()
        if is_over:
            return
        time.sleep(0.1)


def is_at_work(directory: Path) -> bool:
    """Tell whether a machine runs, for whoever has not started it."""
    try:
        process = int((directory / "pid").read_text())
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return False
    return state != "Z"


def _script(command: Sequence[str], environment: Mapping[str, str], where: Path) -> str:
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    lines += [f"cd {shlex.quote(str(where))}", f"{shlex.join(command)} </dev/null"]
    # The first process must not end: the kernel would panic. With -no-reboot this is how to switch off.
    return "\n".join([*lines, "echo b >/proc/sysrq-trigger", "sleep 60", ""])


def _one(pattern: str) -> Path:
    return next(iter(KERNEL.glob(pattern)))


def _initramfs(command: str) -> bytes:
    """Return a cpio archive, as the kernel's Documentation/driver-api/early-userspace/buffer-format.rst has it."""
    modules = _modules()
    entries = [_entry(name, 0o40755) for name in ("bin", "dev", "modules", "root")]
    entries.append(_entry("bin/busybox", 0o100755, (KERNEL / "bin/busybox").read_bytes()))
    entries.append(_entry("init", 0o100755, INIT.format(modules=" ".join(modules)).encode()))
    entries.append(_entry("command", 0o100644, command.encode()))
    entries += [_entry(f"modules/{name}.ko", 0o100644, data) for name, data in modules.items()]
    return b"".join([*entries, _entry("TRAILER!!!", 0)])


def _entry(name: str, mode: int, data: bytes = b"") -> bytes:
    path = os.fsencode(name) + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + path
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def _modules() -> dict[str, bytes]:
    """Return the modules by name, each behind those it depends on; what is built into the kernel is not among them."""
    files = {path.name.partition(".")[0].replace("-", "_"): path for path in KERNEL.rglob("*.ko*")}
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in files and name not in found:
            data = files[name].read_bytes()
            if files[name].suffix == ".xz":
                data = lzma.decompress(data)
            depends = re.search(rb"\0depends=([^\0]+)\0", data)
            for other in depends[1].decode().split(",") if depends else ():
                add(other.replace("-", "_"))
            found[name] = data

    for name in MODULES:
        add(name)
    return found
