#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# kvmtest on many hosts at once, by ssh, and one report of all: hosts.sh [-o DIR] [-s SELECTOR]... HOST...
#
# Each host needs kvmtest, or Python 3.11 and $KVMTEST set to what starts it there. DIR gets HOST.jsonl, and HOST.err with what was
# said. $SSH is the program to reach a host with, $REPORT the kvmtest here. A host has $LIMIT seconds, an hour by default; what it
# had found by then counts. Exit status: 0 nothing unexpected anywhere;
# 1 something on at least one host; 2 wrong usage; 3 nothing unexpected, but at least one host could not be tested or reached.

folder=kvmtest-hosts
selectors=
while getopts o:s: option; do
	case $option in
	o) folder=$OPTARG ;;
	# The remote shell must not expand the globs.
	s) selectors="$selectors '$OPTARG'" ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
if [ $# = 0 ]; then
	echo "usage: hosts.sh [-o DIR] [-s SELECTOR]... HOST..." >&2
	exit 2
fi
mkdir -p "$folder" || exit 2

# A host that does not answer for a minute is given up.
reach=${SSH:-ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=15 -o ServerAliveCountMax=4}

for host; do
	(
		# shellcheck disable=SC2086 # a program and its options
		timeout "${LIMIT:-3600}" $reach "$host" "${KVMTEST:-kvmtest} run --format jsonl$selectors" </dev/null \
			>"$folder/$host.jsonl" 2>"$folder/$host.err"
		echo $? >"$folder/$host.status"
	) &
done
wait

worst=0
results=
for host; do
	status=$(cat "$folder/$host.status")
	rm -f "$folder/$host.status"
	echo "$host: exit status $status $(tail -n 1 "$folder/$host.err")"
	# An interrupted run still has what it measured; a host that was not reached has nothing.
	if [ -s "$folder/$host.jsonl" ]; then
		results="$results $host.jsonl"
	else
		rm -f "$folder/$host.jsonl"
	fi
	case $status in
	0) ;;
	1) worst=1 ;;
	*) [ $worst = 1 ] || worst=3 ;;
	esac
done

# One report of all that there is, where kvmtest is installed here too.
if [ -n "$results" ] && command -v "${REPORT:-kvmtest}" >/dev/null; then
	# shellcheck disable=SC2086 # names of hosts have no spaces
	(cd "$folder" && "${REPORT:-kvmtest}" report --report junit=kvmtest.xml $results)
fi
exit $worst
