# SPDX-License-Identifier: GPL-2.0-only
"""Names of the bits and fields of registers that have them."""

from __future__ import annotations

__all__ = ("BITS", "describe", "difference")

#: A field: its name, its lowest bit, its width in bits.
Field = tuple[str, int, int]


def _bits(text: str) -> tuple[Field, ...]:
    """Fields from ``name:bit`` and ``name:high-low`` words."""
    fields = []
    for word in text.split():
        name, _, place = word.partition(":")
        high, _, low = place.partition("-")
        start = int(low or high)
        fields.append((name, start, int(high) - start + 1))
    return tuple(sorted(fields, key=lambda field: field[1]))


def _each(fmt: str, count: int, width: int, stride: int, start: int = 0) -> tuple[Field, ...]:
    """``count`` equal fields, numbered from 0."""
    return tuple((fmt.format(i), start + i * stride, width) for i in range(count))


_LVT = "vector:7-0 pending:12 masked:16"
_LVT_MODE = _LVT + " mode:10-8"
_LVT_LINT = _LVT_MODE + " active_low:13 remote_irr:14 level:15"
_EVENTSEL = "event:7-0 umask:15-8 USR:16 OS:17 E:18 PC:19 INT:20 ANY:21 EN:22 INV:23 cmask:31-24"
_CET = "SH_STK_EN:0 WR_SHSTK_EN:1 ENDBR_EN:2 LEG_IW_EN:3 NO_TRACK_EN:4 SUPPRESS_DIS:5 SUPPRESS:10 TRACKER:11 EB_LEG_BITMAP_BASE:63-12"
_MTRR_BASE = "type:7-0 PhysBase:51-12"
_MTRR_MASK = "V:11 PhysMask:51-12"
_XSTATE = (
    "X87:0 SSE:1 AVX:2 BNDREGS:3 BNDCSR:4 opmask:5 ZMM_Hi256:6 Hi16_ZMM:7 PT:8 PKRU:9 PASID:10 CET_U:11 CET_S:12 HDC:13 UINTR:14 LBR:15 HWP:16"
    " TILECFG:17 TILEDATA:18 APX:19 LWP:62"
)
_XSTATE_BITS = _bits(_XSTATE)
_MC_STATUS = "MCACOD:15-0 MSCOD:31-16 PCC:57 ADDRV:58 MISCV:59 EN:60 UC:61 OVER:62 VAL:63"

