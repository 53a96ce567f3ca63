# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest run --coverage FILE``: which of this KVM's code each case runs, by its kernel's CONFIG_KCOV."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from kvmtest.commands import common
from kvmtest.commands.common import UNTESTABLE, Failed, say
from kvmtest.commands.output import opened

if TYPE_CHECKING:
    from kvmtest.kvm import Kvm
    from kvmtest.model.host import Host

__all__ = ("options", "recording")


def options(parser: argparse.ArgumentParser) -> None:
    """Add ``--coverage``."""
    what = "write KVM's code coverage by case to FILE (needs CONFIG_KCOV); kvmtest lab coverage --from FILE shows it"
    parser.add_argument("--coverage", metavar="FILE", help=what)
    what = "with --coverage: folder of KVM's modules, not stripped (default: /lib/modules/RELEASE)"
    parser.add_argument("--kvm-modules", metavar="DIR", help=what)


@contextlib.contextmanager
def recording(args: argparse.Namespace, kvm: Kvm, host: Host) -> Iterator[Callable[[str], None]]:
    """Yield a function to call after each case; write the file at the end. Raises Failed if this host cannot record coverage."""
    if not args.coverage:
        yield lambda case: None
        return
    from kvmtest.coverage import file
    from kvmtest.coverage.error import CoverageError
    from kvmtest.coverage.native import Native
    from kvmtest.kvm.kcov import Kcov, KcovError

    try:
        kcov = Kcov()
    except KcovError as error:
        raise Failed(str(error), UNTESTABLE) from None
    with contextlib.closing(kcov):
        try:
            native = Native(host.kernel, host.backend, args.kvm_modules or f"/lib/modules/{host.kernel}", common.now())
        except CoverageError as error:
            raise Failed(str(error), UNTESTABLE) from None
        with opened(args.coverage) as out:
            kvm.traced = kcov.thread
            # The code on the way here belongs to no case.
            kcov.take()
            try:
                yield lambda case: native.take(case, kcov.take())
            finally:
                file.write([native.table], out)
    if kcov.cut:
        say("some cases executed more than KCOV has room for: their coverage is incomplete")
