# SPDX-License-Identifier: GPL-2.0-only
"""XSAVE components and the registers each one holds (SDM vol. 1, Managing State Using the XSAVE Feature Set).

Offsets inside the legacy region are fixed; those of the extended components are relative to the component, whose place
in the standard format CPUID.(EAX=0DH,ECX=component):EBX gives. Sizes are in bytes.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ("APX", "COMPONENTS", "LEGACY", "MXCSR_MASK_OFFSET", "SSE", "TILEDATA", "X87", "XSTATE_BV_OFFSET", "Component", "Register")

X87, SSE, TILEDATA, APX = 0, 1, 18, 19
XSTATE_BV_OFFSET = 512
MXCSR_MASK_OFFSET = 28


class Register(NamedTuple):
    """A register in a component; ``init`` is its value in the component's XSAVE init configuration."""

    name: str
    offset: int
    size: int
    init: int = 0


class Component(NamedTuple):
    """One extended state component: its XCR0 bit, its name in the manual, its registers."""

    bit: int
    name: str
    registers: tuple[Register, ...]


def _bank(fmt: str, count: int, size: int, first: int = 0, start: int = 0) -> tuple[Register, ...]:
    return tuple(Register(fmt.format(first + i), start + i * size, size) for i in range(count))


def _st(i: int) -> Register:
    return Register(f"st{i}", 32 + 16 * i, 10)


#: The legacy region. MXCSR is loaded whenever SSE or AVX state is, so no XSTATE_BV bit puts it in an init configuration.
LEGACY = (
    Component(
        X87,
        "x87",
        (
            Register("fcw", 0, 2, 0x37F),
            Register("fsw", 2, 2),
            Register("ftw", 4, 1),
            Register("fop", 6, 2),
            Register("fip", 8, 8),
            Register("fdp", 16, 8),
            *(_st(i) for i in range(8)),
        ),
    ),
    Component(SSE, "SSE", _bank("xmm{}", 16, 16, start=160)),
)
MXCSR = Register("mxcsr", 24, 4, 0x1F80)

COMPONENTS = (
    Component(2, "AVX", _bank("ymm{}_hi128", 16, 16)),
    Component(3, "BNDREGS", _bank("bnd{}", 4, 16)),
    Component(4, "BNDCSR", (Register("bndcfgu", 0, 8), Register("bndstatus", 8, 8))),
    Component(5, "opmask", _bank("k{}", 8, 8)),
    Component(6, "ZMM_Hi256", _bank("zmm{}_hi256", 16, 32)),
    Component(7, "Hi16_ZMM", _bank("zmm{}", 16, 64, first=16)),
    Component(9, "PKRU", (Register("pkru", 0, 4),)),
    Component(17, "TILECFG", (Register("tilecfg", 0, 64),)),
    Component(TILEDATA, "TILEDATA", _bank("tile{}", 8, 1024)),
    Component(APX, "APX", _bank("r{}", 16, 8, first=16)),
)
