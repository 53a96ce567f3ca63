# SPDX-License-Identifier: GPL-2.0-only
"""Before and after: what differs between two snapshots of a vCPU, or between the results of two runs. Pure, but for take."""
