# SPDX-License-Identifier: GPL-2.0-only
"""A case in which a used vCPU is written back to RESET by ioctls: it must be as a new one, in each legal order of the ioctls."""

from __future__ import annotations

from kvmtest.engine import guest
from kvmtest.engine.bind import context
from kvmtest.engine.error import TriggerError
from kvmtest.engine.machine import Machine
from kvmtest.engine.plan import Case
from kvmtest.judge.differing import unproven
from kvmtest.judge.evidence import Basis, Evidence, ResetSeen, ResetTry
from kvmtest.model.host import Host
from kvmtest.state.guest_view import Report
from kvmtest.state.vmm_reset import orders

__all__ = ("VmmReset",)


class VmmReset:
    """The case, ready to run; ``timeout_s`` bounds each KVM_RUN, in seconds. Raises KvmError.

    In the guest's view the guest reports on the new vCPU when this is made.
    """

    def __init__(self, case: Case, machine: Machine, host: Host, timeout_s: float = 1.0) -> None:
        self.case = case
        self.machine = machine
        self.timeout_s = timeout_s
        self.target = machine.target(case.target)
        # Before a plant is made, which tries it out on the vCPU.
        self._new = self._report()
        self.plant = self.target.plant(case.plant, case.apic_mode)
        self.orders = orders(self.target.reset.sections)
        # The local APIC's mode after RESET.
        ctx = context(case, machine, host)._replace(apic_mode="xapic")
        self.bases = (Basis(ctx, self.target.layout, self.target.baseline, self.plant),)

    def observe(self) -> ResetSeen:
        """Run the case in each order. Raises KvmError, TriggerError where the vCPU was not written at all, and Unread where that
        cannot be determined.
        """
        tries = tuple(self._reset(order) for order in self.orders)
        return ResetSeen(self._new, dict(self.target.reset.read_only), tries)

    def _reset(self, order: tuple[str, ...]) -> ResetTry:
        self.plant.write(self.target.vcpu)
        before = self.target.reader.read()
        refused = self.target.reset.write(order)
        after = self.target.reader.read()
        if why := unproven(self.target.layout, "reset", before, after):
            raise TriggerError(f"the vCPU was not written: {why}")
        return ResetTry(order, refused, Evidence(before, after, self._report()))

    def _report(self) -> Report | None:
        """Let the guest report its own view; None in the host's view."""
        if self.case.view == "host":
            return None
        reporter = guest.Reporter(self.machine, self.target.vcpu, self.target.layout, None)
        report = reporter.report(self.timeout_s)
        self.target.vcpu.complete_io()
        return report
