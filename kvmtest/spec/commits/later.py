# SPDX-License-Identifier: GPL-2.0-only
"""Commits on RESET, INIT, SIPI and SHUTDOWN beside the series in v5.15 and after it."""

from __future__ import annotations

from kvmtest.spec.commits.entry import KEPT, LESS, Entry, check, commit, items

__all__ = ("LATER",)

_RELEASE = "the release"
_REFACTORING = "refactoring: the values that a vCPU ends up with are the same before and after"
_WARN = "it changes when the host warns, and nothing else; a warning shows as none.lab.kernel.log"
_SEV = "needs an SEV-ES or SEV-SNP guest, hence hardware with that feature"
_TDX = "needs a TDX guest, hence hardware with that feature"
_CET = "needs a CPU with CET, which neither of the lab's emulators has"
#: Triggers of INIT in both modes of the local APIC.
_ANY = "latched,msi,gsi-msi,irqfd,ioapic,split"
_NO_ENTRY = "KVM_EXIT_FAIL_ENTRY hardware_entry_failure_reason"
_RACE = "a race: it needs the vCPU's thread to be preempted between two certain instructions"



LATER: tuple[Entry, ...] = (
    # v5.15 to v5.17
    commit(
        "03a6e84069d1", "v5.15", "x86: Clear KVM's cached guest CR3 at RESET/INIT", "common",
        "INIT clears CR3, of which KVM used to keep its own copy",
        items("init", "cr3", KEPT, views="host guest"),
        check("init.hypercall.guest.cr3", "0x5a5a5a018", case="to-another"),
        items("shutdown", "cr3", KEPT, "triple-fault", backends="svm"),
        before="the value from before", after="0x0",
    ),
    commit(
        "7117003fe4e3", "v5.15", "x86: Mark all registers as avail/dirty at vCPU creation", "common",
        "a new vCPU's registers are to be written before they are read", hidden=_REFACTORING,
    ),
    commit(
        "47d3530f86c0", "v5.15", "x86: Exit to userspace when kvm_check_nested_events fails", "common",
        "KVM_RUN and KVM_GET_MP_STATE return the error of an event of L2 that could not be delivered",
        hidden="the failure needs L1's own page tables for its guest to be unusable at that moment", unverified=_RELEASE,
    ),
    commit(
        "ff8828c84f93", "v5.16", "x86: Do not mark all registers as avail/dirty during RESET/INIT", "common",
        "RESET and INIT mark RSP and CR3 only", hidden=_REFACTORING,
    ),
    commit("5ebbc470d7f3", "v5.16", "x86: Remove defunct setting of CR0.ET for guests during vCPU create", "common", "drops a store that RESET repeats", hidden=_REFACTORING),
    commit("e8f65b9bb483", "v5.16", "x86: Remove defunct setting of XCR0 for guest during vCPU create", "common", "drops a store that RESET repeats", hidden=_REFACTORING),
    commit("583d369b36a9", "v5.16", "x86: Fold fx_init() into kvm_arch_vcpu_create()", "common", "merges a helper into its only caller", hidden=_REFACTORING),
    commit("d06567353e12", "v5.16", "VMX: Drop explicit zeroing of MSR guest values at vCPU creation", "VMX", "relies on memory that is zero", hidden=_REFACTORING),
    commit("06692e4b8055", "v5.16", "VMX: Move RESET emulation to vmx_vcpu_reset()", "VMX", "what v1#10 was about", hidden=_REFACTORING),
    commit("9ebe530b9f5d", "v5.16", "SVM: Move RESET emulation to svm_vcpu_reset()", "SVM", "what v1#9 was about, with OSVW and the microcode's revision", hidden=_REFACTORING),
    commit("62dd57dd67d7", "v5.16", "x86: WARN on non-zero CRs at RESET to detect improper initalization", "common", "warns where RESET finds a control register in use", hidden=_WARN),
    commit("25b9784586a4", "v5.16", "x86: Manually retrieve CPUID.0x1 when getting FMS for RESET/INIT", "common", "looks CPUID.1 up without a guest's CPUID instruction's extras", hidden=_REFACTORING),
    commit(
        "be4f3b3f8227", "v5.17", "x86: Keep MSR_IA32_XSS unchanged for INIT", "common",
        "INIT keeps IA32_XSS",
        items("init", "msr.xss", 0x0, known=False),
        before="0x0", after="unchanged; no other value than 0 can be written before v6.18",
    ),
    commit(
        "36222b117e36", "v5.15", "x86: don't disable APICv memslot when inhibited", "common",
        "an access to the APIC page goes to KVM where it does not use APICv, and not to a CPU that virtualizes TPR alone",
        # 5.10 reports it with kvm_intel.flexpriority=0, and after a migration.
        check("none.tpr-access.guest.exits", "VALUE 0x0", "vmx", case="split-irqchip,amd,read", sometimes=True),
        before="a guest's access to TPR is not reported", after="KVM_EXIT_TPR_ACCESS", unverified=_RELEASE,
    ),
    commit(
        "4c282e51e445", "v5.17", "x86: Update vCPU's runtime CPUID on write to MSR_IA32_XSS", "common",
        "CPUID.(EAX=0DH,ECX=1):EBX follows IA32_XSS",
        items("init", "cpuid.d1.ebx", None),
        hidden="IA32_XSS can be 0 only before v6.18, and the size is constant with it",
        after="the size that IA32_XSS asks for",
    ),
    commit(
        "f7e570780efc", "v5.17", "x86: Forcibly leave nested virt when SMM state is toggled", "nVMX nSVM",
        "KVM_SET_VCPU_EVENTS makes a vCPU leave L2 when it enters or leaves SMM",
        check("none.vcpu-events.host.nested.flags", 0x1, new=0x0, case="smm-in-svm-l2"),
        before="in SMM and in guest mode", after="in SMM, not in guest mode", backports=((5, 10),),
    ),
    commit(
        "5b61178cd2fd", "v5.17", "VMX: Mark VCPU_EXREG_CR3 dirty when !CR0_PG -> CR0_PG if EPT + !URG", "VMX",
        "a guest that turns on paging gets its own CR3 into the VMCS; without unrestricted guest only",
        hidden="the next write of CR3, which follows in any case that was tried, hides it", unverified="the release, and that it shows nowhere",
    ),
    # v5.18 to v6.1
    commit(
        "a57a31684d7b", "v5.18", "x86: Treat x2APIC's ICR as a 64-bit register, not two 32-bit regs", "common",
        "INIT clears the x2APIC's ICR as one register of 64 bits",
        items("init", "lapic.icr lapic.icr2", None),
        hidden="both halves are 0 after INIT without it as well",
        after="0x0", unverified=_RELEASE,
    ),
    commit(
        "1ee73a332f80", "v5.19", "x86: SVM: use vmcb01 in init_vmcb", "nSVM",
        "an INIT while L2 runs initialises L1's VMCB and not L2's",
        check("init.msi.host.nested.flags", case="in-svm-l2-settled"),
        check("init.msi.host.cr0", case="in-svm-l2-settled"),
        hidden="5.10, which has one VMCB for both, shows the same",
        unverified=_RELEASE,
    ),
    commit(
        "9fc222967a39", "v6.0", "x86: Give host userspace full control of MSR_IA32_MISC_ENABLES", "common",
        "IA32_MISC_ENABLE says from RESET on that BTS and PEBS are unavailable, and a VMM may write all of it",
        check("reset.create.host.msr.misc_enable", "0x0", case="no-debug-store"),
        before="0x0", after="0x1800", unverified=_RELEASE,
    ),
    commit(
        "c49467a45fe0", "v6.0", "x86/pmu: Don't overwrite the pmu->global_ctrl when refreshing", "common PMU",
        "IA32_PERF_GLOBAL_CTRL no longer starts with the fixed counters enabled, which are disabled at RESET",
        # Of 4 general-purpose and 3 fixed counters, as many CPUs have.
        items("reset", "msr.perf_global_ctrl", 0x70000000F, "create", backends="vmx"),
        check("none.set-cpuid2.host.delivered", "msr.perf_global_ctrl changed", "vmx", case="given-its-cpuid-again"),
        before="all counters enabled", after="0x0, until de120e1d692d", unverified=_RELEASE,
    ),
    commit(
        "4b903561ec49", "v6.0", "x86: Add Corrected Machine Check Interrupt (CMCI) emulation to lapic", "common",
        "the local APIC has a seventh LVT entry, masked by RESET and INIT, where KVM_X86_SETUP_MCE asks for CMCI",
        check("reset.create.host.lapic.lvt_cmci", case="cmci"),
        check("init.msi.host.lapic.lvt_cmci", case="cmci"),
        before="six LVT entries", after="0x10000, seven LVT entries", unverified=_RELEASE,
    ),
    commit(
        "ed2351174e38", "v6.0", "x86: Extend KVM_{G,S}ET_VCPU_EVENTS to support pending triple fault", "common",
        "a VMM may read and write whether a triple fault is pending",
        check("shutdown.vcpu-events.host.runs"),
        check("shutdown.vcpu-events.guest.exits", case="in-vmx-l2"),
        before="no such capability", after="KVM_EXIT_SHUTDOWN without guest code", unverified=_RELEASE,
    ),
    commit(
        "22c6a0ef6b26", "v6.0", "x86: check validity of argument to KVM_SET_MP_STATE", "common",
        "KVM_SET_MP_STATE refuses states that x86 does not have",
        check("none.mp-state.host.refused", "accepted", new="EINVAL", case="of-no-x86"),
        before="accepted", after="EINVAL",
    ),
    commit(
        "c2086eca8658", "v6.1", "nVMX: Ignore SIPI that arrives in L2 when vCPU is not in WFS", "nVMX",
        "a SIPI to an L2 that does not wait for one is dropped without disturbing what comes with it",
        check("sipi.msi.guest.exits", case="in-vmx-l2-loop"),
        hidden="5.10, which does not have it, drops a SIPI to L2 as well; what comes with it is a race",
    ),
    commit(
        "db25eb87ad42", "v6.1", "SVM: remove unnecessary check on INIT intercept", "nSVM",
        "an INIT to an L2 is held back by GIF alone, and by an intercept of L1's no longer",
        check("init.msi.guest.exits", case="in-svm-l2-intercepted"),
        hidden="5.10, which does not have it, shows the same: what was held back made the exit in another way",
    ),
    commit(
        "1b7a1b78d660", "v6.1", "x86: Rename and expose helper to detect if INIT/SIPI are allowed", "common",
        "a latched INIT wakes no HLT in VMX operation, and is accepted right after STGI, VM entry or VMXOFF, not at some later exit",
        check("init.msi.guest.runs", "the instruction after HLT", backends="vmx", case="halted-in-vmx-root"),
        also="5b4ac1a1b713 2ea89c7f7f7b a61353acc574 bf7f9352af5d 0bba8fc24c75 a56953e9506c ea2f00c6219e 1e17a6f8721c 26844fee6ade 599275c060a0",
        before="HLT ends in VMX root operation; after STGI, with kvm_amd.vgif=0, INIT waits for an unrelated exit",
        after="HLT continues; INIT is accepted before the next instruction",
        unverified="which of the commits does it",
    ),
    commit(
        "ed129ec9057f", "v6.1", "x86: forcibly leave nested mode on vCPU reset", "nSVM",
        "INIT and SHUTDOWN make a vCPU leave its L2",
        check("init.msi.guest.runs", case="in-svm-l2"),
        check("init.msi.host.nested.flags", case="in-svm-l2-settled"),
        also="f9697df25143 917401f26a6a 16ae56d7e052",
        hidden="5.10, which does not have it, leaves L2 as well, when INIT clears EFER.SVME",
        after="not in guest mode, L1's state as after INIT",
    ),
    commit(
        "92e7d5c83aff", "v6.1", "x86: allow L1 to not intercept triple fault", "nSVM",
        "a triple fault of an L2 whose L1 does not intercept SHUTDOWN goes to the VMM",
        check("shutdown.triple-fault.guest.runs", case="in-svm-l2"),
        hidden="5.10, which has no nested exit for a triple fault of KVM's own, gives this one to the VMM as well",
        after="KVM_EXIT_SHUTDOWN and INIT",
    ),
    # v6.2 to v6.16
    commit(
        "1d0da94cdafe", "v6.2", "x86: do not go through ctxt->ops when emulating rsm", "common",
        "RSM restores a segment limit below 4 GiB",
        check("none.rsm.host.delivered", "ds.limit, es.limit, fs.limit, gs.limit, ss.limit changed", case="guest-long"),
        check("none.rsm.host.delivered", "es.limit, fs.limit changed", case="guest-protected"),
        before="the lowest 20 bits of it, as pages", after="the limit", unverified=_RELEASE,
    ),
    commit(
        "fb28875fd7da", "v6.2", "x86: smm: preserve interrupt shadow in SMRAM", "common",
        "an SMI in an interrupt shadow keeps it in SMRAM, from where RSM restores it",
        check("none.rsm.host.events.interrupt_shadow", "0x0", case="in-shadow-of"),
        check("none.rsm.host.events.interrupt_shadow", "0x1", "vmx", case="in-shadow-of-mov-ss"),
        check("none.rsm.host.runs", f"{_NO_ENTRY}=0x80000021 flags=0x1", "vmx", case="in-shadow-of-sti"),
        before="no shadow after RSM", after="the shadow of STI or MOV SS", unverified=_RELEASE,
    ),
    commit(
        "2bf934aadcac", "v6.3", "x86: Disable APIC logical map if logical ID covers multiple MDAs", "common",
        "a logical id of several bits is found by each of them",
        check("sipi.icr-xapic.host.delivered", "no vCPU", case="to-logical-cluster-one-two-logical-ids"),
        check("nmi.icr-xapic.host.delivered", "vCPU 1", case="to-logical-several-cluster-one-two-logical-ids"),
        before="by the lowest one alone", after="by each", unverified=_RELEASE,
    ),
    commit(
        "2970052481b9", "v6.3", "x86: Disable APIC logical map if vCPUs are aliased in logical mode", "common",
        "all that have the same logical id get a message to it",
        check("sipi.icr-xapic.host.delivered", "vCPU 2", case="to-logical-and-nobody-flat-one-shared-logical-id"),
        check("nmi.ioapic.host.delivered", "vCPU 2", case="to-logical-cluster-one-shared-logical-id"),
        check("init.icr-xapic.host.delivered", "vCPU 2", case="to-logical-and-nobody-flat-one-shared-logical-id"),
        check("none.icr-xapic.host.delivered", "vCPU 2", case="fixed-to-logical-several-cluster-one-shared-logical-id"),
        before="the last one alone", after="all", unverified=_RELEASE,
    ),
    commit(
        "5b84b0291702", "v6.3", "x86: Honor architectural behavior for aliased 8-bit APIC IDs", "common",
        "all that have the same APIC id get a message to it, where ids have 8 bits",
        check("init.msi.host.delivered", "vCPU 1", case="to-physical-cluster-one-shared-id"),
        *(check(f"{event}.msi.host.delivered", "vCPU 1", case="same-apic-id") for event in ("init", "sipi", "none")),
        before="the first one alone", after="all", unverified=_RELEASE,
    ),
    commit(
        "ab52be1b310b", "v6.3", "x86: Inject #GP on x2APIC WRMSR that sets reserved bits 63:32", "common",
        "in x2APIC mode a WRMSR with bits 63:32 to another register than the ICR raises #GP",
        # The next word comes where the last #GP should. On VMX a CPU that virtualizes x2APIC mode raises it.
        check("none.apic-access.guest.runs", "VALUE 0xfee00d00", case="x2apic-registers-refused", sometimes=True),
        before="the bits are dropped", after="#GP", backports=((6, 1),), unverified=_RELEASE,
    ),
    commit(
        "ab2ee212a57b", "v6.4", "x86: Save/restore all NMIs when multiple NMIs are pending", "common",
        "two NMIs may be pending, and a VMM reads and writes both",
        check("none.ioctl-nmi.host.events.nmi_pending", "0x1", case="nmis-2"),
        check("none.ioctl-nmi.host.events.nmi_pending", "0x1", case="nmis-3"),
        check("none.vcpu-events.host.events.nmi_pending", "0x1", case="nmis-2"),
        before="1", after="2", unverified=_RELEASE,
    ),
    commit(
        "26a0652cb453", "v6.5", "x86: Disallow KVM_SET_SREGS{2} if incoming CR0 is invalid", "common",
        "KVM_SET_SREGS refuses a CR0 that no CPU can have",
        check("none.set-sregs.host.refused", "accepted", case="cr0-"),
        before="accepted", after="EINVAL", unverified=_RELEASE, backports=((6, 1),),
    ),
    commit(
        "fa4c027a7956", "v6.4", "x86: Add support for SVM's Virtual NMI", "SVM",
        "INIT enables virtual NMIs in the VMCB, where the CPU has them",
        items("init", "events.nmi_masked events.nmi_pending", None),
        hidden="needs a CPU with virtual NMIs, where all that can be read is as without them",
        after="as without virtual NMIs", unverified=_RELEASE,
    ),
    commit(
        "bc3d7c5570a0", "v6.7", "SVM: Update SEV-ES shutdown intercepts with more metadata", "SVM SEV-ES",
        "the shutdown of an encrypted guest is KVM_EXIT_SHUTDOWN and no error of KVM_RUN", hidden=_SEV, unverified=_RELEASE,
    ),
    commit(
        "598a790fc20f", "v6.7", "x86: Allow HWCR.McStatusWrEn to be cleared once set", "common",
        "writing 0 to HWCR clears McStatusWrEn, without which a VMM cannot bring the MSR back to its reset value",
        items("vmm-reset", "msr.hwcr", KEPT, "vmm-reset", "host guest"),
        before="the bit stays", after="0x0", unverified="the release, which rests on the pull request's date",
    ),
    commit(
        "9cfec6d097c6", "v6.7", "x86: Fix lapic timer interrupt lost after loading a snapshot.", "VMX",
        "what posted interrupts hold is discarded before the local APIC's state is loaded, and not after it",
        check("none.set-lapic.guest.delivered", known=False),
        before="the timer's interrupt is lost where the CPU posts interrupts", after="1 interrupt", unverified=_RELEASE,
    ),
    commit(
        "bf328e22e472", "v6.7", "x86: Don't sync user-written TSC against startup values", "common",
        "the first TSC that a VMM writes to a new vCPU is accepted, even if it is within a second of the vCPU's count",
        check("none.set-msrs.host.msr.tsc", "less than what was written", case="tsc-first-and-near"),
        items("migrate", "msr.tsc", LESS, "migrate", sometimes=True),
        before="the new vCPU's own count", after="counts on from what was saved", unverified=_RELEASE,
    ),
    commit("f2f63f7ec6fe", "v6.8", "x86/pmu: Stop calling kvm_pmu_reset() at RESET (it's redundant)", "common", "a new PMU is reset already", hidden=_REFACTORING, unverified=_RELEASE),
    commit(
        "de120e1d692d", "v6.9", 'x86/pmu: Set enable bits for GP counters in PERF_GLOBAL_CTRL at "RESET"', "common PMU",
        "IA32_PERF_GLOBAL_CTRL enables each general-purpose counter from the PMU's first CPUID on",
        items("reset", "msr.perf_global_ctrl", 0x0, "create", known=False),
        before="0x0 since c49467a45fe0", after="the general-purpose counters", unverified=_RELEASE,
    ),
    commit(
        "7c305d5118e6", "v6.11", "x86: Limit check IDs for KVM_SET_BOOT_CPU_ID", "common",
        "KVM_SET_BOOT_CPU_ID refuses ids that no vCPU can have, and no longer cuts them to 32 bits",
        *(
            check("none.set-boot-cpu-id.host.refused", "accepted", case=case)
            for case in ("id-beyond-the-last", "id-beyond-32-bits", "id-1-beyond-32-bits", "id-largest")
        ),
        before="accepted", after="EINVAL", unverified=_RELEASE,
    ),
    commit(
        "8b8e57e5096e", "v6.11", "Reject overly excessive IDs in KVM_CREATE_VCPU", "common",
        "KVM_CREATE_VCPU no longer cuts ids to 32 bits",
        check("none.create-vcpu.host.refused", "EEXIST", case="id-taken-beyond-32-bits"),
        before="the id's lower half is used", after="EINVAL", unverified=_RELEASE,
    ),
    commit(
        "4b7c3f6d04bd", "v6.11", "x86: Make x2APIC ID 100% readonly", "common",
        "KVM_SET_LAPIC leaves the x2APIC's id and LDR alone",
        *(
            check(f"none.set-lapic.host.lapic.{item}", old, case=f"id-{case}-in-x2apic-mode")
            for case, *olds in (("0", "0x0", "0x1"), ("other", "0x55000000", "0x50020"), ("largest", "0xff000000", "0xf8000"))
            for item, old in zip(("id", "ldr"), olds, strict=True)
        ),
        check("none.set-lapic.host.delivered", "lapic.id, lapic.ldr changed", case="in-x2apic-mode"),
        before="what was written", after="the vCPU's id", unverified=_RELEASE,
    ),
    commit("e366f92ea99e", "v6.11", "SEV: Support SEV-SNP AP Creation NAE event", "SVM SEV-SNP", "an AP's state is that which its guest installed", hidden=_SEV, unverified=_RELEASE),
    commit(
        "b6717d35d859", "v6.12", "x86: Stuff vCPU's PAT with default value at RESET, not creation", "common",
        "moves the write of PAT's reset value", hidden=_REFACTORING, unverified=_RELEASE,
    ),
    commit(
        "73b42dc69be8", "v6.12", "x86: Re-split x2APIC ICR into ICR+ICR2 for AMD (x2AVIC)", "SVM",
        "keeps the x2APIC's ICR in two halves on AMD, as x2AVIC does",
        items("init", "lapic.icr lapic.icr2", None),
        hidden="what it is for needs a CPU with x2AVIC; what it broke shows as a fail of lapic.icr2, which INIT keeps since then",
        after="ICR2 keeps its value through INIT in x2APIC mode", unverified=_RELEASE,
    ),
    commit(
        "731285fbb6f5", "v6.12", "VMX: reset the segment cache after segment init in vmx_vcpu_reset()", "VMX",
        "segments that were cached in the middle of INIT are read anew after it", hidden=_RACE, unverified=_RELEASE,
    ),
    commit(
        "dcb988cdac85", "v6.13", "x86: Quirk initialization of feature MSRs to KVM's max configuration", "common",
        "with KVM_X86_QUIRK_STUFF_FEATURE_MSRS disabled the feature MSRs of a new vCPU are 0",
        check("reset.create.host.msr.arch_capabilities", case="feature-msrs-unquirked"),
        before="KVM's maximum, without a choice", after="0 on demand", unverified=_RELEASE,
    ),
    commit(
        "ef01cac401f1", "v6.15", "x86: Acquire SRCU in KVM_GET_MP_STATE to protect guest memory accesses", "common",
        "takes the lock that an event of L2 needs", hidden="lockdep alone sees it", unverified=_RELEASE,
    ),
    commit(
        "e9cb61055fee", "v6.15", "x86: Clear pv_unhalted on all transitions to KVM_MP_STATE_RUNNABLE", "common",
        "a kick from before no longer ends a later HLT",
        check("sipi.msi.host.mp_state", "RUNNABLE", new="HALTED", case="earlier-kick"),
        also="c9e5f3fa9039", after="HALTED", unverified=_RELEASE,
    ),
    commit(
        "a2620f8932fa", "v6.15", "SVM: Forcibly leave SMM mode on SHUTDOWN interception", "SVM",
        "a triple fault in SMM leaves SMM, as INIT out of it has to",
        check("shutdown.triple-fault.host.events.smi_smm", case="in-smm"),
        after="not in SMM", unverified=_RELEASE, backports=((6, 1), (6, 12)),
    ),
    commit("", "v6.16", "TDX: Always block INIT/SIPI", "TDX", "a TD's vCPU never accepts them", hidden=_TDX, place="TDX", unverified="the id and the release"),
    # v6.17 to v7.2
    commit(
        "0fe3e8d804fd", "v6.17", "x86: Move INIT_RECEIVED vs. INIT/SIPI blocked check to KVM_RUN", "common",
        "INIT_RECEIVED may be set, and events beside it, while INIT is blocked; KVM_RUN is what refuses that state",
        check("none.mp-state.host.refused", "EINVAL", new="accepted", case="init-received-over-smi"),
        check("none.mp-state.host.refused", "EINVAL", new="accepted", case="in-smm"),
        check("none.vcpu-events.host.refused", "EINVAL", new="accepted", case="in-wait-for-sipi"),
        check("none.mp-state.host.refused", "EINVAL", new="accepted", case="gif-clear"),
        check("none.mp-state.host.refused", "EINVAL", new="accepted", case="init-received-in-vmx-root"),
        check("none.mp-state.host.refused", "EINVAL", new="accepted", case="sipi-received-in-vmx-root"),
        also="c4a37acc5193 16777ebded41 58c81bc1e71d", before="EINVAL", after="accepted",
    ),
    commit(
        "674ffc650351", "v6.17", "SVM: Disable interception of SPEC_CTRL iff the MSR exists for the guest", "SVM",
        "INIT no longer touches MSR intercepts", hidden=_REFACTORING,
    ),
    commit("41f6710f99f4", "v6.18", "x86: Manually clear MPX state only on INIT", "common", "RESET leaves state alone that is zero", hidden=_REFACTORING),
    commit(
        "c26675447faf", "v6.18", "x86: Zero XSTATE components on INIT by iterating over supported features", "common",
        "INIT clears the CET components beside those of MPX",
        items("init", "msr.u_cet msr.s_cet", KEPT, known=False),
        before="not there", after="0x0, where the CPU has CET",
    ),
    commit(
        "e140467bbdaf", "v6.18", "x86: Enable CET virtualization for VMX and advertise to userspace", "VMX",
        "guests have CET, which RESET and INIT switch off",
        items("init", "msr.s_cet ssp", KEPT, known=False),
        before="not there", after="0x0, where the CPU has CET",
    ),
    commit("8db428fd5229", "v6.18", "SVM: Enable shadow stack virtualization for SVM", "SVM", "guests have shadow stacks", hidden=_CET),
    commit(
        "8819a49f9ff8", "v6.18", 'x86: Unload "FPU" state on INIT if and only if its currently in-use', "common",
        "an INIT in KVM_GET_MP_STATE no longer unloads an FPU that was not loaded", also="9bc610b6a2a7", hidden=_CET,
    ),
    commit(
        "8312f1b9dd71", "v7.0", "SVM: Don't set GIF when clearing EFER.SVME", "nSVM",
        "GIF may be clear while EFER.SVME is clear, which holds back INIT",
        check("init.msi.host.nested.flags", 0x100, new=0x0, case="gif-clear-without-svme"),
        check("init.msi.host.refused", "EINVAL", new="accepted", case="gif-clear-without-svme"),
        also="6f4d3ebc24c6", unverified=_RELEASE,
    ),
    commit(
        "ead63640d4e7", "v7.0", "x86: Ignore -EBUSY when checking nested events from vcpu_block()", "nVMX nSVM",
        "a vCPU that blocks does not return to the VMM for an event that has to wait", hidden=_RACE, unverified=_RELEASE,
    ),
    commit(
        "c4a365cd4a4e", "v7.0", "x86: Drop WARN on INIT/SIPI being blocked when vCPU is in Wait-For-SIPI", "common",
        "no longer warns of a state that a VMM can bring about", hidden=_WARN, unverified=_RELEASE,
    ),
    commit(
        "6517dfbcc918", "v7.0", 'x86: Add x2APIC "features" to control EOI broadcast suppression', "common",
        "a VMM decides whether the local APIC's version offers to suppress EOI broadcasts",
        check("reset.create.host.lapic.version", case="eoi-broadcast"),
        check("init.msi.host.lapic.version", case="eoi-broadcast"),
        before="no such flags", after="bit 24 as the flag says", unverified=_RELEASE,
    ),
    commit(
        "cdc69269b18a", "v7.1", "SVM: Triple fault L1 on unintercepted EFER.SVME clear by L2", "nSVM",
        "an L2 that clears EFER.SVME shuts down L1",
        check("shutdown.wrmsr.guest.runs", "L2", new="KVM_EXIT_SHUTDOWN", case="in-svm-l2-without-svme"),
        before="L2 goes on", after="KVM_EXIT_SHUTDOWN", unverified=_RELEASE,
    ),
    commit(
        "184bd464bdb6", "v7.2", "x86: Check EFER validity on KVM_SET_SREGS*", "common",
        "KVM_SET_SREGS refuses reserved bits of EFER, and those of what the guest's CPUID does not have",
        check("none.set-sregs.host.refused", "accepted", case="efer-"),
        before="accepted", after="EINVAL", unverified=_RELEASE, backports=((6, 12),),
    ),
    commit(
        "bb365a506b1e", "v7.2", "x86: Unconditionally recompute CR8 intercept on PPR update", "common",
        "TPR_THRESHOLD, by which VMX exits for an interrupt that TPR masks, follows a TPR that INIT clears",
        check("init.msi.guest.runs", f"{_NO_ENTRY}=0x7", "vmx", case="interrupt-below-tpr"),
        # A VM that is migrated after INIT has a new VMCS.
        *(
            check(f"init.{{{_ANY},icr-{mode}}}.guest.runs", old, "vmx", case=f"{mode},plant-guest-long,irq-requested", sometimes=True)
            for mode, old in (("x2apic", f"{_NO_ENTRY}=0x7"), ("xapic", "executes nothing"))
        ),
        before="VM entry fails, or exits at once for ever, while TPR_THRESHOLD is above TPR",
        after="the first instruction at the reset vector", unverified=_RELEASE, backports=((6, 12),),
    ),
    commit("fc40b1254c32", "v7.2", "x86: Add mode-aware versions of kvm_<reg>_{read,write}() helpers", "common", "uses a 32-bit accessor for EDX in kvm_vcpu_reset()", hidden=_REFACTORING, unverified=_RELEASE),
    commit(
        "", "", "x86: Unconditionally reset MMU context when emulating INIT", "SVM",
        "INIT resets the MMU whatever CR0.PG was, which a SHUTDOWN intercept has cleared by then: since 265e43530cb2 and 5d2d7e41e3b8",
        check("init.msi.guest.runs", "executes nothing", "svm", case="in-shutdown", known=False),
        place="MMU", before="a vCPU that comes out of paging by SHUTDOWN executes nothing",
        after="the first instruction at the reset vector", backports=((6, 12),),
        unverified="the id and the release; Debian's 6.12.118 has it, its 7.2.13 does not",
    ),
)
