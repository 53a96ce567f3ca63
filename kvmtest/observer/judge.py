# SPDX-License-Identifier: GPL-2.0-only
"""Judge what an observer printed, by the rules as any run: cases, observations, the machine that it was."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kvmtest import __version__, spec
from kvmtest.judge.item import Context, Seen, judge
from kvmtest.model.case import Case
from kvmtest.model.host import NO_KVM, OBSERVER, Host, Tool
from kvmtest.model.record import Block, Observation, Record
from kvmtest.model.run import Head, Run
from kvmtest.model.value import Expected
from kvmtest.model.verdict import Verdict
from kvmtest.observer.log import Log, Look
from kvmtest.observer.state import State, state
from kvmtest.spec.cite import A_FIRST, S_FIRST
from kvmtest.spec.migrated import AS_SAVED
from kvmtest.spec.migrated import rule as migrated
from kvmtest.state.guest_view import ITEMS, shown
from kvmtest.x86 import cpuid

__all__ = ("eventless", "judged", "machine")

#: Vectors of the first SIPI to a processor, and of later ones, by the number of the round: SIPI_PAGE_ in guests/observer.
_VECTORS = {1: 0x70, 2: 0x7A, 3: 0x70}
_OF_SIPI = ("rip", "cs.selector", "cs.base")
_TRIGGERS = {"wait": "outside", "icr-xapic-halted": "icr-xapic", "restore": "migrate"}
_MIGRATION = "none.migrate.guest"
#: Items that an instruction reads back where their plant is, and that so show what a restored VM has.
_READ_BACK = re.compile(
    r"(cr|dr)\d|(cs|ds|es|ss|fs|gs|tr|ldt)\.selector|gdt\..*|efer|apic_base|xcr0|pkru|f[cst]w|mxcsr|(lapic|msr)\..*|[xyz]mm.*|st\d|k\d|bnd.*"
)
_SIGNATURES = {
    b"TCGTCGTCGTCG": "tcg",
    b"KVMKVMKVM": "kvm",
    b"XenVMMXenVMM": "xen",
    b"VMwareVMware": "vmware",
    b"Microsoft Hv": "hyper-v",
}
#: More cycles than the observer takes from RESET to its first RDMSR where each instruction is emulated, far less than its plant.
_CYCLES = 1 << 36
_APIC_ENABLED, _X2APIC = 1 << 11, 1 << 10
#: A chipset makes INIT# or a reset of the keyboard controller's pulse, and of the special cycle of a shutdown: Intel's hubs make
#: INIT# of both, which a policy register can change for the latter (I/O Controller Hub, INIT# Generation).
_BY_CHIPSET, _EITHER = ("port-64h", "triple-fault"), ("reset", "init")
_COMES = (S_FIRST, A_FIRST)


def machine(log: Log, accel: str = "", name: str = "", backend: str = NO_KVM, kernel: str = "none") -> Host:
    """The machine that printed ``log``. ``accel`` is what makes its CPU, where CPUID does not say it."""
    leaves = log.boots[0].looks[0].leaves
    text = {"vendor": b"", "brand": b"", "under": b""}
    for leaf in leaves:
        four = [register.to_bytes(4, "little") for register in (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx)]
        if leaf.function == 0:
            text["vendor"] = four[1] + four[3] + four[2]
        elif 0x80000002 <= leaf.function <= 0x80000004:
            text["brand"] += b"".join(four)
        elif leaf.function == 0x40000000:
            text["under"] = b"".join(four[1:])
    vendor, brand, under = (found.rstrip(b"\0 ").decode("ascii", "replace").strip() for found in text.values())
    hypervisor = any(leaf.function == 1 and leaf.ecx >> 31 for leaf in leaves)
    found = _SIGNATURES.get(under.encode(), "vm") if hypervisor else "silicon"
    accel, model = accel or found, brand or "unknown"
    lab: dict[str, str | float] = {"emulator": name or accel, "cpu": model, "kernel_source": OBSERVER}
    return Host(kernel, backend, vendor or "unknown", model, {}, lab, name, accel)


def eventless(log: Log) -> str:
    """The reason why nothing in ``log`` comes after an event; "" if something does."""
    if any(not boot.loaded or boot.lost or any(look.method == "sipi" for look in boot.looks) for boot in log.boots):
        return ""
    return "one processor that a boot loader started shows no event: it needs a second one, or RESET (--form bios)"


def judged(log: Log, host: Host, started: str, cpus: int = 0) -> Run:
    """The run that ``log`` is; of ``cpus`` processors (0: any number) each that did not come is an error."""
    seen = tuple(_observations(log, host, cpus))
    cases = tuple(dict.fromkeys(one.case for one in seen if one.case))
    return Run(Head(Tool(__version__), host, started), cases, seen, 0.0, False)


def _observations(log: Log, host: Host, cpus: int) -> Iterator[Observation]:
    first: dict[int, State] = {}
    planted: dict[int, State] = {}
    for boot in log.boots:
        came, reset = "power-on", not boot.loaded
        found = set()
        for look in boot.looks:
            now = state(look)
            if look.kind == "plant":
                planted[look.apic_id] = now
                continue
            if look.kind == "kept":
                yield _kept(host, look, now, boot.number, planted.get(look.apic_id), first)
                continue
            found.add(look.apic_id)
            number = f"boot{boot.number}"
            if look.method != "sipi":
                if not boot.loaded:
                    came = look.method
                    one = _boot(host, look, now, number, planted.get(look.apic_id), first)
                    reset = one.event == "reset"
                    yield one
            else:
                yield from _other(host, look, now, came if reset else "", number, planted.get(look.apic_id), first)
            first.setdefault(look.apic_id, now)
            planted.pop(look.apic_id, None)
        if boot is not log.boots[-1] or log.ended:
            yield from _absent(boot.number, len(found), boot.lost, cpus)
    if not log.ended:
        sent = log.boots[-1].sent
        yield _silent(log.boots[-1].number, sent[-1] if sent else "", log.why)


def _boot(host: Host, look: Look, now: State, number: str, planted: State | None, first: dict[int, State]) -> Observation:
    """The boot processor, after RESET or INIT. Of a way that is either, by chipset, the event with which it agrees better."""
    events = ("init",) if look.method.startswith("icr-") else _EITHER if look.method in _BY_CHIPSET else ("reset",)
    seen = [_one(host, look, now, event, look.method, number, True, planted, first) for event in events]
    return min(seen, key=lambda one: sum(block.counts[Verdict.FAIL] for block in one.blocks))


def _kept(host: Host, look: Look, now: State, boot: int, planted: State | None, first: dict[int, State]) -> Observation:
    """A processor of a VM that was saved and restored: what is left of the plant."""
    items = [item for item in ITEMS if _READ_BACK.fullmatch(item)]
    return _one(host, look, now, "none", look.method, f"boot{boot}", True, planted, first, items)


def _other(
    host: Host, look: Look, now: State, came: str, number: str, planted: State | None, first: dict[int, State]
) -> Iterator[Observation]:
    """A processor that was started: its INIT and its SIPI, and, of its first start after the RESET ``came``, that RESET."""
    fresh = look.round == 1
    items = [item for item in ITEMS if item not in _OF_SIPI]
    if fresh and came:
        kept = [
            item for item in items if spec.rule_for(item, "init", now.vendor or "intel", host.backend).kind == "unchanged"
        ]
        yield _one(host, look, now, "reset", came, number, False, planted, first, kept)
        items = [item for item in items if item not in kept]
    before = None if fresh else planted
    words = f"{number},round{look.round}"
    yield _one(host, look, now, "init", "icr-xapic", words, False, before, first, items)
    yield _one(host, look, now, "sipi", "icr-xapic", words, False, before, first, _OF_SIPI)


def _one(
    host: Host, look: Look, now: State, event: str, came: str, words: str, boot: bool,
    planted: State | None, first: dict[int, State], items: list[str] | tuple[str, ...] = ITEMS,
) -> Observation:  # fmt: skip
    trigger, vendor = _TRIGGERS.get(came, came), now.vendor
    target = "bsp" if boot else "ap"
    halted = ",halted" if came == "icr-xapic-halted" else ""
    name = f"{event}.{trigger}/{target},{vendor or 'no-cpuid'}{halted},cpu{look.apic_id},{words}"
    params: list[tuple[str, str | int]] = [
        ("target", target),
        ("vendor", vendor),
        ("cpu", look.apic_id),
        ("plant", "observer"),
    ]
    base = now.values.get("apic_base")
    mode = "xapic"
    if event != "reset" and base is not None:
        mode = "x2apic" if base & _X2APIC else "xapic" if base & _APIC_ENABLED else "disabled"
    ctx = Context(
        f"{event}.{trigger}.guest",
        name,
        # RESET is the VMM's: what KVM does with a new vCPU explains nothing that the VMM left so.
        host._replace(backend=NO_KVM) if event == "reset" else host,
        vendor,
        boot,
        look.apic_id,
        True,
        mode,
        next((leaf.eax for leaf in now.leaves if leaf.function == 1), None),
        _VECTORS[look.round] if event == "sipi" else None,
        cpuid.gp_counters(now.leaves),
        cycles=_CYCLES,
        extended_apic=cpuid.extended_apic(now.leaves),
    )
    base_state = first.get(look.apic_id)
    records = tuple(_record(item, ctx, now, planted, base_state) for item in items if item not in spec.SYNTHETIC)
    return Observation(Case(name, tuple(params)), event, trigger, "guest", (Block(records),), 0.0)


def _record(item: str, ctx: Context, now: State, planted: State | None, first: State | None) -> Record:
    was = shown(item, planted.values.get(item), now.narrow) if planted else None
    new = shown(item, first.values.get(item), now.narrow) if first else None
    refused = ""
    if was is None:
        refused = planted.missing.get(item, "nothing was planted") if planted else "what was there before is not known"
    value, why = now.values.get(item), now.missing.get(item, "the observer does not report it")
    if now.blind and item.startswith("msr.") and not (value or was or new):
        value, why = None, "this CPU reads an MSR that it does not have as 0"
    seen = Seen(was, new, value, refused, why)
    own = migrated(item) if ctx.prefix == _MIGRATION else None
    return judge(item, ctx._replace(before=was is not None), seen, own)


def _absent(boot: int, found: int, lost: list[int], cpus: int) -> Iterator[Observation]:
    """Processors that should be there."""
    case = Case(f"init.icr-xapic/boot{boot}", (("target", "ap"),))
    for apic_id in lost:
        reason = f"processor {apic_id} began after INIT-SIPI-SIPI, and did not finish"
        record = Record("runs", Verdict.ERROR, None, Expected(("ends",)), "does not end", reason, _COMES)
        yield Observation(case, "init", "icr-xapic", "guest", (Block((record,)),), 0.0)
    if cpus and found < cpus:
        reason = f"{found} of {cpus} processors started after INIT-SIPI-SIPI"
        record = Record("runs", Verdict.FAIL, None, Expected((cpus,)), found, reason, _COMES)
        yield Observation(case, "init", "icr-xapic", "guest", (Block((record,)),), 0.0)


def _silent(boot: int, sent: str, why: str) -> Observation:
    """The end of a log that should go on."""
    event = "init" if sent.startswith("icr-") else "none" if sent == "restore" else "reset"
    trigger = _TRIGGERS.get(sent, sent or "power-on")
    verdict = Verdict.FAIL if sent else Verdict.ERROR
    expected = Expected(("its next instruction" if event == "none" else "its first instruction",)) if sent else None
    reason, cites = f"the observer printed no more: {why}", AS_SAVED if event == "none" else _COMES
    record = Record("runs", verdict, None, expected, "nothing" if sent else None, reason, cites)
    halted = ",halted" if sent == "icr-xapic-halted" else ""
    case = Case(f"{event}.{trigger}/bsp{halted},boot{boot}", (("target", "bsp"),))
    return Observation(case, event, trigger, "guest", (Block((record,)),), 0.0)
