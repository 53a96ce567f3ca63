# SPDX-License-Identifier: GPL-2.0-only
"""Report of what this machine's KVM supports, and what to install or enable for the rest."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from kvmtest import guests, spec
from kvmtest.engine import guest, native, nesting, plan
from kvmtest.engine import host as host_facts
from kvmtest.engine.bind import Facts
from kvmtest.engine.machine import Machines, SetupError, Target
from kvmtest.guests import GuestMissing
from kvmtest.kvm import CpuidEntry, Kvm, KvmError
from kvmtest.model.host import Host, module_of
from kvmtest.scenario.needs import NEEDS, unmet
from kvmtest.scenario.setup import VENDORS, Setup
from kvmtest.state.guest_view import ITEMS, Report
from kvmtest.state.inside import GUEST_PLANTS, GuestStopped, PlantRefused
from kvmtest.state.snapshot import Unread
from kvmtest.uapi import kvm as uapi
from kvmtest.x86 import cpuid, msr, xsave

__all__ = ("Finding", "Unusable", "examine", "open_kvm")

_API_VERSION = 12


class Unusable(RuntimeError):
    """Nothing can be tested with this /dev/kvm; the message says why and what to do."""


class Finding(NamedTuple):
    """One line of ``kvmtest doctor``: ``state`` is ``ok``, ``no`` (some checks are skipped) or ``bad`` (nothing can run).

    ``advice`` says what comes of it; ``enable`` what would change that, or that nothing does. A ``no`` has both.
    """

    state: str
    what: str
    advice: str = ""
    enable: str = ""


_OPEN_ADVICE = {
    FileNotFoundError: "no such device: load kvm_intel or kvm_amd (modprobe), enable VT-x or SVM in the firmware, or,"
    " in a VM, nested virtualization",
    PermissionError: "permission denied: join the group that owns it (usually kvm: usermod -aG kvm USER, log in again)",
}
#: Without these no case can run at all.
_REQUIRED = (
    ("KVM_CAP_USER_MEMORY", uapi.KVM_CAP_USER_MEMORY),
    ("KVM_CAP_IRQCHIP", uapi.KVM_CAP_IRQCHIP),
    ("KVM_CAP_MP_STATE", uapi.KVM_CAP_MP_STATE),
    ("KVM_CAP_VCPU_EVENTS", uapi.KVM_CAP_VCPU_EVENTS),
    ("KVM_CAP_XSAVE", uapi.KVM_CAP_XSAVE),
    ("KVM_CAP_XCRS", uapi.KVM_CAP_XCRS),
    ("KVM_CAP_DEBUGREGS", uapi.KVM_CAP_DEBUGREGS),
    ("KVM_CAP_SIGNAL_MSI", uapi.KVM_CAP_SIGNAL_MSI),
)
#: Without one of these some cases are skipped; and the Linux that brought it.
_OPTIONAL = (
    ("KVM_CAP_SPLIT_IRQCHIP", uapi.KVM_CAP_SPLIT_IRQCHIP, "RESET with a split irqchip", "4.4"),
    ("KVM_CAP_SET_BOOT_CPU_ID", uapi.KVM_CAP_SET_BOOT_CPU_ID, "RESET with another boot CPU id", "2.6.32"),
    ("KVM_CAP_X2APIC_API", uapi.KVM_CAP_X2APIC_API, "a broadcast to vCPUs with ids above 255", "4.8"),
    ("KVM_CAP_XSAVE2", uapi.KVM_CAP_XSAVE2, "XSAVE state above 4096 bytes (AMX)", "5.17"),
)
#: The flag in /proc/cpuinfo of an XSAVE component's feature, if the kernel has enabled it.
_COMPONENT_FLAGS = {2: "avx", 9: "ospke", 19: "apx", **dict.fromkeys((3, 4), "mpx"), **dict.fromkeys((5, 6, 7), "avx512f")}
_COMPONENT_FLAGS |= dict.fromkeys((17, 18), "amx_tile")
#: A line of its own: cells are no cases of a run.
_CELLS = "cells of the lab on this KVM"
#: Programs that are not needed to run, what they are for, and the packages that bring them.
_PROGRAMS = (
    ("objdump", "the names of instructions that KVM cannot emulate", "binutils"),
    ("gcc", "checks of the bindings against <linux/kvm.h>, make bench", "gcc libc6-dev"),
    ("ld", "make guests", "binutils"),
)


def open_kvm(path: str) -> Kvm:
    """Open ``path`` and try what every case needs. Raises Unusable with one line that says what to do."""
    try:
        kvm = Kvm(path)
    except OSError as error:
        advice = _OPEN_ADVICE.get(type(error), error.strerror or str(error))
        raise Unusable(f"{path}: {advice}") from error
    try:
        _check(kvm, path)
    except BaseException:
        kvm.close()
        raise
    # Off by default, because of its size; refused where there is none.
    kvm.request_guest_permission(xsave.TILEDATA)
    return kvm


def _check(kvm: Kvm, path: str) -> None:
    try:
        version = kvm.api_version()
    except OSError as error:
        raise Unusable(f"{path}: {error}; is this a KVM device?") from error
    if version != _API_VERSION:
        raise Unusable(f"{path}: KVM API version {version}, kvmtest needs {_API_VERSION}")
    try:
        lacking = [name for name, cap in _REQUIRED if not kvm.check_extension(cap)]
    except OSError as error:
        raise Unusable(f"{path}: {error}") from error
    if lacking:
        raise Unusable(f"{path}: this KVM lacks {', '.join(lacking)}")
    try:
        kvm.create_vm().close()
    except OSError as error:
        busy = "; another hypervisor uses the CPU's virtualization: stop it" if error.errno == errno.EBUSY else ""
        raise Unusable(f"{path}: {error}{busy}") from error


def examine(path: str) -> Iterator[Finding]:
    """All findings, the ones that matter most first; the last says how much can be tested."""
    host = host_facts.detect()
    try:
        kvm = open_kvm(path)
    except Unusable as error:
        yield Finding("bad", "KVM", str(error))
        yield from _tools()
        return
    yield Finding("ok", f"{path} is usable, API version {_API_VERSION}")
    yield from _backend(host)
    with kvm:
        yield from _kvm(kvm, host)
        *found, last = _guests(kvm, host)
        yield from found
    yield from _tools()
    yield last


def _backend(host: Host) -> Iterator[Finding]:
    yield Finding("ok", host.title)
    why = "hidden parts of segment registers may have either vendor's values, and the state after a shutdown is only recorded"
    if host.backend == "unknown":
        yield Finding("no", "vendor module in /sys/module", why, "to enable: load kvm_intel or kvm_amd, or mount sysfs")
    elif host.backend not in ("vmx", "svm"):
        what = f"rules for {module_of(host.backend)} itself"
        yield Finding("no", what, why, "nothing to enable: only kvm_intel and kvm_amd have them")
    if host.parameters.get("kvm.ignore_msrs", "N") in ("Y", "1"):
        why = "MSRs that KVM does not list are left out, as all of them seem to read"
        yield Finding("no", "kvm.ignore_msrs is on", why, "to enable: kvm.ignore_msrs=0, also by /sys/module/kvm/parameters")


def _kvm(kvm: Kvm, host: Host) -> Iterator[Finding]:
    for name, cap, what, since in _OPTIONAL:
        if kvm.check_extension(cap):
            yield Finding("ok", name)
        else:
            yield Finding("no", name, f"skipped: {what}", f"to enable: Linux {since} or newer")
    leaves = kvm.supported_cpuid()
    yield from _nesting(kvm, leaves, host)
    yield _smm(kvm, host)
    yield from _components(leaves, host_facts.flags())
    most = kvm.check_extension(uapi.KVM_CAP_MAX_VCPUS)
    if most >= 255:
        yield Finding("ok", f"up to {most} vCPUs per VM")
    else:
        enable = "to enable: a kernel with a larger CONFIG_KVM_MAX_NR_VCPUS"
        yield Finding("no", f"up to {most} vCPUs per VM", "skipped: broadcasts to more", enable)
    listed = kvm.msr_index_list()
    unnamed = [index for index in listed if msr.name_of(index).startswith("0x")]
    yield Finding("ok", f"{len(listed)} MSRs in KVM_GET_MSR_INDEX_LIST, {len(unnamed)} without a name in kvmtest")


def _nesting(kvm: Kvm, leaves: list[CpuidEntry], host: Host) -> Iterator[Finding]:
    backend = nesting.offered(leaves)
    if backend and kvm.check_extension(uapi.KVM_CAP_NESTED_STATE):
        yield Finding("ok", "nested virtualization")
        yield Finding("ok", f"{_CELLS}: kvmtest lab run --accel kvm, backend {backend}")
        return
    enable = nesting.enable(host, bool(backend))
    yield Finding("no", "nested virtualization", "skipped: nested.*, and cases in VMX operation, SVM and L2", enable)
    yield Finding("no", _CELLS, "kvmtest lab run --accel kvm cannot run; QEMU (TCG) and Bochs need no KVM", enable)


def _smm(kvm: Kvm, host: Host) -> Finding:
    if kvm.check_extension(uapi.KVM_CAP_X86_SMM):
        return Finding("ok", "KVM_CAP_X86_SMM")
    enable = {
        # vmx_has_emulated_msr(): no SMM unless the guest's big real mode can be run.
        "vmx": "to enable: a kernel with CONFIG_KVM_SMM=y, and kvm_intel.unrestricted_guest=1 or emulate_invalid_guest_state=1",
        "svm": "to enable: a kernel with CONFIG_KVM_SMM=y",
    }.get(host.backend, f"to enable: a kernel with CONFIG_KVM_SMM=y, if {module_of(host.backend)} has SMM at all")
    return Finding("no", "KVM_CAP_X86_SMM", "skipped: cases in SMM, events.smi_*, msr.smbase", enable)


def _components(leaves: list[CpuidEntry], flags: frozenset[str]) -> Iterator[Finding]:
    there = cpuid.xsave_components(leaves)
    yield Finding("ok", f"XSAVE components: x87 SSE {' '.join(c.name for c in xsave.COMPONENTS if c.bit in there)}".rstrip())
    absent = [c for c in xsave.COMPONENTS if c.bit not in there]
    for has, enable in (
        (False, "nothing to enable: this CPU, or its emulator, does not have them"),
        # kvm_set_cpu_caps(): PKU needs tdp_enabled.
        (True, "to enable: a newer kernel, as this CPU has them; for PKRU kvm_intel.ept=1 or kvm_amd.npt=1"),
    ):
        if names := [c.name for c in absent if (_COMPONENT_FLAGS[c.bit] in flags) == has]:
            yield Finding("no", f"XSAVE components not offered to guests: {' '.join(names)}", "skipped: their registers", enable)


def _guests(kvm: Kvm, host: Host) -> Iterator[Finding]:
    """Run guest code once by each way that cases depend on, and report what works; last, how many items are usable."""
    machines = Machines(kvm, host)
    total = [item for item in spec.ENTRIES if item not in spec.SYNTHETIC]
    read = reported = 0
    try:
        yield from _needs(machines)
        machine = machines.fresh(Setup("full", "amd" if host.cpu_vendor == "AuthenticAMD" else "intel", memory=True))
        with machine.vm:
            target = machine.target("bsp")
            read = sum(item in target.layout.fields for item in total)
            report = guest.Reporter(machine, target.vcpu, target.layout).report(1.0)
            reported = sum(item in report.values for item in ITEMS)
            yield from _observer(report, host)
            for name in GUEST_PLANTS:
                yield _plant(target, name, host)
    except (GuestMissing, KvmError, SetupError, Unread) as error:
        enable = "to enable: make guests" if isinstance(error, GuestMissing) else _emulated(host)
        yield Finding("no", "guest code", f"skipped: the guest's view and plants by guest code: {error}", enable)
    finally:
        machines.close()
    usable = f"usable: {read} of {len(total)} items by ioctls, {reported} of {len(ITEMS)} by guest code"
    yield Finding("ok", f"{usable}; next: kvmtest run")


#: The way to meet most needs.
ELSEWHERE = "to enable: another kernel, CPU or KVM parameter"


def _needs(machines: Machines) -> Iterator[Finding]:
    """Each need of the plan's cases that no vCPU here meets, and how many cases that costs."""
    setups = [Setup("full", vendor, mce=True) for vendor in VENDORS]
    there = [Facts(machine, machine.target("ap")) for machine in map(machines.kept, setups)]
    wanted = Counter(name for case in plan.plan() for name in dict.fromkeys(case.needs))
    for name in NEEDS:
        why = [unmet((name,), facts) for facts in there]
        if all(why):
            cases = f"{wanted[name]} case{'' if wanted[name] == 1 else 's'}"
            yield Finding("no", f"{name}: {why[0]}", f"skipped: {cases}", ELSEWHERE)


