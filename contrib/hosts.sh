#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# kvmtest on many hosts at once, by ssh, and one report of all: hosts.sh [-o DIR] [-s SELECTOR]... HOST...
#
# Each host needs kvmtest, or Python 3.11 and $KVMTEST set to what starts it there. DIR gets HOST.json, and HOST.err with what was
# said. $SSH is the program to reach a host with, $REPORT the kvmtest here. Exit status: 0 nothing unexpected anywhere;
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

for host; do
	(
		${SSH:-ssh -o BatchMode=yes} "$host" "${KVMTEST:-kvmtest} run --format json$selectors" </dev/null \
			>"$folder/$host.json" 2>"$folder/$host.err"
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
	if [ -s "$folder/$host.json" ]; then
		results="$results $host.json"
	else
		rm -f "$folder/$host.json"
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
