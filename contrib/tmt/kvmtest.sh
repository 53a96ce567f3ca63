#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A tmt test with custom results: the report and the JSON are kept as logs, and nothing tested is a skip with its reason.

set -f
data=${TMT_TEST_DATA:?tmt sets it}
export PATH="${TMT_PLAN_DATA:-}/venv/bin:$PATH"

# shellcheck disable=SC2086 # selectors have no spaces
kvmtest run --shard "${SHARD:-1/1}" --output "$data/kvmtest.txt" --report "json=$data/kvmtest.json" ${SELECTORS:-} 2>"$data/kvmtest.err"
case $? in
0) result=pass ;;
1) result=fail ;;
3) result=skip ;;
*) result=error ;;
esac
cat "$data/kvmtest.err" "$data/kvmtest.txt" 2>/dev/null

{
	echo "- name: /"
	echo "  result: $result"
	reason=$(sed -n 's/^kvmtest: //p' "$data/kvmtest.err" | tail -n 1 | sed "s/'/''/g")
	[ -z "$reason" ] || echo "  note: ['$reason']"
	echo "  log: [kvmtest.txt, kvmtest.json, kvmtest.err]"
} >"$data/results.yaml"
