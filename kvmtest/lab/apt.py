# SPDX-License-Identifier: GPL-2.0-only
"""Packages of another Debian suite from the mirror this machine is configured for, without a trace on the machine.

apt runs with a configuration of its own: the machine's proxies and other Acquire settings, but none of its hooks, and lists
and cache below `cache.home()`. Signatures are checked by apt as always, with the keyring that the machine's sources name.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable

from kvmtest.lab import cache, program
from kvmtest.lab.error import LabError, NotFound

__all__ = ("SUITES", "Apt")

#: Suites that have, or had, a kernel of their own; oldest first.
SUITES = ("bullseye", "bookworm", "trixie", "forky", "sid")
#: The metapackages that name a suite's kernel; the cloud flavour has all that a lab needs, and is smaller.
KERNELS = ("linux-image-cloud-amd64", "linux-image-amd64")
_IMAGE = "linux-(?:image|binary|modules)-"
_CONFIG = """\
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{home}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State "{home}/state";
Dir::State::status "/dev/null";
Dir::Cache "{home}/cache";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Log "{home}";
Acquire::GzipIndexes "true";
Acquire::Languages "none";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Sandbox::User "";
"""


def _run(command: list[str], **environment: str) -> str:
    if not shutil.which(command[0]):
        raise LabError(f"{command[0]} is not there: a Debian kernel needs apt; give --kernel a package or an image instead")
    done = program.run(command, text=True, errors="replace", env=os.environ | {"LC_ALL": "C"} | environment)
    if done.returncode:
        raise _AptError(command, done.stdout + done.stderr)
    return str(done.stdout)


class _AptError(LabError):
    """apt failed; the message is its first line."""

    def __init__(self, command: list[str], output: str) -> None:
        said = [line[2:].strip() for line in output.splitlines() if line.startswith(("E:", "W:"))]
        super().__init__(f"{command[0]} {command[1]}: {said[0] if said else output.strip() or 'failed'}")
        self.output = output


def _mirrors() -> list[tuple[str, str, str]]:
    """Of each Debian source of this machine: URI, suite, and the option that names its keyring. Raises LabError."""
    # Whatever apt makes of one-line and deb822 sources; an unset field is left as it was written.
    wanted = "$(REPO_URI)|$(RELEASE)|$(SIGNED_BY)|$(ORIGIN)|$(CREATED_BY)"
    found: dict[tuple[str, str, str], None] = {}
    for line in _run(["apt-get", "indextargets", "--format", wanted]).splitlines():
        uri, suite, signed, origin, kind = line.split("|", 4)
        debian = origin == "Debian" or re.search(r"/debian(-security)?/?$", uri)
        if debian and kind == "Packages":
            found[uri, suite, "" if signed.startswith("$(") else signed] = None
    if not found:
        raise LabError("this machine has no Debian mirror among its apt sources: give --kernel a .deb, an image or 'host'")
    return list(found)


def _keyring() -> str:
    for path in ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"):
        if os.path.exists(path):
            return path
    return ""


def _sources(suite: str) -> str:
    """The one-line sources of ``suite`` on this machine's mirrors."""
    base, _, part = suite.partition("-")
    lines: dict[str, None] = {}
    for uri, ours, signed in _mirrors():
        kind = ours.partition("-")[2] or (ours.partition("/")[2])
        if base in ("sid", "unstable", "experimental") and kind or part and kind:
            continue
        name = suite if not kind else f"{base}-{kind}"
        key = signed or _keyring()
        option = "[arch=amd64" + (f" signed-by={key}" if key else "") + "]"
        lines[f"deb {option} {uri} {name} main"] = None
    return "\n".join(lines) + "\n"


