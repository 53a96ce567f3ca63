# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest lab try``."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from kvmtest.commands import cells, common, outcome, progress, report, repro, run
from kvmtest.commands.common import INTERRUPTED, RAW, UNEXPECTED, UNTESTABLE, USAGE, Failed, Interrupt
from kvmtest.lab.emulator import BACKENDS
from kvmtest.lab.error import LabError, NotFound
from kvmtest.report.play import Unwritten, play
from kvmtest.report.show import count, repeat

if TYPE_CHECKING:
    from kvmtest.compare.baseline import Comparison
    from kvmtest.lab.tree import Change
    from kvmtest.lab.trial import Broken, Ran, Trial
    from kvmtest.model.run import Run

__all__ = ("add", "show")

_EPILOG = """\
Builds kvm.ko, kvm-amd.ko and kvm-intel.ko from the tree before and after the change, out of tree, against the headers of the
lab's kernel that is nearest to the tree's version, and tests both in cells of that kernel. No kernel is built, nothing is
installed, and the tree is not changed. The first build takes a minute or two; later ones only build the files that differ.

  kvmtest lab try --tree ~/linux                          the last commit: HEAD against its parent
  kvmtest lab try --tree ~/linux 4c72ab5aa6e0             another commit
  kvmtest lab try --tree ~/linux v6.12..HEAD              a series, as a whole
  kvmtest lab try --tree ~/linux --uncommitted            uncommitted changes, against HEAD
  kvmtest lab try --tree ~/linux --diff fix.patch         a patch on top of HEAD; - is standard input
  kvmtest lab try --tree ~/linux --backend svm HEAD init sipi           on one backend, only INIT and SIPI
  kvmtest lab try --tree ~/linux --kernel 6.1 HEAD                      in cells of another kernel
  kvmtest lab try --tree ~/linux --report json=both.json HEAD           save the results of both sides

The report lists the findings that are new, gone, or have another value, each with the command that runs its example again; and
the changed lines that no case ran, which are therefore not tested. For the first findings that are new or gone it names the
command that writes a C program; --repro DIR writes these programs, in one more cell for each side. Changes outside of KVM's
modules have no effect. Cells of vmx, in Bochs, take ten times as long as those of svm; a change in svm/ or vmx/ alone is tested
on that backend alone.

Exit status: 0 no new failures; 1 new failures or time-outs; 2 usage error, or no such commit; 3 a side does not build, or nothing
could be tested; 130 interrupted.
"""
_FOLD = 6
#: C programs for each side of a comparison.
_PROGRAMS = 4


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``try``."""
    parser = verbs.add_parser("try", help="show what a commit of your kernel tree changes", epilog=_EPILOG, formatter_class=RAW)
    parser.add_argument("--tree", required=True, metavar="DIR", help="a kernel tree; for a commit, a git repository")
    parser.add_argument("change", nargs="?", metavar="COMMIT", help="a commit, or A..B (default: HEAD)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--uncommitted", action="store_true", help="try uncommitted changes, against HEAD")
    what.add_argument("--diff", metavar="PATCH", help="try a unified diff, on top of COMMIT")
    what_kernel = "the kernel of the cells, as in kvmtest lab run (default: the lab's nearest to the tree)"
    parser.add_argument("--kernel", metavar="WHICH", help=what_kernel)
    parser.add_argument("--backend", type=_backends, metavar="svm|vmx|both", help="default: the backends that the change affects")
    no = "do not record which lines are run"
    parser.add_argument("--no-coverage", dest="coverage", action="store_false", help=no)
    what_c = "write into DIR a C program for each of the first findings that are new or gone"
    parser.add_argument("--repro", metavar="DIR", help=what_c)
    parser.add_argument("--jobs", type=cells.number, metavar="N", help="number of cells at once (default: by cores and memory)")
    run.options(parser)
    cells.options(parser, own=False)


def _backends(text: str) -> list[str]:
    return list(BACKENDS) if text == "both" else cells.backends(text)


def _change(args: argparse.Namespace, work: str) -> Change:
    """Unpack the change that was asked for into ``work``. Raises LabError, Failed."""
    from kvmtest.engine import plan
    from kvmtest.model.select import SelectorError
    from kvmtest.spec import commits

    if wrong := [one for one in args.commit if not commits.find(one)]:
        why = f"--commit selects results by a commit of kvmtest series, which has no {wrong[0]}"
        raise Failed(f"{why}; to try a commit, give it without an option: {wrong[0]}", USAGE)
    try:
        return _asked(args, args.change or "", work)
    except NotFound as error:
        with contextlib.suppress(SelectorError):
            if args.change and plan.finds(args.change):
                raise Failed(f"{error}; a SELECTOR comes after a COMMIT: HEAD {args.change}", USAGE) from None
        raise


def _asked(args: argparse.Namespace, name: str, work: str) -> Change:
    from kvmtest.lab import tree

    if args.uncommitted:
        if name:
            raise Failed(f"--uncommitted compares with HEAD: leave out {name}", USAGE)
        return tree.uncommitted(args.tree, work)
    if not args.diff:
        return tree.committed(args.tree, name or "HEAD", work)
    return tree.patched(args.tree, name, common.text(args.diff), work)


def _backends_of(args: argparse.Namespace, change: Change) -> list[str]:
    """The backends of the cells: those whose code the change has, unless --backend names some; on this host's own KVM its own."""
    return cells.chosen(args) if args.backend or args.accel == "kvm" else sorted(change.vendors)


