# SPDX-License-Identifier: GPL-2.0-only
"""Jobs in cells of the lab: their results, and their progress."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kvmtest.commands import cells
from kvmtest.commands.common import UNTESTABLE, USAGE, Failed, Interrupt, say
from kvmtest.lab.emulator import BACKENDS

if TYPE_CHECKING:
    from kvmtest.engine.plan import Case
    from kvmtest.lab.steps import Executed
    from kvmtest.model.host import Host

__all__ = ("results", "options")


def options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the options that choose a cell: backend, kernel and the rest."""
    parser.add_argument("--backend", choices=BACKENDS, help=f"run in a cell of the lab: {cells.BACKEND_HELP}")
    what = "the kernel, as in kvmtest lab run"
    parser.add_argument("--kernel", metavar="WHICH", required=required, help=what)
    cells.options(parser)


def results(
    args: argparse.Namespace,
    job: dict[str, Any],
    stop: Interrupt,
    selectors: tuple[str, ...] = (),
    cases: tuple[Case, ...] = (),
    bad: Callable[[], None] = lambda: None,
    executed: Callable[[Executed], None] | None = None,
) -> Iterator[tuple[Host | None, Any]]:
    """Yield the host in the cell of ``args``, and each result of ``job``; ``bad`` is called if its kernel logged an
    incident or died, ``executed`` with what instrumented modules say.

    It ends where ``stop`` is seen. Raises Failed.
    """
    from kvmtest.lab import cell, kernels, steps
    from kvmtest.lab.error import Cancelled, LabError, NotFound

    boot, host = cells.Boot(), None
    try:
        cells.check(args)
        kernel = kernels.find(args.kernel, args.modules, say)
        timeout = getattr(args, "timeout", 1.0)
        (cpu,) = cells.cpus(args)
        parameters = cells.together(args.module_param)
        spec = steps.Spec(cells.backend(args), kernel, selectors, timeout, args.kvm_modules, parameters, cpu=cpu)
        spec = spec._replace(fresh_boot=args.fresh_boot, cases=cases, job=job, coverage=executed is not None)
        running = cell.Cell(spec, stop).steps()
        try:
            for step in stop.each(running):
                if isinstance(step, steps.Booting):
                    boot.show(step)
                    continue
                boot.over()
                if isinstance(step, steps.Begin):
                    host = step.host
                elif isinstance(step, steps.Answer):
                    yield host, step.value
                elif isinstance(step, steps.Executed) and executed:
                    executed(step)
                elif isinstance(step, list):
                    for result in (one for of in step for one in of.attention):
                        say(f"{result.id}: {result.record.reason}")
                        bad()
        finally:
            running.close()
            boot.over()
    except Cancelled:
        return
    except NotFound as error:
        raise Failed(str(error), USAGE) from None
    except LabError as error:
        raise Failed(str(error), UNTESTABLE) from None
