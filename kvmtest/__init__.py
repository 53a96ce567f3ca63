# SPDX-License-Identifier: GPL-2.0-only
"""Checks on a real /dev/kvm what an x86 vCPU looks like after RESET and INIT."""

__version__ = "0.1.0"
