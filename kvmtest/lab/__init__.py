# SPDX-License-Identifier: GPL-2.0-only
"""Any kernel's KVM on a machine with neither SVM nor VT-x: in QEMU, whose TCG emulates SVM, or in Bochs, which emulates VMX.

A *cell* is one kernel on one backend: `cell` boots it, `inside` is the program in there, and `stream` is how its results come
out. `kernels` finds kernels, `initramfs` builds what they boot into, `matrix` runs many cells.
"""
