# SPDX-License-Identifier: GPL-2.0-only
"""Before and after: what differs between two snapshots of a vCPU, or between two runs. Pure: imports neither engine nor KVM."""
