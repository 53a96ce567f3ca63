# SPDX-License-Identifier: GPL-2.0-only
"""A reproducer as a file of the kernel's tools/testing/selftests/kvm/x86, by the helpers that are there."""

from __future__ import annotations

from kvmtest.emit.c import File, narrow
from kvmtest.emit.repro import Leaf, NoRepro, Repro
from kvmtest.emit.variables import number, quoted
from kvmtest.scenario import program as p

__all__ = ("source",)

#: Ops without a statement here: all of them concern guest code.
_OF_GUESTS = (
    p.Region, p.Write, p.Match, p.Peek, p.Enter, p.Said, p.Start, p.Join, p.Poll, p.Finish, p.Window, p.Reply, p.Irqfd, p.Rebuild,
    p.Listed,
)  # fmt: skip
#: Ioctls that return more than 0 when they succeed.
_COUNTING = ("KVM_SIGNAL_MSI",)
#: Members with the type whose address an ioctl gets.
_INNER = {"kvm_cpuid2": "head", "kvm_irq_routing": "head", "kvm_nested_state": "state", "kvm_xsave": "area"}


def source(repro: Repro, head: list[str]) -> str:
    """The C file of ``repro``; ``head`` are the lines of its first comment. Raises NoRepro for one that runs guest code."""
    for _, op in (*repro.vm.ops, *repro.body.ops):
        if isinstance(op, _OF_GUESTS) or isinstance(op, p.Ioctl) and op.on == p.NEW_VM:
            raise NoRepro("in the selftests' style there is none: it needs a guest, an eventfd, or another VM; --style c has it")
    return _Selftest(repro).file(head)


class _Selftest(File):
    def __init__(self, repro: Repro) -> None:
        super().__init__(repro)
        self.used = set()

    def fd(self, on: int) -> str:
        """The descriptor of a vCPU, or of the VM."""
        return f"{super().fd(on)}->fd"

    def address(self, var: str, kind: str, size: int) -> str:
        """The address of a structure of the type that the ioctl's number has."""
        inner = _INNER.get(kind) if kind in ("kvm_cpuid2", "kvm_irq_routing") or self.large(kind, size) else None
        return f"&{var}.{inner}" if inner else super().address(var, kind, size)

    def leaf(self, name: str, leaf: Leaf) -> str:
        """A register of a CPUID leaf."""
        return f"get_cpuid_entry(&{name}.head, {number(leaf.function)}, {leaf.index})->{leaf.register}"

    def create(self, vcpu: int, named: bool) -> None:
        """Create a vCPU, in a variable where it is ``named`` later."""
        if not named:
            self.say(f"__vm_vcpu_add(vm, {vcpu});")
            return
        self.declared[f"vcpu{vcpu}"] = f"struct kvm_vcpu *vcpu{vcpu}"
        self.say(f"vcpu{vcpu} = __vm_vcpu_add(vm, {vcpu});")

    def issue(self, on: int | None, request: str, arg: str) -> None:
        """An ioctl that has to succeed."""
        arg = arg if arg.startswith("&") else "NULL" if arg == "0" else f"(void *){arg}"
        if on is None:
            self.say(f"kvm_ioctl(vm->kvm_fd, {request}, {arg});")
        elif request == "KVM_CREATE_IRQCHIP":
            self.say("vm_create_irqchip(vm);")
        elif request in _COUNTING:
            self.say(f'TEST_ASSERT(__vm_ioctl(vm, {request}, {arg}) >= 0, "{request} failed, errno %d", errno);')
        else:
            kind, name = ("vm", "vm") if on == p.VM else ("vcpu", f"vcpu{on}")
            self.say(f"{kind}_ioctl({name}, {request}, {arg});")

    def attempt(self, on: int, request: str, arg: str) -> None:
        """An ioctl that KVM may refuse."""
        kind, name = ("vm", "vm") if on == p.VM else ("vcpu", f"vcpu{on}")
        self.say(f"__{kind}_ioctl({name}, {request}, {arg});")

    def get_msr(self, on: int, name: str, to: str) -> None:
        """Read an MSR that has to be there."""
        self.say(f"{to and f'{to} = '}vcpu_get_msr(vcpu{on}, {name});")

    def set_msr(self, on: int, name: str, value: str) -> None:
        """Write an MSR, which has to succeed."""
        # vcpu_set_msr() wants KVM to keep the value, too.
        self.say(f'TEST_ASSERT(_vcpu_set_msr(vcpu{on}, {name}, {value}) == 1, "KVM_SET_MSRS of {name}");')

    def skip(self, holds: str, why: str) -> None:
        """End main() unless a condition ``holds``: there is nothing to show."""
        self.say(f'__TEST_REQUIRE({holds}, "{quoted(why)}");')

    def ended(self, item: str, differs: str, expected: str, form: str, shown: str) -> None:
        """Fail where the condition ``differs`` holds."""
        same = differs.replace(" != ", " == ").replace(" && ", " || ")
        self.say("", f'TEST_ASSERT({same}, "{item}: expected {expected}, observed {form}", {shown});')

    def checks(self) -> None:
        """Append the comparison of the last read with the expected values."""
        checks = narrow(self.repro.checks)
        if len(checks) == 1:
            super().checks()
            return
        self.say("")
        self.declared.setdefault("observed", "__u64 observed")
        for check in checks:
            tests = " || ".join(f"observed == {one}" for one in self.literals(check))
            expected = " or ".join(self.literals(check))
            self.say(f"observed = {self.observed(check)};")
            self.say(f'TEST_ASSERT({tests}, "{check.item}: expected {expected}, observed %#llx", observed);')

    def begin(self) -> None:
        """Append the beginning of main()."""
        self.declared["vm"] = "struct kvm_vm *vm"
        self.say("vm = vm_create_barebones();")

    def over(self) -> None:
        """Append the end of main()."""
        self.say("kvm_vm_free(vm);", "return 0;")

    def define(self, name: str, value: str) -> str:
        """A macro, which one of the kernel's headers may have."""
        return f"#ifndef {name}\n{super().define(name, value)}\n#endif"

    def preamble(self, text: str) -> list[str]:
        """The headers."""
        headers = sorted({*self.includes(text), *(["errno.h"] if "errno" in text else [])})
        lines = [*(f"#include <{name}>" for name in headers), ""] if headers else []
        return [*lines, *(f'#include "{name}.h"' for name in ("kvm_util", "processor", "test_util")), ""]