def _emulated(host: Host) -> str:
    """Explain how to make the CPU itself run code in real mode and in protected mode without paging."""
    if host.backend == "vmx":
        return "to enable: kvm_intel.ept=1 and kvm_intel.unrestricted_guest=1, so that the CPU runs such code itself"
    return f"nothing to enable: it is how {module_of(host.backend)} runs such code"


def _observer(report: Report, host: Host) -> Iterator[Finding]:
    enable = _emulated(host)
    what = f"the guest's view: {len(report.values)} items"
    yield Finding("no", what, report.problem, enable) if report.problem else Finding("ok", what)
    not_emulated = [item for item, why in report.missing.items() if "INTERNAL_ERROR" in why]
    if not_emulated:
        advice = f"skipped: KVM cannot emulate the instructions that read them ({report.missing[not_emulated[0]]})"
        yield Finding("no", f"{len(not_emulated)} items of the guest's view", advice, enable)


def _plant(target: Target, name: str, host: Host) -> Finding:
    what = f"planting by guest code, {name.removeprefix('guest-')} mode"
    try:
        target.plant(name, "xapic").write(target.vcpu)
    except (GuestStopped, PlantRefused) as error:
        return Finding("no", what, f"skipped: cases of plant-{name}: {error}", _emulated(host))
    return Finding("ok", what)


def _tools() -> Iterator[Finding]:
    import shutil  # slow to import, and no other part of a run needs it

    if missing := guests.missing():
        yield Finding("no", "guest images", f"skipped: cases that need {', '.join(missing)}", "to enable: make guests")
    else:
        yield Finding("ok", f"guest images: {', '.join(guests.IMAGES)}")
    if native.library():
        yield Finding("ok", native.NAME)
    else:
        yield Finding("no", native.NAME, "Python does the same, more slowly", "to enable: make guests, with a C compiler")
    for program, what, packages in _PROGRAMS:
        if shutil.which(program):
            yield Finding("ok", program)
        else:
            yield Finding("no", program, f"for {what}", f"to enable: apt-get install --no-install-recommends {packages}")
