#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# kvmtest as a kselftest: KTAP on standard output; exit status 0 pass, 1 fail, 4 skip. Arguments are selectors and options
# of `kvmtest run`; $KVMTEST is the program, by default kvmtest from $PATH.

KSFT_FAIL=1
KSFT_SKIP=4
program=${KVMTEST:-kvmtest}

skip()
{
	echo "KTAP version 1"
	echo "1..0 # SKIP $1"
	exit $KSFT_SKIP
}

command -v "$program" >/dev/null || skip "$program is not installed"
messages=$(mktemp) || exit $KSFT_FAIL
trap 'rm -f "$messages"' EXIT

# Other messages of kvmtest still go to standard error, and are the reason of a skip.
"$program" run --format ktap "$@" 2>"$messages"
status=$?
cat "$messages" >&2
reason=$(sed -n 's/^kvmtest: //p' "$messages" | tail -n 1)
case $status in
0) exit 0 ;;
2)
	echo "KTAP version 1"
	echo "1..1"
	echo "not ok 1 kvmtest # ${reason:-wrong usage}"
	exit $KSFT_FAIL
	;;
3)
	# Without a usable /dev/kvm there was no report; a report in which all is skipped has been printed already.
	case $reason in
	"nothing could be tested"*) exit $KSFT_SKIP ;;
	*) skip "${reason:-nothing can be tested here}" ;;
	esac
	;;
*) exit $KSFT_FAIL ;;
esac
