# SPDX-License-Identifier: GPL-2.0-only
"""One case on one vCPU: plant, read back, trigger, read. May be run again and again."""

from __future__ import annotations

from kvmtest.engine import catch, guest
from kvmtest.engine.machine import Machine, Target
from kvmtest.engine.plan import CONTINUE, Case, items
from kvmtest.judge.evidence import Basis, Evidence
from kvmtest.judge.item import Context
from kvmtest.kvm import Exit
from kvmtest.model.host import Host
from kvmtest.state.guest_view import ITEMS, Report
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.state.snapshot import Unread
from kvmtest.triggers import INIT, NONE, SHUTDOWN, SIPI, msi, restart
from kvmtest.triggers.error import TriggerError
from kvmtest.x86 import cpuid

__all__ = ("Cycle", "context", "took_init", "traced")

#: An event shows in one of these. MSRs and LAPIC have counters that run by themselves, INIT leaves the others alone.
_TRACES = ("mp_state", "regs", "sregs", "debugregs")


def context(case: Case, machine: Machine, host: Host) -> Context:
    """What the rules may depend on in ``case``."""
    setup = case.setup
    leaf1 = next((leaf.eax for leaf in machine.leaves if leaf.function == 1), None)
    made = Context(
        case.prefix,
        case.name,
        host,
        setup.vendor,
        case.target == "bsp",
        machine.target(case.target).vcpu.id,
        setup.irqchip != "none",
        case.apic_mode or "xapic",
        leaf1,
        case.vector,
        cpuid.gp_counters(machine.leaves),
        extended_apic=cpuid.extended_apic(machine.leaves),
    )
    return made._replace(cycles=machine.cycles()) if case.trigger == "create" else made


def traced(layout: Layout, before: Snapshot, after: Snapshot) -> bool:
    """Whether an event can have happened between the two. Raises Unread where what was read does not tell."""
    lost = ""
    for section in _TRACES:
        if section in before.sections and section in after.sections:
            if before.sections[section] != after.sections[section]:
                return True
        else:
            lost = lost or before.lost(layout, section) or after.lost(layout, section)
    if lost:
        raise Unread(f"whether the event happened cannot be told: {lost}")
    return False


def took_init(layout: Layout, after: Snapshot) -> None:
    """Make sure that KVM was asked to take the INIT that was sent, and has none pending any more.

    KVM_GET_MP_STATE is what makes it take one. Raises Unread where that or KVM_GET_VCPU_EVENTS failed, TriggerError.
    """
    for section in ("mp_state", "events"):
        if section not in after.sections:
            why = layout.missing_sections.get(section) or after.lost(layout, section)
            raise Unread(f"whether the INIT was taken cannot be told: {why}")
    if after.get(layout, "events.smi_latched_init"):
        raise TriggerError("the INIT that was sent is pending and was not taken")


