# SPDX-License-Identifier: GPL-2.0-only
"""<linux/kvm.h> and <asm/kvm.h> for x86 in ctypes, under the header's own names.

`struct kvm_regs` is the class `kvm_regs`; `KVM_GET_REGS`, `KVM_CAP_XSAVE2`, … are integers. An array without a length
in C has length 0 here. The parts are caps, consts, filters, ioctls, irq, run and structs; this module has them all.
"""

from __future__ import annotations

from .caps import *  # noqa: F403
from .consts import *  # noqa: F403
from .filters import *  # noqa: F403
from .ioctls import *  # noqa: F403
from .irq import *  # noqa: F403
from .run import *  # noqa: F403
from .structs import *  # noqa: F403
