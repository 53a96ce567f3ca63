# SPDX-License-Identifier: GPL-2.0-only
"""Coverage of KVM's code, by case.

KVM's modules are built with a call at the beginning of each basic block (`-fsanitize-coverage=trace-pc`), which a recorder
notes. `blocks` finds these calls in the modules' code, `table` has which cases ran them, `patch` and `place` handle queries;
the other modules are reports.
"""
