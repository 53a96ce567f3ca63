# SPDX-License-Identifier: GPL-2.0-only
"""Random scenarios, compared with the manuals: generating, running and saving them. Standard library alone."""
