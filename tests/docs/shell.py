# SPDX-License-Identifier: GPL-2.0-only
"""kvmtest's command lines in the documentation and in the ends of --help: the words of each, without the shell around them."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from kvmtest.cli import parser

__all__ = ("COMMANDS", "MENTIONED", "PAGES", "ROOT", "examples", "helps", "mentions", "parsers")

ROOT = Path(__file__).parents[2]
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in (*ROOT.glob("*.md"), *sorted(ROOT.glob("docs/*.md")))}
_BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`((?:[^`\s]*/)?kvmtest [^`]+)`")
_COMMENT = re.compile(r"(?:^|\s+)#\s.*$", re.MULTILINE)
#: In a line of an example, what is said of it.
_SAID = re.compile(r"^( +\S.*?)\s{2,}\S.*$")
_ENDS = frozenset(";&|()<>")


def parsers(made: argparse.ArgumentParser, *names: str) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """The parser of each command and its own, by the words that name it."""
    yield names, made
    for action in made._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from parsers(command, *names, name)


def helps() -> str:
    """The examples of every --help, a line each."""
    lines = (line for _, one in parsers(parser()) for line in (one.epilog or "").splitlines() if line.startswith("  "))
    return "\n".join(_SAID.sub(r"\1", line) for line in lines)


def examples(text: str) -> Iterator[tuple[str, ...]]:
    """The words of each kvmtest that the shell's lines ``text`` start, but of those with "...", which stands for anything."""
    for line in _COMMENT.sub("", text.replace("\\\n", " ")).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.commenters, lexer.wordchars = "", lexer.wordchars + "{}[]!,:@%+^#$"
        # Those of a command in which another one stands wait for its end.
        words, outer = [], []
        tokens = iter((*lexer, ";"))
        for word in tokens:
            if word == "<(":
                outer.append([*words, "FILE"])
                words = []
            elif word in ("<", ">"):
                next(tokens)
            elif not _ENDS & set(word):
                words.append(word)
            else:
                names = [i for i, one in enumerate(words) if Path(one).name == "kvmtest"]
                if names and words[names[0] + 1 :] and not any("..." in one for one in words):
                    yield tuple(words[names[0] + 1 :])
                words = outer.pop() if word == ")" and outer else []


def mentions(text: str) -> Iterator[tuple[str, ...]]:
    """The words of each command that the running text mentions in backticks."""
    for found in _INLINE.findall(_BLOCK.sub("", text)):
        yield tuple(" ".join(found.split()).replace("\\|", "|").split()[1:])


COMMANDS = sorted(
    {words for text in PAGES.values() for block in _BLOCK.findall(text) for words in examples(block)} | set(examples(helps()))
)
MENTIONED = sorted({words for text in PAGES.values() for words in mentions(text)})
