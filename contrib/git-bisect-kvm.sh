#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A step of `git bisect run` in a kernel's tree: builds KVM's modules out of tree, runs the lab on them, and says good (0),
# bad (1), not testable (125), or stops the bisection (255).
#
#   cd linux && git bisect start BAD GOOD -- arch/x86/kvm virt/kvm
#   git bisect run .../contrib/git-bisect-kvm.sh svm /usr/src/linux-headers-6.1.0-56-cloud-amd64 init.msi.host.cr2
#
# The headers are those of a kernel that `kvmtest lab kernels` lists; the commits must be near enough to it that their KVM
# builds against it. KVM's own headers come from the tree, all others from there. $KVMTEST is the kvmtest to use,
# $KVMTEST_LAB further options of `kvmtest lab run`.

set -u
stop() { echo "git-bisect-kvm: $*" >&2; exit 255; }
skip() { echo "git-bisect-kvm: $*" >&2; exit 125; }

[ $# -ge 3 ] || stop "usage: git bisect run $0 svm|vmx HEADERS ID..."
backend=$1 headers=$2
shift 2
case $backend in
svm) other=CONFIG_KVM_INTEL= ;;
vmx) other=CONFIG_KVM_AMD= ;;
*) stop "$backend is neither svm nor vmx" ;;
esac
kvmtest=${KVMTEST:-kvmtest}
$kvmtest --version >/dev/null 2>&1 || stop "cannot run '$kvmtest': set KVMTEST"
release=$(sed -n 's/^#define UTS_RELEASE "\(.*\)"$/\1/p' "$headers/include/generated/utsrelease.h" 2>/dev/null)
[ -n "$release" ] || stop "$headers holds no headers of a built kernel"
kernel=$($kvmtest lab kernels | awk -v release="$release" '$2 == release { print $1; exit }')
[ -n "$kernel" ] || stop "kvmtest lab kernels does not list $release, which these headers are of: --fetch it"
top=$(git rev-parse --show-toplevel) || stop "this is not a git tree"
cd "$top" || stop "cannot enter $top"
[ -f arch/x86/kvm/Makefile ] || stop "$top has no arch/x86/kvm"

build=$(mktemp -d) || stop "no room for a build"
trap 'rm -rf "$build"' EXIT
trap 'exit 130' INT TERM HUP

# The files as they lie here, so that a fix applied by hand is in. A fresh folder: git sets times that make would believe.
git ls-files -z arch/x86/kvm virt include/kvm include/trace/events/kvm.h \
	'include/linux/kvm*' 'include/uapi/linux/kvm*' 'arch/x86/include/asm/kvm*' 'arch/x86/include/uapi/asm/kvm*' |
	tar --null --files-from=- --create | tar --directory="$build" --extract --touch || stop "cannot copy the tree to $build"
kvm=$build/arch/x86/kvm
# Below include/trace define_trace.h looks for ../../arch/x86/kvm/trace.h.
mkdir -p "$build/include/trace"
sed -i "s|\$(srctree)/virt|$build/virt|; s|\$(srctree)/arch/x86/kvm|$kvm|" "$kvm/Makefile" || stop "cannot write to $build"
sed -i "1i ccflags-y += -I $kvm -I $build/include/trace" "$kvm/Makefile"
own="-nostdinc -isystem $(${CC:-gcc} -print-file-name=include)"
for folder in arch/x86/include arch/x86/include/uapi include include/uapi; do
	own="$own -I$build/$folder"
done

log=$build/log
# The other vendor's module is not built: whether it could be is another question.
make -C "$headers" M="$kvm" NOSTDINC_FLAGS="$own" "$other" -j"$(nproc)" modules >"$log" 2>&1 || {
	grep -m 5 -E 'error|Error|ERROR' "$log" >&2 || tail -n 5 "$log" >&2
	skip "KVM does not build here against $headers"
}
# shellcheck disable=SC2086 # options are words
$kvmtest lab run --bisect --backend "$backend" --kernel "$kernel" --kvm-modules "$kvm" ${KVMTEST_LAB:-} "$@"
