# SPDX-License-Identifier: GPL-2.0-only
"""Results outside of the program: ``kvmtest.results/2`` as lines and as one document, written and read back."""
