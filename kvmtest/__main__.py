# SPDX-License-Identifier: GPL-2.0-only
"""``python -m kvmtest``."""

import sys

try:
    import signal

    from kvmtest.cli import main

    status = main()
except KeyboardInterrupt:  # before main(), which catches it, has begun
    print("kvmtest: interrupted", file=sys.stderr)
    sys.exit(130)
# A KeyboardInterrupt that passed through eval(), as named tuples are made by, has the interpreter send itself SIGINT at its end,
# also where it was caught: run_eval_code_obj() and exit_sigint() of CPython. Blocked, the status stays main()'s.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
sys.exit(status)
