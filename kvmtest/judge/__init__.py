# SPDX-License-Identifier: GPL-2.0-only
"""From observed values to judgements, and from judgements to causes. Pure: works on saved values, without KVM."""
