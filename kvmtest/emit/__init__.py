# SPDX-License-Identifier: GPL-2.0-only
"""Reproducers: one departure as a program of its own, made smaller by running it, and printed as C."""