BITS: dict[str, tuple[Field, ...]] = {
    "rflags": _bits("CF:0 fixed1:1 PF:2 AF:4 ZF:6 SF:7 TF:8 IF:9 DF:10 OF:11 IOPL:13-12 NT:14 RF:16 VM:17 AC:18 VIF:19 VIP:20 ID:21"),
    "cr0": _bits("PE:0 MP:1 EM:2 TS:3 ET:4 NE:5 WP:16 AM:18 NW:29 CD:30 PG:31"),
    "cr3": _bits("PWT_or_PCID3:3 PCD_or_PCID4:4 root:51-12 LAM_U57:61 LAM_U48:62"),
    "cr4": _bits(
        "VME:0 PVI:1 TSD:2 DE:3 PSE:4 PAE:5 MCE:6 PGE:7 PCE:8 OSFXSR:9 OSXMMEXCPT:10 UMIP:11 LA57:12 VMXE:13 SMXE:14 FSGSBASE:16 PCIDE:17"
        " OSXSAVE:18 KL:19 SMEP:20 SMAP:21 PKE:22 CET:23 PKS:24 UINTR:25 LASS:27 LAM_SUP:28 FRED:32"
    ),
    "cr8": _bits("TPL:3-0"),
    "efer": _bits("SCE:0 LME:8 LMA:10 NXE:11 SVME:12 LMSLE:13 FFXSR:14 TCE:15 MCOMMIT:17 INTWB:18 UAIE:20 AIBRSE:21"),
    "apic_base": _bits("BSP:8 EXTD:10 EN:11 base:51-12"),
    "xcr0": _XSTATE_BITS,
    "dr6": _bits("B0:0 B1:1 B2:2 B3:3 BLD:11 BD:13 BS:14 BT:15 RTM:16"),
    "dr7": _bits(
        "L0:0 G0:1 L1:2 G1:3 L2:4 G2:5 L3:6 G3:7 LE:8 GE:9 fixed1:10 RTM:11 GD:13"
        " RW0:17-16 LEN0:19-18 RW1:21-20 LEN1:23-22 RW2:25-24 LEN2:27-26 RW3:29-28 LEN3:31-30"
    ),
    "fcw": _bits("IM:0 DM:1 ZM:2 OM:3 UM:4 PM:5 fixed1:6 PC:9-8 RC:11-10 X:12"),
    "fsw": _bits("IE:0 DE:1 ZE:2 OE:3 UE:4 PE:5 SF:6 ES:7 C0:8 C1:9 C2:10 TOP:13-11 C3:14 B:15"),
    "ftw": _each("valid{}", 8, 1, 1),
    "mxcsr": _bits("IE:0 DE:1 ZE:2 OE:3 UE:4 PE:5 DAZ:6 IM:7 DM:8 ZM:9 OM:10 UM:11 PM:12 RC:14-13 FZ:15 MM:17"),
    "bndcfgu": _bits("EN:0 BNDPRESERVE:1 base:63-12"),
    "bndstatus": _bits("error_code:1-0 BDE:63-2"),
    "pkru": _each("key{}", 16, 2, 2),
    "lapic.version": _bits("version:7-0 max_lvt:23-16 no_EOI_broadcast:24 EAS:31"),
    "lapic.tpr": _bits("subclass:3-0 class:7-4"),
    "lapic.apr": _bits("subclass:3-0 class:7-4"),
    "lapic.ppr": _bits("subclass:3-0 class:7-4"),
    "lapic.dfr": _bits("model:31-28"),
    "lapic.svr": _bits("vector:7-0 enabled:8 focus_off:9 no_EOI_broadcast:12"),
    "lapic.esr": _bits("send_checksum:0 receive_checksum:1 send_accept:2 receive_accept:3 redirectable_IPI:4 send_vector:5 receive_vector:6 register:7"),
    "lapic.icr": _bits("vector:7-0 mode:10-8 logical:11 pending:12 assert:14 level:15 shorthand:19-18"),
    "lapic.lvt_cmci": _bits(_LVT_MODE),
    "lapic.lvt_timer": _bits(_LVT + " mode:18-17"),
    "lapic.lvt_thermal": _bits(_LVT_MODE),
    "lapic.lvt_pmc": _bits(_LVT_MODE),
    "lapic.lvt_lint0": _bits(_LVT_LINT),
    "lapic.lvt_lint1": _bits(_LVT_LINT),
    "lapic.lvt_error": _bits(_LVT),
    "lapic.timer_divide": _bits("divide_low:1-0 divide_high:3"),
    "lapic.efeat": _bits("INC:0 SNIC:1 XAIDC:2 XLC:23-16"),
    "lapic.ecntl": _bits("IERN:0 SEOIN:1 XAIDN:2"),
    **{f"lapic.{name}{i}": tuple((f"v{32 * i + b:02x}", b, 1) for b in range(32)) for name in ("isr", "tmr", "irr") for i in range(8)},
    "cpuid.1.ecx": _bits("OSXSAVE:27"),
    "cpuid.1.edx": _bits("APIC:9"),
    "cpuid.7.ecx": _bits("OSPKE:4"),
    "msr.feat_ctl": _bits("LOCKED:0 VMX_IN_SMX:1 VMX_OUTSIDE_SMX:2 SENTER_LOCAL:14-8 SENTER_GLOBAL:15 SGX_LC:17 SGX:18 LMCE:20"),
    "msr.spec_ctrl": _bits("IBRS:0 STIBP:1 SSBD:2 IPRED_DIS_U:3 IPRED_DIS_S:4 RRSBA_DIS_U:5 RRSBA_DIS_S:6 PSFD:7 DDPD_U:8 BHI_DIS_S:10"),
    "msr.virt_spec_ctrl": _bits("SSBD:2"),
    "msr.tsx_ctrl": _bits("RTM_DISABLE:0 TSX_CPUID_CLEAR:1"),
    "msr.umwait_control": _bits("C02_DISABLE:0 max_time:31-2"),
    "msr.misc_features_enables": _bits("CPUID_FAULT:0 RING3_MWAIT:1"),
    "msr.misc_enable": _bits(
        "FAST_STRING:0 TCC:1 TM1:3 EMON:7 FERR:10 BTS_UNAVAIL:11 PEBS_UNAVAIL:12 TM2:13 EIST:16 MWAIT:18 LIMIT_CPUID:22 XTPR_DISABLE:23 XD_DISABLE:34"
        " TURBO_DISABLE:38"
    ),
    "msr.debugctl": _bits(
        "LBR:0 BTF:1 BUS_LOCK:2 TR:6 BTS:7 BTINT:8 BTS_OFF_OS:9 BTS_OFF_USR:10 FREEZE_LBRS_ON_PMI:11 FREEZE_PERFMON_ON_PMI:12"
        " ENABLE_UNCORE_PMI:13 FREEZE_IN_SMM:14 RTM:15"
    ),
    "msr.mcg_status": _bits("RIPV:0 EIPV:1 MCIP:2 LMCE_S:3"),
    "msr.mcg_ext_ctl": _bits("LMCE_EN:0"),
    "msr.mtrr_def_type": _bits("type:7-0 FE:10 E:11"),
    "msr.pat": _each("PA{}", 8, 3, 8),
    "msr.bndcfgs": _bits("EN:0 BNDPRESERVE:1 base:63-12"),
    "msr.u_cet": _bits(_CET),
    "msr.s_cet": _bits(_CET),
    "msr.xss": _XSTATE_BITS,
    "msr.xfd": _XSTATE_BITS,
    "msr.xfd_err": _XSTATE_BITS,
    "msr.star": _bits("EIP:31-0 syscall_CS:47-32 sysret_CS:63-48"),
    "msr.fixed_ctr_ctrl": _each("ctr{}", 4, 4, 4),
    "msr.perf_global_ctrl": _each("PMC{}", 16, 1, 1) + _each("FIXED{}", 16, 1, 1, 32) + (("METRICS", 48, 1),),
    "msr.perf_global_status": (
        *_each("PMC{}", 16, 1, 1),
        *_each("FIXED{}", 16, 1, 1, 32),
        *_bits("TRACE_TOPA:55 LBR_FRZ:58 CTR_FRZ:59 ASCI:60 OVF_BUF:62 COND_CHGD:63"),
    ),
    "msr.amd_perf_global_ctl": _each("PMC{}", 16, 1, 1),
    "msr.amd_perf_global_status": _each("PMC{}", 16, 1, 1) + _bits("LBR_FRZ:58 PMC_FRZ:59"),
    "msr.tsc_ratio": _bits("fraction:31-0 integer:39-32"),
    "msr.vm_cr": _bits("DPD:0 R_INIT:1 DIS_A20M:2 LOCK:3 SVMDIS:4"),
    "msr.hwcr": _bits("SmmLock:0 TlbCacheDis:3 INVDWBINVD:4 FFDIS:6 IgnneEm:8 McStatusWrEn:18 TscFreqSel:24 CpuidFltEn:35"),
    **{f"msr.perfevtsel{i}": _bits(_EVENTSEL) for i in range(8)},
    **{f"msr.k7_evntsel{i}": _bits(_EVENTSEL + " event_high:35-32") for i in range(4)},
    **{f"msr.perf_ctl{i}": _bits(_EVENTSEL + " event_high:35-32") for i in range(6)},
    **{f"msr.mtrr_physbase{i}": _bits(_MTRR_BASE) for i in range(8)},
    **{f"msr.mtrr_physmask{i}": _bits(_MTRR_MASK) for i in range(8)},
    **{f"msr.mc{i}_status": _bits(_MC_STATUS) for i in range(32)},
    **{f"msr.mc{i}_ctl2": _bits("threshold:14-0 CMCI_EN:30") for i in range(32)},
}
BITS["msr.efer"] = BITS["efer"]
BITS["msr.apic_base"] = BITS["apic_base"]