class Cycle:
    """A case, ready to run on its target. ``timeout_s`` bounds each KVM_RUN, in seconds; ``bases`` is what judging needs."""

    def __init__(self, case: Case, machine: Machine, host: Host, timeout_s: float = 1.0) -> None:
        self.case = case
        self.host = host
        self.machine = machine
        self.timeout_s = timeout_s
        self.target: Target = machine.target(case.target)
        planted = case.event != "reset"
        self.plant = self.target.plant(case.plant, case.apic_mode) if planted else None
        baseline = self.target.baseline if planted else None
        self.bases = (Basis(context(case, machine, host), self.target.layout, baseline, self.plant),)

    def observe(self) -> Evidence:
        """Run the case. Raises KvmError, PlantRefused and GuestStopped where the plant cannot be written, TriggerError where
        the event did not happen, Unread where that cannot be told.
        """
        vcpu = self.target.vcpu
        # It writes the guest's memory, before a vCPU that is running can get there.
        reporter = self._reporter() if self.case.view == "guest" else None
        try:
            before = self._before()
            first = self._fire(before)
            if self.case.view == "host":
                return Evidence(before, self._after(before, first))
            # A guest that runs already has left the state that the host is to see behind.
            after = None if first else self._after(before, first)
            if self._started_by_sipi:
                msi.sipi(vcpu, CONTINUE)
            assert reporter
            report = reporter.report(self.timeout_s, first)
            vcpu.complete_io()
            return Evidence(before, after, self._told(report))
        finally:
            catch.release(self.case.state, vcpu)

    @property
    def _started_by_sipi(self) -> bool:
        """Whether the guest's code can only run, and report, behind a SIPI that is not the event."""
        return self.case.event == "init" and self.case.target == "ap"

    def _reporter(self) -> guest.Reporter:
        case = self.case
        vector = CONTINUE if self._started_by_sipi else case.vector
        return guest.Reporter(self.machine, self.target.vcpu, self.target.layout, vector, case.apic_mode or "xapic")

    def _before(self) -> Snapshot | None:
        if self.plant is None:
            return None
        vcpu = self.target.vcpu
        if self.case.event == "sipi":
            # Into wait-for-SIPI first, by a real INIT, and plant there. An earlier case may have left the local APIC off.
            self.plant.write(vcpu)
            msi.init(vcpu)
            vcpu.get_mp_state()
        self.plant.write(vcpu)
        catch.prepare(self.case.state, vcpu)
        return self.target.reader.read()

    def _fire(self, before: Snapshot | None) -> Exit | None:
        """Make the event happen; the exit of a boot processor that runs again already."""
        if before is None:
            return None
        case, vcpu = self.case, self.target.vcpu
        return catch.fire(case.state, vcpu, self._event, self.timeout_s)

    def _event(self) -> Exit | None:
        case, vcpu = self.case, self.target.vcpu
        if case.event == "init":
            return INIT[case.road](vcpu)
        if case.event in ("shutdown", "none"):
            (SHUTDOWN if case.event == "shutdown" else NONE)[case.road](vcpu)
        else:
            assert case.vector is not None
            SIPI[case.road](vcpu, case.vector)
        return None

    def _after(self, before: Snapshot | None, first: Exit | None) -> Snapshot:
        """The state that the event left, with the proof that it happened."""
        if before is None:
            return self.target.baseline
        if first:
            self.target.vcpu.complete_io()
        after = self.target.reader.read()
        if first:
            after = self._one_out_ago(after)
        if self.case.event == "init":
            took_init(self.target.layout, after)
        # A shutdown may leave none, and an INIT out of it: there the exit or the pending INIT was the proof.
        proven = self.case.event == "shutdown" or self.case.state == "in-shutdown"
        if not proven and not traced(self.target.layout, before, after):
            raise TriggerError("the event left no trace: registers and activity state are as planted")
        return after

    def _one_out_ago(self, after: Snapshot) -> Snapshot:
        """The state before the OUT behind the reset vector, of which nothing remains but where RIP is."""
        layout = self.target.layout
        rip = after.get(layout, "rip")
        if rip is None:
            return after
        regs = bytearray(after.sections["regs"])
        layout.fields["rip"].put(regs, rip - restart.SIZE_OF_OUT)
        return after._replace(sections=after.sections | {"regs": bytes(regs)})

    def _told(self, report: Report) -> Report:
        """The ``report``; of a guest that told nothing one item bears the error, not all of them.

        A shutdown is the exception that not every KVM makes an INIT of. kvm_amd does; before 265e43530cb2 ("KVM: SVM: Emulate
        #INIT in response to triple fault shutdown") it made a new VMCB and left the rest, and the guest takes an exception at
        the reset vector.
        """
        if report.values or not report.problem:
            return report
        why = f"the guest told nothing: {report.problem}"
        if self.case.event == "shutdown":
            if self.host.backend != "svm":
                return Report({}, dict.fromkeys(ITEMS, f"a vCPU in shutdown executes nothing: {report.problem}"), "")
            why = f"the guest did not come out of SHUTDOWN, of which KVM on SVM makes an INIT: {report.problem}"
        names = items(self.case)
        bears = "rip" if "rip" in names else names[0]
        return Report({}, {item: why for item in ITEMS if item != bears}, why, late=report.late)
