# SPDX-License-Identifier: GPL-2.0-only
"""The observer: one bootable image that reports a CPU's state after RESET, INIT and SIPI, and the judge of what it printed."""
