# SPDX-License-Identifier: GPL-2.0-only
"""``python -m kvmtest``."""

import sys

from kvmtest.cli import main

sys.exit(main())
