# SPDX-License-Identifier: GPL-2.0-only
"""One case on one vCPU: plant, read back, trigger, read, judge. May be run again and again.

Judging is pure, so what has not changed since the last time keeps its result: sections are compared as raw bytes first, and
only the items that differ are decoded and judged anew.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable

from kvmtest import spec
from kvmtest.engine import catch, guest
from kvmtest.engine.judge import Context, Seen, judge, judge_views
from kvmtest.engine.machine import Machine, Target
from kvmtest.engine.plan import CONTINUE, Case, items
from kvmtest.engine.result import Host, Result
from kvmtest.kvm import Exit
from kvmtest.spec.rule import Rule
from kvmtest.state.layout import Layout, text
from kvmtest.state.plant import Plant
from kvmtest.state.snapshot import Snapshot
from kvmtest.triggers import INIT, NONE, SHUTDOWN, SIPI, msi, restart
from kvmtest.triggers.error import TriggerError
from kvmtest.x86 import cpuid

__all__ = ("TRACES", "Cycle", "Verdicts", "compared", "context")

#: An event shows in one of these. MSRs and LAPIC have counters that run by themselves, INIT leaves the others alone.
TRACES = ("mp_state", "regs", "sregs", "debugregs")
_XSTATE_HEADER = range(512, 576)


def context(case: Case, machine: Machine, host: Host) -> Context:
    """What the rules may depend on in ``case``."""
    setup = case.setup
    leaf1 = next((leaf.eax for leaf in machine.leaves if leaf.function == 1), None)
    return Context(
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
    )


class _Places:
    """Which item a byte of a section belongs to."""

    def __init__(self, layout: Layout, section: str) -> None:
        placed = sorted((layout.fields[item].offset, item) for item in layout.by_section[section])
        self.items = [item for _, item in placed]
        self._starts = [offset for offset, _ in placed]
        self._ends = [offset + layout.fields[item].size for offset, item in placed]

    def changed(self, section: str, old: bytes, new: bytes) -> set[str]:
        """The items in which ``old`` and ``new`` differ; all of them where the XSAVE header does."""
        found: set[str] = set()
        difference = int.from_bytes(old, "little") ^ int.from_bytes(new, "little")
        while difference:
            byte = (difference & -difference).bit_length() - 1 >> 3
            if section == "xsave" and byte in _XSTATE_HEADER:
                return set(self.items)
            i = bisect_right(self._starts, byte) - 1
            end = byte + 1
            if i >= 0 and byte < self._ends[i]:
                found.add(self.items[i])
                end = self._ends[i]
            difference = difference >> 8 * end << 8 * end
        return found


class Verdicts:
    """The results of a case by item, kept up to date from snapshots; ``judged`` names those that the last update judged.

    ``rule`` gives the case's own rules, where it does not go by the manuals'.
    """

    def __init__(
        self,
        ctx: Context,
        layout: Layout,
        baseline: Snapshot | None,
        plant: Plant | None,
        rule: Callable[[str], Rule | None] = lambda item: None,
    ) -> None:
        self._rule = rule
        self.ctx = ctx
        self.layout = layout
        self.baseline = baseline
        self.plant = plant
        self.results: dict[str, Result] = {}
        self.judged: Collection[str] = ()
        self._places = {section: _Places(layout, section) for section in layout.by_section}
        self._before: Snapshot | None = None
        self._after: Snapshot | None = None

    def update(self, before: Snapshot | None, after: Snapshot, anew: Iterable[str] = ()) -> dict[str, Result]:
        """Judge what is new in these snapshots, and ``anew``; all results, in the order of the project's tables."""
        old_before, old_after = self._before, self._after
        first = old_after is None or old_after.unreadable != after.unreadable
        if old_after is None or first:
            known = (item for item in spec.ENTRIES if item not in spec.SYNTHETIC)
            names = dict.fromkeys((*known, *self.layout.fields))
        else:
            changed = self._changed(old_after, after)
            if before is not None and old_before is not None:
                changed |= self._changed(old_before, before)
            names = dict.fromkeys((*changed, *anew))
        for item in names:
            self.results[item] = judge(item, self.ctx, self.seen(item, before, after), self._rule(item))
        self.judged = names
        self._before, self._after = before, after
        return self.results

    def _changed(self, old: Snapshot, new: Snapshot) -> set[str]:
        found: set[str] = set()
        for section, contents in new.sections.items():
            before = old.sections.get(section, b"")
            if contents != before:
                found |= self._places[section].changed(section, before, contents)
        return found

    def seen(self, item: str, before: Snapshot | None, after: Snapshot) -> Seen:
        """The values of ``item`` as the judge takes them."""
        if item in self.layout.missing:
            return Seen(None, None, None, unreadable=self.layout.missing[item])
        unreadable = after.unreadable.get(item, "" if item in self.layout.fields else "no ioctl shows it")
        return self.values(item, before, after.get(self.layout, item))._replace(unreadable=unreadable)

    def values(self, item: str, before: Snapshot | None, observed: int | None) -> Seen:
        """``observed`` with what was planted and what was there at creation."""
        baseline = self.baseline.get(self.layout, item) if self.baseline else None
        planted = before.get(self.layout, item) if before else None
        return Seen(planted, baseline, observed, self._refusal(item, planted))

    def told(self, item: str, before: Snapshot | None, report: guest.Report) -> Seen:
        """The values of ``item`` where the guest's ``report`` is what was observed."""
        seen = self.values(item, before, report.values.get(item))
        missing = report.missing.get(item, "")
        failed = report.problem or "the guest did not tell" if seen.observed is None and not missing else ""
        return seen._replace(
            planted=guest.shown(item, seen.planted, report.narrow),
            baseline=guest.shown(item, seen.baseline, report.narrow),
            unreadable=missing,
            failed=failed,
        )

    def _refusal(self, item: str, planted: int | None) -> str:
        if self.plant is None:
            return ""
        if item in self.plant.refused:
            return self.plant.refused[item]
        asked = self.plant.asked.get(item)
        if asked is None:
            return self.plant.reason(item)
        if planted != asked:
            return f"KVM kept {text(item, planted)} when {text(item, asked)} was planted"
        return ""


