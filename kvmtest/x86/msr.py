# SPDX-License-Identifier: GPL-2.0-only
"""Model-specific registers that KVM may let the host read, and values that KVM_SET_MSRS accepts for them."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ("IN_SREGS", "MSRS", "SAME", "Msr", "index_of", "name_of")

Plants = tuple[int, int]


class Msr(NamedTuple):
    """MSR ``index``; its item is ``msr.<name>``.

    ``plants`` are two legal values, neither of them the RESET value, complementary in the writable bits as far as the
    architecture and KVM allow, or None with the reason in ``why``. Equal ones: there is no other legal non-RESET value.
    ``why`` of a plant says on what KVM makes it depend. KVM may keep less than it accepts: what reads back is the plant. ``sregs``
    is the item of struct kvm_sregs that it is planted as.
    """

    name: str
    index: int  # type: ignore[assignment]  # tuple has a method of this name
    plants: Plants | None
    why: str = ""
    sregs: str = ""


_ANY = (0x5555555555555555, 0xAAAAAAAAAAAAAAAA)
_LOW32 = (0x55555555, 0xAAAAAAAA)
_CANONICAL = (0xFFFFD55555555555, 0x00002AAAAAAAAAAA)
_SHADOW_STACK = (0xFFFFD55555555550, 0x00002AAAAAAAAAA8)
_COUNTER = (0x55555555, 0x2AAAAAAA)  # without the bit from which a legacy write is sign-extended
_AMD_COUNTER = (0x555555555555, 0xAAAAAAAAAAAA)
_EVENTSEL = (0x55155555, 0xAA8AAAAA)  # EN clear, AnyThread reserved
_AMD_EVENTSEL = (0x555155555, 0xAAA82AAAA)  # EN clear, bits 19 and 21 reserved
_TYPES = (0x0106010601060106, 0x0601060106010601)  # WB and WC are complements; both legal in PAT and MTRRs
_PHYS_BASE = (0x555555006, 0xAAAAAA001)  # within 36 physical address bits
_PHYS_MASK = (0x555555800, 0xAAAAAA000)
_ALL_OR_NONE = (0x0, 0xFFFFFFFFFFFFFFFF)

_SREGS = "planted through KVM_SET_SREGS"
_MODEL = "describes the CPU model; read-only"
_CONSTANT = "KVM returns a constant"
_PT = "KVM accepts it only with Intel PT in the guest (CPUID leaf 14H)"
_GUEST_MEMORY = "KVM's paravirtual interface: writing it makes KVM write to guest memory"
_PARAVIRT = "KVM's paravirtual interface"
_HYPERV = "Hyper-V's synthetic interface"
_CMCI = "needs MCG_CAP.CMCI_P, set by KVM_X86_SETUP_MCE"
_ALIAS = "the same counter as pmc{}, written in full width"
_SYSENTER = "a guest with AMD's CPUID vendor keeps the low 32 bits only"
_SHSTK = "needs CET shadow stacks in the guest's CPUID"
_FRED = "needs FRED in the guest's CPUID"
_SGX = "needs SGX_LC in the guest's CPUID"
_PERFMON2 = "needs AMD's PerfMonV2 in the guest's CPUID"
_PMU = "needs version 2 of the architectural PMU in the guest's CPUID"
_LBRV = "needs LBR virtualization (svm)"

_LINES = (
    Msr("tsc", 0x10, (0x0000555555555555, 0x00002AAAAAAAAAAA), "continues to count from the planted value"),
    Msr("kvm_wall_clock", 0x11, None, _GUEST_MEMORY),
    Msr("kvm_system_time", 0x12, None, _GUEST_MEMORY),
    Msr("apic_base", 0x1B, None, _SREGS, "apic_base"),
    Msr("smi_count", 0x34, _LOW32, "read-only to the guest"),
    Msr("feat_ctl", 0x3A, (0x4, 0x1), "needs VMX in the guest's CPUID; VMXON needs both bits"),
    Msr("tsc_adjust", 0x3B, _ANY, "needs TSC_ADJUST in the guest's CPUID, or KVM drops it"),
    Msr("spec_ctrl", 0x48, (0x1, 0x4), "as the host's CPU allows"),
    Msr("ucode_rev", 0x8B, (0x5555555500000000, 0xAAAAAAAA00000000), "read-only to the guest"),
    *(Msr(f"sgxlepubkeyhash{i}", 0x8C + i, _ANY, _SGX) for i in range(4)),
    Msr("smbase", 0x9E, (0x55550000, 0xAAAA8000), "host only; the next SMI enters at SMBASE + 8000h"),
    *(Msr(f"pmc{i}", 0xC1 + i, _COUNTER, "needs the counter in the guest's CPUID") for i in range(8)),
    Msr("platform_info", 0xCE, None, _MODEL),
    Msr("umwait_control", 0xE1, (0x55555555, 0xAAAAAAA8), "needs WAITPKG in the guest's CPUID; bit 1 is reserved"),
    Msr("mtrrcap", 0xFE, None, _MODEL),
    Msr("arch_capabilities", 0x10A, None, _MODEL),
    Msr("tsx_ctrl", 0x122, (0x1, 0x2), "needs ARCH_CAPABILITIES.TSX_CTRL"),
    Msr("misc_features_enables", 0x140, (0x1, 0x1), "CPUID faulting is the only bit; needs PLATFORM_INFO.CPUID_FAULT"),
    Msr("sysenter_cs", 0x174, (0x5555, 0xAAAA)),
    Msr("sysenter_esp", 0x175, _CANONICAL, _SYSENTER),
    Msr("sysenter_eip", 0x176, _CANONICAL, _SYSENTER),
    Msr("mcg_cap", 0x179, None, _MODEL),
    Msr("mcg_status", 0x17A, (0x1, 0x6)),
    Msr("mcg_ctl", 0x17B, _ALL_OR_NONE, "needs MCG_CAP.MCG_CTL_P, set by KVM_X86_SETUP_MCE; nothing else is legal"),
    *(Msr(f"perfevtsel{i}", 0x186 + i, _EVENTSEL, "needs the counter in the guest's CPUID") for i in range(8)),
    Msr("misc_enable", 0x1A0, (0x1801, 0x11808), "BTS and PEBS stay unavailable: these bits are read-only"),
    Msr("xfd", 0x1C4, (0x40000, 0x40000), "AMX tile data is the only component that KVM knows"),
    Msr("xfd_err", 0x1C5, (0x40000, 0x40000), "AMX tile data is the only component that KVM knows"),
    *(Msr(f"fred_rsp{i}", 0x1CC + i, (0xFFFFD55555555540, 0x00002AAAAAAAAA80), _FRED) for i in range(4)),
    Msr("fred_stklvls", 0x1D0, _ANY, _FRED),
    *(Msr(f"fred_ssp{i}", 0x1D0 + i, _SHADOW_STACK, _FRED) for i in range(1, 4)),
    Msr("fred_config", 0x1D4, (0xFFFFD55555555541, 0x00002AAAAAAAA28A), _FRED),
    Msr("debugctl", 0x1D9, (0x1, 0x2), "LBR and BTF as KVM virtualizes them; it may drop either without an error"),
    Msr("lastbranchfromip", 0x1DB, _CANONICAL, _LBRV),
    Msr("lastbranchtoip", 0x1DC, _CANONICAL, _LBRV),
    Msr("lastintfromip", 0x1DD, _CANONICAL, _LBRV),
    Msr("lastinttoip", 0x1DE, _CANONICAL, _LBRV),
    Msr("power_ctl", 0x1FC, (0x1, 0x2)),
    *(Msr(f"mtrr_physbase{i}", 0x200 + 2 * i, _PHYS_BASE) for i in range(8)),
    *(Msr(f"mtrr_physmask{i}", 0x201 + 2 * i, _PHYS_MASK) for i in range(8)),
    Msr("mtrr_fix64k_00000", 0x250, _TYPES),
    Msr("mtrr_fix16k_80000", 0x258, _TYPES),
    Msr("mtrr_fix16k_a0000", 0x259, _TYPES),
    *(Msr(f"mtrr_fix4k_{0xC0000 + 0x8000 * i:x}", 0x268 + i, _TYPES) for i in range(8)),
    Msr("pat", 0x277, _TYPES),
    *(Msr(f"mc{i}_ctl2", 0x280 + i, (0x5555, 0x40002AAA), _CMCI) for i in range(32)),
    Msr("mtrr_def_type", 0x2FF, (0xC06, 0x001)),
    *(Msr(f"fixed_ctr{i}", 0x309 + i, _COUNTER, "needs the counter in the guest's CPUID") for i in range(4)),
    Msr("perf_capabilities", 0x345, None, _MODEL),
    Msr("fixed_ctr_ctrl", 0x38D, (0x8A1, 0x31A), "needs three fixed counters in the guest's CPUID"),
    Msr("perf_global_status", 0x38E, (0x1, 0x2), "read-only to the guest; " + _PMU),
    Msr("perf_global_ctrl", 0x38F, (0x1, 0x2), "needs two counters; " + _PMU),
    Msr("perf_global_ovf_ctrl", 0x390, None, "a command register: it reads as 0"),
    Msr("pebs_enable", 0x3F1, (0x1, 0x2), "needs PEBS in the guest's PERF_CAPABILITIES"),
    Msr("pebs_data_cfg", 0x3F2, (0x5, 0xA), "needs adaptive PEBS in the guest's PERF_CAPABILITIES"),
    *(Msr(f"mc{i}_ctl", 0x400 + 4 * i, _ALL_OR_NONE, "nothing else is legal") for i in range(32)),
    *(Msr(f"mc{i}_status", 0x401 + 4 * i, _ANY, "a guest may write 0 only") for i in range(32)),
    *(Msr(f"mc{i}_addr", 0x402 + 4 * i, _ANY) for i in range(32)),
    *(Msr(f"mc{i}_misc", 0x403 + 4 * i, _ANY) for i in range(32)),
    Msr("vmx_basic", 0x480, None, _MODEL),
    Msr("vmx_pinbased_ctls", 0x481, None, _MODEL),
    Msr("vmx_procbased_ctls", 0x482, None, _MODEL),
    Msr("vmx_exit_ctls", 0x483, None, _MODEL),
    Msr("vmx_entry_ctls", 0x484, None, _MODEL),
    Msr("vmx_misc", 0x485, None, _MODEL),
    Msr("vmx_cr0_fixed0", 0x486, None, _MODEL),
    Msr("vmx_cr0_fixed1", 0x487, None, _MODEL),
    Msr("vmx_cr4_fixed0", 0x488, None, _MODEL),
    Msr("vmx_cr4_fixed1", 0x489, None, _MODEL),
    Msr("vmx_vmcs_enum", 0x48A, None, _MODEL),
    Msr("vmx_procbased_ctls2", 0x48B, None, _MODEL),
    Msr("vmx_ept_vpid_cap", 0x48C, None, _MODEL),
    Msr("vmx_true_pinbased_ctls", 0x48D, None, _MODEL),
    Msr("vmx_true_procbased_ctls", 0x48E, None, _MODEL),
    Msr("vmx_true_exit_ctls", 0x48F, None, _MODEL),
    Msr("vmx_true_entry_ctls", 0x490, None, _MODEL),
    Msr("vmx_vmfunc", 0x491, None, _MODEL),
    Msr("vmx_procbased_ctls3", 0x492, None, _MODEL),
    *(Msr(f"pmc{i}_full", 0x4C1 + i, None, _ALIAS.format(i)) for i in range(8)),
    Msr("mcg_ext_ctl", 0x4D0, (0x1, 0x1), "LMCE_EN is the only bit; needs FEAT_CTL.LMCE"),
    Msr("rtit_output_base", 0x560, None, _PT),
    Msr("rtit_output_mask", 0x561, None, _PT),
    Msr("rtit_ctl", 0x570, None, _PT),
    Msr("rtit_status", 0x571, None, _PT),
    Msr("rtit_cr3_match", 0x572, None, _PT),
    *(Msr(f"rtit_addr{i}_a", 0x580 + 2 * i, None, _PT) for i in range(4)),
    *(Msr(f"rtit_addr{i}_b", 0x581 + 2 * i, None, _PT) for i in range(4)),
    Msr("ds_area", 0x600, _CANONICAL, "needs PEBS or BTS in the guest"),
    Msr("u_cet", 0x6A0, (0x1, 0x2), _SHSTK),
    Msr("s_cet", 0x6A2, (0x1, 0x2), _SHSTK),
    *(Msr(f"pl{i}_ssp", 0x6A4 + i, _SHADOW_STACK, _SHSTK) for i in range(4)),
    Msr("int_ssp_tab", 0x6A8, _CANONICAL, _SHSTK),
    Msr("tsc_deadline", 0x6E0, None, "KVM drops writes and returns 0 unless the LVT timer is in TSC-deadline mode"),
    Msr("bndcfgs", 0xD90, (0xFFFFD55555555001, 0x00002AAAAAAAA002), "needs MPX in the guest's CPUID"),
    Msr("xss", 0xDA0, (0x800, 0x1000), "the CET components, on a KVM that knows them"),
    Msr("hv_guest_os_id", 0x40000000, None, _HYPERV),
    Msr("hv_hypercall", 0x40000001, None, _HYPERV),
    Msr("hv_vp_index", 0x40000002, None, _HYPERV),
    Msr("hv_reset", 0x40000003, None, _HYPERV),
    Msr("hv_vp_runtime", 0x40000010, None, _HYPERV),
    Msr("hv_time_ref_count", 0x40000020, None, _HYPERV),
    Msr("hv_reference_tsc", 0x40000021, None, _HYPERV),
    Msr("hv_tsc_frequency", 0x40000022, None, _HYPERV),
    Msr("hv_apic_frequency", 0x40000023, None, _HYPERV),
    Msr("hv_eoi", 0x40000070, None, _HYPERV),
    Msr("hv_icr", 0x40000071, None, _HYPERV),
    Msr("hv_tpr", 0x40000072, None, _HYPERV),
    Msr("hv_vp_assist_page", 0x40000073, None, _HYPERV),
    Msr("hv_scontrol", 0x40000080, None, _HYPERV),
    Msr("hv_sversion", 0x40000081, None, _HYPERV),
    Msr("hv_siefp", 0x40000082, None, _HYPERV),
    Msr("hv_simp", 0x40000083, None, _HYPERV),
    Msr("hv_eom", 0x40000084, None, _HYPERV),
    *(Msr(f"hv_sint{i}", 0x40000090 + i, None, _HYPERV) for i in range(16)),
    *(Msr(f"hv_stimer{i}_config", 0x400000B0 + 2 * i, None, _HYPERV) for i in range(4)),
    *(Msr(f"hv_stimer{i}_count", 0x400000B1 + 2 * i, None, _HYPERV) for i in range(4)),
    Msr("hv_guest_idle", 0x400000F0, None, _HYPERV),
    Msr("hv_syndbg_control", 0x400000F1, None, _HYPERV),
    Msr("hv_syndbg_status", 0x400000F2, None, _HYPERV),
    Msr("hv_syndbg_send_buffer", 0x400000F3, None, _HYPERV),
    Msr("hv_syndbg_recv_buffer", 0x400000F4, None, _HYPERV),
    Msr("hv_syndbg_pending_buffer", 0x400000F5, None, _HYPERV),
    Msr("hv_syndbg_options", 0x400000FF, None, _HYPERV),
    *(Msr(f"hv_crash_p{i}", 0x40000100 + i, None, _HYPERV) for i in range(5)),
    Msr("hv_crash_ctl", 0x40000105, None, _HYPERV),
    Msr("hv_reenlightenment_control", 0x40000106, None, _HYPERV),
    Msr("hv_tsc_emulation_control", 0x40000107, None, _HYPERV),
    Msr("hv_tsc_emulation_status", 0x40000108, None, _HYPERV),
    Msr("hv_tsc_invariant_control", 0x40000118, None, _HYPERV),
    Msr("kvm_wall_clock_new", 0x4B564D00, None, _GUEST_MEMORY),
    Msr("kvm_system_time_new", 0x4B564D01, None, _GUEST_MEMORY),
    Msr("kvm_async_pf_en", 0x4B564D02, None, _GUEST_MEMORY),
    Msr("kvm_steal_time", 0x4B564D03, None, _GUEST_MEMORY),
    Msr("kvm_pv_eoi_en", 0x4B564D04, None, _GUEST_MEMORY),
    Msr("kvm_poll_control", 0x4B564D05, None, _PARAVIRT),
    Msr("kvm_async_pf_int", 0x4B564D06, None, _PARAVIRT),
    Msr("kvm_async_pf_ack", 0x4B564D07, None, _PARAVIRT),
    Msr("kvm_migration_control", 0x4B564D08, None, _PARAVIRT),
    Msr("efer", 0xC0000080, None, _SREGS, "efer"),
    Msr("star", 0xC0000081, _ANY),
    Msr("lstar", 0xC0000082, _CANONICAL),
    Msr("cstar", 0xC0000083, _CANONICAL),
    Msr("sfmask", 0xC0000084, _LOW32),
    Msr("fs_base", 0xC0000100, None, _SREGS, "fs.base"),
    Msr("gs_base", 0xC0000101, None, _SREGS, "gs.base"),
    Msr("kernel_gs_base", 0xC0000102, _CANONICAL),
    Msr("tsc_aux", 0xC0000103, _LOW32, "needs RDTSCP or RDPID on the host"),
    Msr("tsc_ratio", 0xC0000104, (0x5555555555, 0xAAAAAAAAAA), "needs TSC_RATE_MSR in the guest's CPUID; rules nested guests only"),
    Msr("amd_perf_global_status", 0xC0000300, (0x1, 0x2), "read-only to the guest; " + _PERFMON2),
    Msr("amd_perf_global_ctl", 0xC0000301, (0x1, 0x2), _PERFMON2),
    Msr("amd_perf_global_status_clr", 0xC0000302, None, "a command register: it reads as 0"),
    Msr("amd_perf_global_status_set", 0xC0000303, None, "a command register: it reads as 0"),
    *(Msr(f"k7_evntsel{i}", 0xC0010000 + i, _AMD_EVENTSEL, "needs an AMD PMU") for i in range(4)),
    *(Msr(f"k7_perfctr{i}", 0xC0010004 + i, _AMD_COUNTER, "needs an AMD PMU") for i in range(4)),
    Msr("syscfg", 0xC0010010, None, _CONSTANT),
    Msr("hwcr", 0xC0010015, (0x40000, 0x1000000), "McStatusWrEn and TscFreqSel: KVM refuses the other bits"),
    Msr("smm_addr", 0xC0010112, None, _CONSTANT),
    Msr("smm_mask", 0xC0010113, None, _CONSTANT),
    # SVMDIS needs EFER.SVME clear, and sticks: sequences of its own set it.
    Msr("vm_cr", 0xC0010114, (0x01, 0x04), "no LOCK; no R_INIT, which turns INIT into #SX; SVMDIS sticks"),
    Msr("vm_hsave_pa", 0xC0010117, (0x555555000, 0xAAAAAA000), "a page below MAXPHYADDR"),
    Msr("virt_spec_ctrl", 0xC001011F, (0x4, 0x4), "SSBD is the only bit"),
    Msr("osvw_id_length", 0xC0010140, (0x5555, 0xAAAA), "host writes only; needs OSVW in the guest's CPUID"),
    Msr("osvw_status", 0xC0010141, _ANY, "host writes only; needs OSVW in the guest's CPUID"),
    *(Msr(f"perf_ctl{i}", 0xC0010200 + 2 * i, _AMD_EVENTSEL, "needs AMD's extended counters in the guest's CPUID") for i in range(6)),
    *(Msr(f"perf_ctr{i}", 0xC0010201 + 2 * i, _AMD_COUNTER, "needs AMD's extended counters in the guest's CPUID") for i in range(6)),
    Msr("de_cfg", 0xC0011029, None, "a feature MSR of KVM's: the model fixes it"),
)

#: Sorted by index.
MSRS: tuple[Msr, ...] = tuple(sorted(_LINES, key=lambda msr: msr.index))
#: The items of those that struct kvm_sregs has, too.
IN_SREGS = tuple(f"msr.{msr.name}" for msr in MSRS if msr.sregs)

_NAMES = {msr.index: msr.name for msr in MSRS}
_INDEXES = {msr.name: msr.index for msr in MSRS}


#: One register by several numbers: a counter with its full width (SDM vol. 3, Full-Width Writes), of AMD's first four counters the
#: numbers of before (APM vol. 2, Core Performance Event-Select Registers); KVM keeps global control and status once for both vendors.
_SAME = (
    *((f"pmc{n}", f"pmc{n}_full") for n in range(8)),
    *((f"k7_evntsel{n}", f"perf_ctl{n}") for n in range(4)),
    *((f"k7_perfctr{n}", f"perf_ctr{n}") for n in range(4)),
    ("perf_global_ctrl", "amd_perf_global_ctl"),
    (
        "perf_global_status", "perf_global_ovf_ctrl",
        "amd_perf_global_status", "amd_perf_global_status_clr", "amd_perf_global_status_set",
    ),
)  # fmt: skip
#: By name the names of the same register, its own among them.
SAME = {name: names for names in _SAME for name in names}


def name_of(index: int) -> str:
    """The name of MSR ``index``, or the index in hex when it has none here."""
    return _NAMES.get(index) or f"{index:#x}"


def index_of(name: str) -> int:
    """The index of the MSR that ``name_of`` calls ``name``."""
    return _INDEXES[name] if name in _INDEXES else int(name, 16)