def _which(args: argparse.Namespace, change: Change) -> str:
    """The kernel whose cells it is to be. Raises Failed."""
    from kvmtest.lab import kernels

    if args.kernel:
        return str(args.kernel)
    if not change.version:
        raise Failed(f"{args.tree}/Makefile does not say which version this is: name the lab's kernel with --kernel", USAGE)
    return kernels.nearest(change.version)[0]


def show(args: argparse.Namespace, stop: Interrupt) -> int:
    """Build, run, and report. Raises LabError, Failed."""
    from kvmtest.lab import cache, trial

    line = progress.Line()
    args.kvm_modules = ""
    if args.repro and not os.path.isdir(args.repro):
        raise Failed(f"--repro: no such folder: {args.repro}", USAGE)
    with cache.scratch("trees") as work:
        change = _change(args, work)
        specs = cells.specs(args, _backends_of(args, change), [_which(args, change)])
        kernel = specs[0].kernel
        line.say(f"{change.new} against {change.old}, Linux {change.version or 'of no version'}, in cells of {kernel.release}")
        try:
            built = trial.builds(change, kernel, args.coverage, line.say, line.show)
        except trial.Broken as error:
            raise Failed("\n".join(_broken(error, change)), UNTESTABLE) from None
        finally:
            line.over()
    pairs = trial.pairs(change, built, specs, common.now(), progress.Cells(line).take)
    return _tried(args, stop, line, trial.Trial(change, kernel, built, pairs))


def _broken(error: Broken, change: Change) -> Iterator[str]:
    from kvmtest.lab import kernels

    yield f"{error.side} does not build against the headers of {error.release}:"
    yield from (f"  {text}" for text in error.errors)
    if error.side == change.new:
        yield f"{change.old} does: it is the change that does not"
    else:
        others = ", ".join(kernels.nearest(change.version))
        yield f"the tree is Linux {change.version or 'of no version'}; the headers of another kernel may do: --kernel {others},"
        yield "or a kernel that you built: --kernel BZIMAGE --modules DIR, which has DIR/build or /lib/modules/RELEASE/build"


class _Text(Unwritten):
    """A text report that is written when all cells have ended."""

    def __init__(self, out: TextIO) -> None:
        self.out = out


