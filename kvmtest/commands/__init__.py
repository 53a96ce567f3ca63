# SPDX-License-Identifier: GPL-2.0-only
"""The commands of the command line, one file each. Each has ``add(commands)``, which adds its parser and names its function.

Only the standard library; what a command needs is imported by its function, so that every other one starts at once.
"""
