# SPDX-License-Identifier: GPL-2.0-only
"""Random scenarios, held against the manuals: what makes them, runs them, and keeps what departs. Standard library alone."""
