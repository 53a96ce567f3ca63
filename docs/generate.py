# SPDX-License-Identifier: GPL-2.0-only
"""The man page and the shells' completions, from the parser of the command line: python docs/generate.py DIRECTORY

They lie in the directory as they do below /usr: share/man/man1, share/bash-completion/completions and so on. argparse-manpage and
shtab do the work; what is here adds what they leave out: the ends of the commands' help, and the names of items and selectors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAN = "share/man/man1/kvmtest.1"
COMPLETIONS = {
    "bash": "share/bash-completion/completions/kvmtest",
    "zsh": "share/zsh/site-functions/_kvmtest",
    "fish": "share/fish/vendor_completions.d/kvmtest.fish",
}
#: All that main() writes.
PATHS = (MAN, *COMPLETIONS.values())
_NAME = "check the state of a vCPU after RESET and INIT on this KVM"
_FILES = """\
.TP
.I /dev/kvm
The KVM under test. kvmtest needs read and write access to it, and no other privilege.
.TP
.I ~/.cache/kvmtest
Kernels and the initramfs of the lab.
"""
#: Arguments whose value is a path.
_PATHS = {"FILE": "FILE", "PATH": "FILE", "DIR": "DIRECTORY"}


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser of each command, followed by those of lab's commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield command
                yield from commands(command)


def selectors() -> list[str]:
    """Return the beginnings of selectors to complete: each event, trigger and view, and `event.trigger`."""
    from kvmtest.engine import plan

    prefixes = dict.fromkeys(case.prefix for case in plan.plan())
    parts = [".".join(prefix.split(".")[:count]) for prefix in prefixes for count in (1, 2, 3)]
    return sorted(dict.fromkeys(parts))


def items() -> list[str]:
    """The name of every item that has a rule."""
    from kvmtest import spec

    return sorted(spec.ENTRIES)


def man_page() -> str:
    """kvmtest(1) in man(7)."""
    from argparse_manpage.manpage import Manpage

    from kvmtest import __version__
    from kvmtest.cli import parser

    made = parser()
    made._positionals.title = "commands"
    data = {"project_name": "kvmtest", "version": __version__, "manual_title": "User Commands", "description": _NAME}
    page = Manpage(made, data, format="single-commands-section")
    page.add_section("files", ">", _FILES)
    ends: dict[str, list[str]] = {}
    for command in commands(made):
        if command.epilog:
            ends.setdefault(command.epilog, []).append(command.prog)
    for epilog, names in ends.items():
        page.add_section(f"notes on {', '.join(names)}", ">", "\n".join(_roff(epilog)))
    page.add_section("see also", ">", ".BR qemu (1),\n.BR pytest (1)")
    first, rest = str(page).split("\n", 1)
    # mandoc knows dates with plain hyphens only; without .nh an option may be hyphenated.
    return first.replace("\\-", "-") + "\n.nh\n" + rest


def _roff(text: str) -> Iterator[str]:
    """Plain text of a help: paragraphs to fill, and indented lines as they are."""
    for i, paragraph in enumerate(groupby(text.strip().split("\n"), lambda line: (line.startswith(" "), not line))):
        (verbatim, blank), lines = paragraph
        if blank:
            continue
        if i:
            yield ".PP"
        escaped = [line.replace("\\", "\\e").replace("-", "\\-") for line in lines]
        escaped = ["\\&" + line if line.startswith((".", "'")) else line for line in escaped]
        yield from [".nf", *escaped, ".fi"] if verbatim else escaped


def completion(shell: str) -> str:
    """The completion for ``shell``, one of COMPLETIONS."""
    import shtab

    from kvmtest.cli import parser

    made = parser()
    for command in (made, *commands(made)):
        for action in command._actions:
            if action.metavar == "SELECTOR":
                action.choices = selectors()
            elif action.metavar == "ITEM|CASE|COMMIT":
                action.choices = items()
            elif action.metavar in _PATHS:
                action.complete = getattr(shtab, _PATHS[action.metavar])  # type: ignore[attr-defined]
    return str(shtab.complete(made, shell=shell))


def main(folder: Path) -> None:
    """Write everything below ``folder``."""
    made = {MAN: man_page()} | {path: completion(shell) for shell, path in COMPLETIONS.items()}
    for path, text in made.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.path.insert(0, str(ROOT))
    main(Path(sys.argv[1]))
