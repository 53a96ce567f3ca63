# SPDX-License-Identifier: GPL-2.0-only
"""What this machine's KVM can do, and what to install or enable for the rest."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from kvmtest.engine import guest
from kvmtest.engine import host as host_facts
from kvmtest.engine.machine import Machine, Machines, SetupError, Target
from kvmtest.engine.plan import Setup
from kvmtest.engine.result import Host
from kvmtest.guests import GuestMissing
from kvmtest.kvm import Kvm, KvmError
from kvmtest.state.inside import GUEST_PLANTS, GuestStopped, PlantRefused
from kvmtest.state.snapshot import Unread
from kvmtest.uapi import kvm as uapi
from kvmtest.x86 import cpuid, msr, xsave

__all__ = ("Finding", "Unusable", "examine", "open_kvm")

_API_VERSION = 12


class Unusable(RuntimeError):
    """Nothing can be tested with this /dev/kvm; the message says why and what to do."""


class Finding(NamedTuple):
    """One line of ``kvmtest doctor``: ``state`` is ``ok``, ``no`` (some checks are skipped) or ``bad`` (nothing can run)."""

    state: str
    what: str
    advice: str = ""


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
_OPTIONAL = (
    ("KVM_CAP_SPLIT_IRQCHIP", uapi.KVM_CAP_SPLIT_IRQCHIP, "RESET with a split irqchip"),
    ("KVM_CAP_SET_BOOT_CPU_ID", uapi.KVM_CAP_SET_BOOT_CPU_ID, "RESET with another boot CPU id"),
    ("KVM_CAP_X2APIC_API", uapi.KVM_CAP_X2APIC_API, "a broadcast to vCPUs with ids above 255"),
    ("KVM_CAP_NESTED_STATE", uapi.KVM_CAP_NESTED_STATE, "nested.* (module parameter nested=1)"),
    ("KVM_CAP_X86_SMM", uapi.KVM_CAP_X86_SMM, "events.smi_*, msr.smbase"),
    ("KVM_CAP_XSAVE2", uapi.KVM_CAP_XSAVE2, "XSAVE state above 4096 bytes (AMX)"),
)
#: Programs that are not needed to run, and what they are for.
_PROGRAMS = (
    ("objdump", "the names of instructions that KVM cannot emulate"),
    ("gcc", "checks of the bindings against <linux/kvm.h>, make bench"),
    ("ld", "make guests"),
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
        raise Unusable(f"{path}: KVM API version {version}, this tool speaks {_API_VERSION}")
    lacking = [name for name, cap in _REQUIRED if not kvm.check_extension(cap)]
    if lacking:
        raise Unusable(f"{path}: this KVM lacks {', '.join(lacking)}")
    try:
        kvm.create_vm().close()
    except OSError as error:
        busy = "; another hypervisor uses the CPU's virtualization: stop it" if error.errno == errno.EBUSY else ""
        raise Unusable(f"{path}: {error}{busy}") from error


def examine(path: str) -> Iterator[Finding]:
    """All findings, the ones that matter most first."""
    host = host_facts.detect()
    try:
        kvm = open_kvm(path)
    except Unusable as error:
        yield Finding("bad", "KVM", str(error))
    else:
        with kvm:
            yield Finding("ok", f"{path} is usable, API version {_API_VERSION}")
            yield from _kvm(kvm)
            yield from _guests(kvm, host)
    known = host.backend in ("vmx", "svm")
    advice = "descriptor-cache attributes are judged by either vendor's values, what a shutdown leaves is only recorded"
    advice = "" if known else advice
    yield Finding("ok" if known else "no", f"backend {host.backend}, kernel {host.kernel}, {host.cpu_model}", advice)
    if host.parameters.get("kvm.ignore_msrs", "N") in ("Y", "1"):
        yield Finding("no", "kvm.ignore_msrs is on", "MSRs that KVM does not list are left out, as all of them seem to read")
    yield from _tools()


def _kvm(kvm: Kvm) -> Iterator[Finding]:
    for name, cap, what in _OPTIONAL:
        there = kvm.check_extension(cap)
        yield Finding("ok" if there else "no", name, "" if there else f"skipped: {what}")
    leaves = kvm.supported_cpuid()
    there_bits = cpuid.xsave_components(leaves)
    names = [c.name for c in xsave.COMPONENTS if c.bit in there_bits]
    absent = [c.name for c in xsave.COMPONENTS if c.bit not in there_bits]
    yield Finding("ok", f"XSAVE components: x87 SSE {' '.join(names)}".rstrip())
    if absent:
        yield Finding("no", f"XSAVE components not offered to guests: {' '.join(absent)}", "skipped: their registers")
    most = kvm.check_extension(uapi.KVM_CAP_MAX_VCPUS)
    few = "" if most >= 255 else "skipped: broadcasts to more"
    yield Finding("no" if few else "ok", f"up to {most} vCPUs a VM", few)
    listed = kvm.msr_index_list()
    unnamed = [index for index in listed if msr.name_of(index).startswith("0x")]
    yield Finding("ok", f"{len(listed)} MSRs in KVM_GET_MSR_INDEX_LIST, {len(unnamed)} without a name in this tool")


def _guests(kvm: Kvm, host: Host) -> Iterator[Finding]:
    """What guest code can do here: found by letting it run once on each road that others depend on."""
    machines = Machines(kvm, host)
    try:
        machine = machines.fresh(Setup("full", "amd" if host.cpu_vendor == "AuthenticAMD" else "intel", memory=True))
        with machine.vm:
            target = machine.target("bsp")
            yield from _observer(machine, target)
            for name in GUEST_PLANTS:
                yield _plant(target, name)
    except (GuestMissing, KvmError, SetupError, Unread) as error:
        yield Finding("no", "guest code", f"skipped: the guest's view and what guest code plants: {error}")
    finally:
        machines.close()


def _observer(machine: Machine, target: Target) -> Iterator[Finding]:
    report = guest.Reporter(machine, target.vcpu, target.layout).report(1.0)
    yield Finding("no" if report.problem else "ok", f"the guest's view: {len(report.values)} items", report.problem)
    not_emulated = [item for item, why in report.missing.items() if "INTERNAL_ERROR" in why]
    if not_emulated:
        advice = f"skipped: KVM cannot emulate what reads them ({report.missing[not_emulated[0]]})"
        yield Finding("no", f"{len(not_emulated)} items of the guest's view", advice)


def _plant(target: Target, name: str) -> Finding:
    what = f"planting by guest code, {name.removeprefix('guest-')} mode"
    try:
        target.plant(name, "xapic").write(target.vcpu)
    except (GuestStopped, PlantRefused) as error:
        return Finding("no", what, f"skipped: cases of plant-{name}: {error}")
    return Finding("ok", what)


def _tools() -> Iterator[Finding]:
    import shutil  # slow to import, and no other part of a run needs it

    names = ("spine", "sender", "planter", "behaviour", "stress")
    folder = os.path.join(os.path.dirname(os.path.dirname(__file__)), "guests")
    missing = [name for name in names if not os.path.exists(os.path.join(folder, f"{name}.bin"))]
    advice = f"skipped: what needs {', '.join(missing)}; make guests" if missing else ""
    yield Finding("no" if missing else "ok", "guest images", advice)
    for program, what in _PROGRAMS:
        found = shutil.which(program)
        yield Finding("ok" if found else "no", program, "" if found else f"for {what}: apt-get install gcc libc6-dev binutils")