def _unnamed(item: str, value: int) -> int:
    """The bits of ``value`` that no field of ``item`` covers."""
    for _, low, width in BITS.get(item, ()):
        value &= ~((1 << width) - 1 << low)
    return value


def _parts(item: str, value: int) -> list[str]:
    """Highest first: names of set bits, ``name=hex`` of non-zero fields, then the unnamed rest in hex."""
    parts = []
    for name, low, width in reversed(BITS.get(item, ())):
        part = value >> low & (1 << width) - 1
        if part:
            parts.append(name if width == 1 else f"{name}={part:#x}")
    rest = _unnamed(item, value)
    return [*parts, f"{rest:#x}"] if rest else parts


def describe(item: str, value: int) -> str:
    """``value`` in names, e.g. ``PG|WP|PE``; "" when it is zero or the item has no named bits."""
    return "|".join(_parts(item, value)) if item in BITS else ""


def difference(item: str, a: int, b: int) -> str:
    """The names of the bits and fields in which ``a`` and ``b`` differ, e.g. ``PG|CD``; the unnamed bits in hex."""
    parts = [name for name, low, width in reversed(BITS.get(item, ())) if (a ^ b) >> low & (1 << width) - 1]
    rest = _unnamed(item, a ^ b)
    return "|".join([*parts, f"{rest:#x}"] if rest else parts)