def compared(item: str, ctx: Context, host: int | None, report: guest.Report, unread: str = "") -> Result:
    """The result of holding the ``host``'s value of ``item`` against the guest's; ``unread`` says why there is none."""
    said = guest.shown(item, host, report.narrow)
    return judge_views(item, ctx, said, report.values.get(item), report.problem, report.missing.get(item, ""), unread)


class Cycle:
    """A case, ready to run on its target. ``timeout_s`` bounds each KVM_RUN, in seconds."""

    def __init__(self, case: Case, machine: Machine, host: Host, timeout_s: float = 1.0) -> None:
        self.case = case
        self.machine = machine
        self.timeout_s = timeout_s
        self.target: Target = machine.target(case.target)
        planted = case.event != "reset"
        self.plant = self.target.plant(case.plant, case.apic_mode) if planted else None
        baseline = self.target.baseline if planted else None
        self.verdicts = Verdicts(context(case, machine, host), self.target.layout, baseline, self.plant)
        both = case._replace(view="views")
        self._views_ctx = self.verdicts.ctx._replace(prefix=both.prefix, case=both.name)

    def run(self) -> Collection[Result]:
        """The case's results in each of its views. Raises KvmError, PlantRefused and GuestStopped where the plant cannot be
        written, TriggerError where the event did not happen.
        """
        vcpu = self.target.vcpu
        # It writes the guest's memory, before a vCPU that is running can get there.
        observer = self._observer() if self.case.view == "guest" else None
        before = self._before()
        try:
            first = self._fire(before)
            if self.case.view == "host":
                return self.verdicts.update(before, self._after(before, first)).values()
            # A guest that runs already has left the state that the host is to see behind.
            after = None if first else self._after(before, first)
            if self._started_by_sipi:
                msi.sipi(vcpu, CONTINUE)
            assert observer
            report = observer.report(self.timeout_s, first)
            vcpu.complete_io()
            return self._reported(before, after, report)
        finally:
            catch.release(self.case.state, vcpu)

    @property
    def _started_by_sipi(self) -> bool:
        """Whether the guest's code can only run, and report, behind a SIPI that is not the event."""
        return self.case.event == "init" and self.case.target == "ap"

    def _observer(self) -> guest.Observer:
        case = self.case
        vector = CONTINUE if self._started_by_sipi else case.vector
        return guest.Observer(self.machine, self.target.vcpu, self.target.layout, vector, case.apic_mode or "xapic")

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
        # A shutdown may leave none, and an INIT out of it: there the exit or the pending INIT was the proof.
        proven = self.case.event == "shutdown" or self.case.state == "in-shutdown"
        if not proven and all(before.sections.get(s) == after.sections.get(s) for s in TRACES):
            raise TriggerError("the event left no trace: registers and activity state are as planted")
        return after

    def _one_out_ago(self, after: Snapshot) -> Snapshot:
        """The state before the OUT behind the reset vector, of which nothing remains but where RIP is."""
        field = self.target.layout.fields["rip"]
        regs = bytearray(after.sections["regs"])
        field.put(regs, field.get(after.sections["regs"]) - restart.SIZE_OF_OUT)
        return after._replace(sections=after.sections | {"regs": bytes(regs)})

    def _reported(self, before: Snapshot | None, after: Snapshot | None, report: guest.Report) -> list[Result]:
        """The results of the guest's view, then of the comparison with the host's."""
        if self.case.event == "shutdown" and self.verdicts.ctx.host.backend != "svm" and not report.values:
            report = guest.Report({}, dict.fromkeys(guest.ITEMS, f"a vCPU in shutdown executes nothing: {report.problem}"), "")
        names = items(self.case)
        return [
            *(judge(item, self.verdicts.ctx, self.verdicts.told(item, before, report)) for item in names),
            *(self._views_result(item, after, report) for item in names),
        ]

    def _views_result(self, item: str, after: Snapshot | None, report: guest.Report) -> Result:
        if after is None:
            return compared(item, self._views_ctx, None, report, "the vCPU ran on before the host could read it")
        return compared(item, self._views_ctx, after.get(self.target.layout, item), report)
