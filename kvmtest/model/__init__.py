# SPDX-License-Identifier: GPL-2.0-only
"""The words that everything else is made of: verdicts, values, cases, records, observations, selectors."""
