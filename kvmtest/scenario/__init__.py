# SPDX-License-Identifier: GPL-2.0-only
"""Cases as data: steps, states, triggers, needs, and the program that a scenario is lowered to. Pure: imports no KVM."""
