# SPDX-License-Identifier: GPL-2.0-only
"""Events sent by ioctls to vCPUs that are driven by hand."""
