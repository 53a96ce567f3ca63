# SPDX-License-Identifier: GPL-2.0-only
"""Hosts that are network namespaces: each with an address and an SSH daemon of its own, all with this machine's files and KVM."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

__all__ = ("Hosts", "hosts")

_SSHD = "/usr/sbin/sshd"
_CONFIG = """\
Port 22
HostKey {folder}/key
PidFile {folder}/{name}.pid
AuthorizedKeysFile {folder}/user.pub
PermitRootLogin yes
StrictModes no
UsePAM no
PrintMotd no
SetEnv TMPDIR={folder}
Subsystem sftp internal-sftp
"""


class Hosts:
    """``names`` are host names by address. ``inside`` is what to write before a command that is to reach them by ``options``."""

    def __init__(self, folder: Path, tag: str, names: Sequence[str]) -> None:
        self._folder, self._tag = folder, tag
        self.addresses = {name: f"10.213.{number}.2" for number, name in enumerate(names, 1)}
        self.inside = ("ip", "netns", "exec", f"{tag}-here")
        self.options = (
            f"-i {folder}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
            " -o ControlMaster=no -o ConnectTimeout=5 -o ServerAliveInterval=2 -o ServerAliveCountMax=3"
        )

    def up(self) -> None:
        """Make the namespaces and the lines between this one and the others. Raises CalledProcessError."""
        for name in ("user", "key"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._folder / name))
        _run("ip", "netns", "add", f"{self._tag}-here")
        for number, (name, address) in enumerate(self.addresses.items(), 1):
            there, line = f"{self._tag}-{name}", f"{self._tag}{number}"
            _run("ip", "netns", "add", there)
            _run("ip", "link", "add", line, "netns", f"{self._tag}-here", "type", "veth", "peer", "name", "eth0", "netns", there)
            for space, device, own in ((f"{self._tag}-here", line, f"10.213.{number}.1"), (there, "eth0", address)):
                _run("ip", "-n", space, "addr", "add", f"{own}/24", "dev", device)
                _run("ip", "-n", space, "link", "set", device, "up")
                _run("ip", "-n", space, "link", "set", "lo", "up")

    def serve(self, name: str) -> None:
        """Start the SSH daemon of a host."""
        config = self._folder / f"{name}.conf"
        config.write_text(_CONFIG.format(folder=self._folder, name=name))
        _run("ip", "netns", "exec", f"{self._tag}-{name}", _SSHD, "-f", str(config))

    def processes(self, name: str, words: str) -> list[int]:
        """The processes of a host whose command line has ``words``."""
        done = subprocess.run(["ip", "netns", "pids", f"{self._tag}-{name}"], capture_output=True, text=True)
        found = []
        for pid in done.stdout.split():
            with contextlib.suppress(OSError):
                if words in Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                    found.append(int(pid))
        return found

    def unplug(self, name: str) -> None:
        """Take a host's line down: from then on it does not answer."""
        _run("ip", "-n", f"{self._tag}-{name}", "link", "set", "eth0", "down")

    def down(self) -> None:
        """End what runs on the hosts, and remove them."""
        for name in self.addresses:
            for pid in self.processes(name, ""):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for name in ("here", *self.addresses):
            subprocess.run(["ip", "netns", "del", f"{self._tag}-{name}"], capture_output=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@contextlib.contextmanager
def hosts(folder: Path, names: Sequence[str]) -> Iterator[Hosts]:
    """Yield hosts of those ``names``; skips the test where there can be none."""
    if missing := [tool for tool in (_SSHD, "ssh", "ssh-keygen", "ip") if not shutil.which(tool)]:
        pytest.skip(f"{', '.join(missing)} not installed (apt-get install openssh-server openssh-client iproute2)")
    if os.geteuid():
        pytest.skip("only root can make network namespaces")
    os.makedirs("/run/sshd", exist_ok=True)
    made = Hosts(folder, f"kt{os.getpid() % 100_000}", names)
    try:
        try:
            made.up()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        yield made
    finally:
        made.down()