class Apt:
    """apt for one suite. Raises LabError where it cannot be used."""

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.home = os.path.join(cache.home(), "apt", suite)
        self._config = os.path.join(self.home, "apt.conf")
        #: The last result of `kernel`: apt needs seconds to search its lists.
        self._known = os.path.join(self.home, "kernel.json")

    def _apt(self, *command: str) -> str:
        return _run(list(command), APT_CONFIG=self._config)

    def update(self) -> None:
        """Get the lists of packages. Raises LabError."""
        try:
            for folder in ("state/lists/partial", "cache/archives/partial"):
                os.makedirs(os.path.join(self.home, folder), exist_ok=True)
            acquire = [line for line in _run(["apt-config", "dump"]).splitlines() if line.startswith("Acquire::")]
            acquire = [line for line in acquire if not line.startswith(("Acquire::Languages", "Acquire::GzipIndexes"))]
            for name, text in (("sources.list", _sources(self.suite)), ("apt.conf", _CONFIG.format(home=self.home))):
                with open(os.path.join(self.home, name), "w", encoding="utf-8") as file:
                    file.write(text + ("\n".join(acquire) + "\n" if name == "apt.conf" else ""))
        except OSError as error:
            raise LabError(f"cannot write to {self.home}: {error.strerror}") from error
        try:
            self._apt("apt-get", "update", "-qq", "-o", "APT::Update::Error-Mode=any")
        except _AptError as error:
            if not any(sign in error.output for sign in ("is expired", "404", "does not have a Release file")):
                raise
            self._again(error)

    def _again(self, error: _AptError) -> None:
        """An outdated mirror is good enough here; a suite need not have each part of another one."""
        options = []
        if "is expired" in error.output:
            said = f"the mirror's {self.suite} has expired; it is used anyway, as its signature is good"
            sys.stderr.write(f"kvmtest: {said}\n")
            options = ["-o", "Acquire::Check-Valid-Until=false"]
        try:
            self._apt("apt-get", "update", "-qq", *options)
        except _AptError as again:
            if "does not have a Release file" in again.output:
                raise NotFound(f"this machine's mirror has no suite {self.suite}: {again}") from None
            raise

    def known(self, say: Callable[[str], None], fresh: bool = False) -> list[tuple[str, str]]:
        """As `kernel`, of the lists that were got last; they are got where they never were, or if ``fresh``. Raises LabError."""
        if not fresh:
            with contextlib.suppress(OSError, ValueError, TypeError), open(self._known, encoding="utf-8") as file:
                return [(str(name), str(version)) for name, version in json.load(file)]
        say(f"getting {self.suite}'s list of packages from this machine's mirror")
        self.update()
        return self.kernel()

    def kernel(self) -> list[tuple[str, str]]:
        """Name and version of the packages that make the suite's newest kernel, the image's first. Raises LabError."""
        for meta in KERNELS:
            found = [pair for pair in self.closure(meta, of=_IMAGE) if pair[0] != meta]
            if found:
                found.sort(key=lambda pair: not pair[0].startswith("linux-image"))
                with contextlib.suppress(OSError), open(self._known, "w", encoding="utf-8") as file:
                    json.dump(found, file)
                return found
        raise LabError(f"{self.suite} on this machine's mirror has no {KERNELS[0]}")

    def closure(self, *names: str, of: str) -> list[tuple[str, str]]:
        """Name and version of ``names`` and of what they depend on whose names begin as the pattern ``of`` says."""
        found: dict[str, str] = {}
        queue = list(names)
        while queue:
            name = queue.pop()
            if name in found:
                continue
            try:
                record = self._apt("apt-cache", "show", "--no-all-versions", name)
            except LabError:
                continue
            fields = dict(re.findall(r"^([A-Z][\w-]*): (.*)$", record, re.MULTILINE))
            if "Version" not in fields:  # a name that only other packages provide
                continue
            found[name] = fields["Version"]
            depends = re.findall(rf"(?:^|(?<=[ ,]))(?:{of})[\w.+-]*", fields.get("Depends", ""))
            queue += [other for other in depends if other not in found]
        return list(found.items())

    def installation(self, *names: str) -> list[tuple[str, str]]:
        """Name and version of ``names`` and of all that they need on a machine that has nothing. Raises LabError."""
        said = self._apt("apt-get", "install", "--simulate", "--yes", "--no-install-recommends", *names)
        return re.findall(r"^Inst (\S+) \((\S+) ", said, re.MULTILINE)

    def download(self, packages: list[tuple[str, str]], folder: str) -> list[str]:
        """The packages' files, in ``folder``. Raises LabError, also where a signature or a checksum is wrong."""
        names = [f"{name}={version}" for name, version in packages]
        before = os.getcwd()
        try:
            # apt-get download has no option for where to put the files.
            command = ["sh", "-c", 'cd "$0" && exec apt-get download -qq "$@"', folder, *names]
            _run(command, APT_CONFIG=self._config)
        finally:
            os.chdir(before)
        return sorted(os.path.join(folder, file) for file in os.listdir(folder) if file.endswith(".deb"))
