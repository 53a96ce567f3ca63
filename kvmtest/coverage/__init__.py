# SPDX-License-Identifier: GPL-2.0-only
"""Which of KVM's code a run executes, by the case that does.

KVM's modules are built with a call at the beginning of each basic block (`-fsanitize-coverage=trace-pc`), which a recorder
notes. `blocks` knows these calls by the modules' code, `table` which cases ran them, `patch` and `place` what is asked about
them; the rest are reports.
"""
