# SPDX-License-Identifier: GPL-2.0-only
"""Commits on RESET, INIT, SIPI and SHUTDOWN from before the series of v5.15; all of the lab's kernels have most of them."""

from __future__ import annotations

from kvmtest.spec.commits.entry import KEPT, Entry, check, commit, items, kept

__all__ = ("BEFORE",)

_RELEASE = "the release"


BEFORE: tuple[Entry, ...] = (
    commit(
        "d28bc9dd25ce", "v4.2", "x86: INIT and reset sequences are different", "common",
        "distinguishes INIT from RESET: INIT keeps the FPU, most MSRs and the APIC base",
        items("init", "fcw xmm0 msr.star apic_base", None),
        before="as at RESET", after="unchanged", unverified="the subject and the release",
    ),
    commit(
        "cd7764fe9f73", "v4.2", "x86: latch INITs while in system management mode", "common",
        "an INIT in SMM waits for RSM",
        check("init.msi.host.pending", known=False, case="in-smm"),
        check("init.msi.guest.pending", known=False, case="after-rsm"),
        check("init.msi.guest.runs", known=False, case="after-rsm"),
        before="accepted in SMM", after="accepted after RSM", unverified=_RELEASE,
    ),
    commit(
        "a554d207dc46", "v4.15", "X86: Processor States following Reset or INIT", "common",
        "XCR0 is 1 after RESET and kept by INIT; the bound registers are 0 after both",
        items("init", "xcr0", 0x1, known=False),
        before="1 after INIT too", after="unchanged by INIT", unverified=_RELEASE,
    ),
    commit(
        "4b9852f4f389", "v5.4", "x86: Fix INIT signal handling in various CPU states", "nVMX nSVM",
        "an INIT waits in VMX operation and while GIF is clear, and makes VM exit 3 of an L2",
        check("init.msi.guest.runs", known=False, case="in-vmx-root-until-vmxoff"),
        check("init.msi.guest.exits", known=False, case="in-vmx-l2-loop"),
        check("init.msi.host.pending", known=False, case="gif-clear"),
        check("init.msi.guest.pending", known=False, case="at-stgi"),
        before="accepted at once", after="latched, or a VM exit", unverified=_RELEASE,
    ),
    commit(
        "684c0422da71", "v5.7", "nVMX: Handle pending #DB when injecting INIT VM-exit", "nVMX",
        "the VM exit that an INIT makes of an L2 saves its pending debug exceptions",
        check("init.msi.guest.exits", known=False, case="in-vmx-l2-in-single-step"),
        before="0x0", after="0x4000", unverified=_RELEASE,
    ),
    commit(
        "2259c17f0188", "v5.11", "x86: Sink cpuid update into vendor-specific set_cr4 functions", "common",
        "CPUID's OSXSAVE and OSPKE follow CR4 through INIT as well, and not through a guest's and a VMM's writes only",
        items("init", "cpuid.1.ecx cpuid.7.ecx", KEPT, views="host guest"),
        # In SMM CR4 is 0, and RSM restores it before the INIT that waits for that.
        *(
            items("init", item, kept(1 << bit), views="host guest", case="in-smi-handler")
            for item, bit in (("cpuid.1.ecx", 27), ("cpuid.7.ecx", 4))
        ),
        items("shutdown", "cpuid.1.ecx cpuid.7.ecx", KEPT, "triple-fault", backends="svm"),
        before="set though CR4 is 0", after="clear", unverified=_RELEASE,
    ),
    commit(
        "bf0cd88ce363", "v5.11", "x86: emulate wait-for-SIPI and SIPI-VMExit", "nVMX",
        "an L2 may be entered in wait-for-SIPI, where a SIPI makes VM exit 4",
        check("sipi.msi.guest.exits", case="intel,in-vmx-l2-waiting"),
        check("none.vm-entry.host.msr.vmx_misc", "0x0", new="0x100", case="in-vmx-l2-waiting"),
        check("init.msi.guest.exits", case="in-vmx-l2-waiting"),
        before="the VM entry fails", after="exit reason 4 with the vector", unverified=_RELEASE,
    ),
    commit(
        "1c96dcceaeb3", "v5.11", "x86: fix apic_accept_events vs check_nested_events", "nVMX",
        "what an INIT or SIPI does to an L2 is handled before the vCPU itself accepts it",
        check("init.msi.host.nested.flags", "0x1", new="0x0", case="in-vmx-l2-at-get-mp-state"),
        before="KVM_GET_MP_STATE leaves an INIT to L2 pending", after="it makes the VM exit", unverified=_RELEASE,
    ),
    commit(
        "f57ad63a835c", "v5.11", "x86: ignore SIPIs that are received while not in wait-for-sipi state", "common",
        "a SIPI to a vCPU that does not wait for one is dropped, and not kept for the next INIT",
        check("sipi.msi.host.delivered", case="running"),
        check("init.msi.host.mp_state", case="running"),
        hidden="5.10 does not have it and drops such a SIPI as well: only 1c96dcceaeb3, of the same release, made KVM keep one",
        after="dropped", unverified=_RELEASE,
    ),
    commit(
        "647daca25d24", "v5.11", "SVM: Add support for booting APs in an SEV-ES guest", "SVM SEV-ES",
        "a SIPI ends the AP reset hold of an encrypted vCPU instead of loading registers",
        hidden="needs an SEV-ES guest, hence hardware with that feature", unverified=_RELEASE,
    ),
    commit(
        "9e46f6c6c959", "v5.12", "SVM: Clear the CR4 register on reset", "SVM",
        "INIT clears the CR4 that KVM keeps beside the VMCB's",
        items("init", "cr4", KEPT, views="host guest"),
        before="the value from before", after="0x0", backports=((5, 10),),
    ),
    commit(
        "422e2e17066c", "v5.13", "x86: mmu: initialize fault.async_page_fault in walk_addr_generic", "nVMX",
        "a page fault of an L2 goes to L1 if L1 intercepts it, and not by an uninitialized byte that says it is an async page fault",
        check("shutdown.triple-fault.guest.exits", "reason 0", "vmx", case="in-vmx-l2", sometimes=True, without="ept"),
        before="with ept=0 a VM exit for a page fault, by chance", after="a page fault in L2",
    ),
    commit(
        "cb6a32c2b877", "v5.13", "x86: Handle triple fault in L2 without killing L1", "nVMX nSVM",
        "a triple fault of an L2 goes to L1, as VM exit 2 or #VMEXIT(7FH), and not to the VMM",
        check("shutdown.set-mce.guest.exits", "KVM_EXIT_SHUTDOWN", "svm", case="in-svm-l2-intercepted"),
        check("shutdown.triple-fault.guest.exits", "KVM_EXIT_SHUTDOWN", "vmx", case="in-vmx-l2", sometimes=True, without="ept"),
        before="KVM_EXIT_SHUTDOWN, where KVM itself found the triple fault", after="a nested exit",
    ),
    commit(
        "6906e06db9b0", "v5.13", "nSVM: Add missing checks for reserved bits to svm_set_nested_state()", "nSVM",
        "KVM_SET_NESTED_STATE refuses a state of L1 whose control registers or RFLAGS no CPU can have there",
        *(
            check("none.nested-state.host.refused", "accepted", case=f"l1-of-svm-l2-{name}")
            for name in ("cr0-nw-without-cd", "cr0-beyond-32-bits", "without-pae", "virtual-8086-mode")
        ),
        before="accepted", after="EINVAL",
    ),
    commit(
        "ee695f22b54a", "v5.13", "nSVM: Check addresses of MSR and IO permission maps", "nSVM",
        "VMRUN fails where a permission map that is used lies beyond physical memory",
        check("none.vmrun.guest.exits", "L2", case="beyond-memory"),
        before="L2 runs", after="VMEXIT_INVALID", unverified=_RELEASE,
    ),
    commit(
        "25b17226cd9a", "v5.14", "x86: Emulate triple fault shutdown if RSM emulation fails", "common",
        "an RSM that fails shuts the CPU down, and is not an error of KVM's emulation any more",
        *(
            check("shutdown.rsm.guest.runs", "KVM_EXIT_INTERNAL_ERROR KVM_INTERNAL_ERROR_EMULATION ndata=0 words=[]", case=case)
            for case in ("cr4-reserved", "cr0-pg-without-pe", "cr0-nw-without-cd")
        ),
        before="KVM_EXIT_INTERNAL_ERROR", after="KVM_EXIT_SHUTDOWN", unverified=_RELEASE,
    ),
)