def _tried(args: argparse.Namespace, stop: Interrupt, line: progress.Line, tried: Trial) -> int:
    from kvmtest.compare.baseline import compare
    from kvmtest.lab import matrix

    outcomes = [one for pair in tried.pairs for one in (pair.before, pair.after)]
    texts: list[_Text] = []

    def text(out: TextIO) -> _Text:
        texts.append(_Text(out))
        return texts[-1]

    with report.writing(args, len(outcomes), live=False, text=text) as to:
        try:
            matrix.run(outcomes, args.jobs, line.say, stop)
        finally:
            line.over()
        runs = [play(one.run, to) for one in outcomes if one.run]
        if stop.seen:
            line.say("interrupted; the results so far are in the reports")
            return INTERRUPTED
        if failed := [one for one in outcomes if one.failed]:
            raise LabError(f"{failed[0].name}: {failed[0].failed}")
        before, after = runs[::2], runs[1::2]
        compared = [compare(old, new, args.strict, run.chosen(args)) for old, new in zip(before, after, strict=True)]
        for out in [one.out for one in texts] or [outcome.out(args)]:
            common.print_lines(_lines(tried, compared, not args.repro), out)
            out.flush()
    if args.repro:
        _write(args, stop, tried, compared)
    return UNEXPECTED if any(one.failed for one in compared) else outcome.none_new(after)


def _lines(tried: Trial, compared: Sequence[Comparison], programs: bool) -> Iterator[str]:
    from kvmtest.compare import changes

    change = tried.change
    yield change.title
    for name in change.diff:
        added, removed = change.counts(name)
        yield f"  {name}  +{added} -{removed}"
    if change.outside:
        more = f" and {len(change.outside) - _FOLD} more" if len(change.outside) > _FOLD else ""
        yield f"  outside KVM's modules, so not built (the lab kernel's is used): {', '.join(change.outside[:_FOLD])}{more}"
    yield from changes.lines(compared, hosts=False)
    yield ""
    yield from _coverage(tried.ran())
    commands = [repeat(of.host, one) for found in compared for of, selectors in _shown(found) for one in selectors]
    if programs and commands:
        yield ""
        yield "Each as a C program, to standard output; --repro DIR writes them all:"
        yield from (f"  {command.replace('kvmtest lab run', 'kvmtest repro', 1)}" for command in commands)


def _shown(compared: Comparison) -> Iterator[tuple[Run, tuple[str, ...]]]:
    """Yield the selectors of the first findings that a C program can reproduce, by the run that has them."""
    from kvmtest.compare import changes

    found: dict[str, tuple[Run, dict[str, None]]] = {}
    for of, cause in changes.causes(compared):
        # The kernel's log and its death are not results of a vCPU.
        if not cause.example.id.startswith("none.lab."):
            found.setdefault(of.name, (of, {}))[1][cause.example.selector] = None
    yield from ((of, tuple(selectors)[:_PROGRAMS]) for of, selectors in found.values())


def _write(args: argparse.Namespace, stop: Interrupt, tried: Trial, compared: Sequence[Comparison]) -> None:
    """Write the C programs of the first findings: each side's in a cell. What has none, or no cell, is said."""
    from kvmtest.model.select import SelectorError

    for pair, found in zip(tried.pairs, compared, strict=True):
        for of, selectors in _shown(found):
            spec = (pair.after if of is found.run else pair.before).spec
            own = {"backend": spec.backend, "kernel": args.kernel or spec.kernel.name, "kvm_modules": spec.own_modules}
            also = {"output": args.repro, "no_minimise": False, "small_guest": False, "style": "c", "scenario": [], "device": ""}
            try:
                repro.written(argparse.Namespace(**vars(args) | own | also), args.repro, selectors, (), stop)
            except (Failed, SelectorError) as error:
                common.say(str(error))


def _coverage(ran: Ran | None) -> Iterator[str]:
    """Report which of the changed lines were executed."""
    if ran is None:
        yield "Which lines of the change the cases ran was not recorded."
        return
    code = len(ran.run) + len(ran.missed)
    if not code and not ran.elsewhere:
        yield "Lines of the change: none of those that it adds has code, so that none can be run."
        return
    end = ", and these by none:" if ran.missed else ""
    cases = count(len(ran.cases), "case")
    yield f"Lines of the change: {len(ran.run)} of {count(code, 'line')} with code were run, by {cases}{end}"
    yield from (f"  {file}:{line}  {text}" for (file, line), text in ran.missed.items())
    if ran.elsewhere:
        file, line = next(iter(ran.elsewhere))
        yield f"In a module that these cells do not load: {count(len(ran.elsewhere), 'line')}, the first is {file}:{line}"
