# The targets of the lab. `make help` lists them.

SHELL := /bin/sh
GO    ?= go
BIN   := .lab/bin

# $(call q,NAME) is the value of the variable NAME, quoted for the shell. It is the value as it was typed: in
# Q='^A$$|^B$$' make would take $$| for a variable.
q = '$(subst ','\'',$(value $1))'

# Q selects questions by a regular expression, like go test's -run: make lab Q=Lifecycle
Q ?=
RUN := $(if $(value Q),-run $(call q,Q))

# STEP=1 stops at each step of a question, for a reader at a terminal. No deadline ends a run that waits.
STEP ?=
ifneq ($(value STEP),)
export CDB_STEP := $(value STEP)
endif

# JUNIT=file writes a JUnit report. ARTIFACTS=dir stores the transcript of each question.
JUNIT     ?=
ARTIFACTS ?=
TEST      := $(if $(value JUNIT),$(GO) tool gotestsum --format standard-verbose --junitfile $(call q,JUNIT) --,$(GO) test)
FLAGS     := -tags vmlab -count=1 -timeout $(if $(value STEP),0,40m) -v $(RUN) $(if $(value ARTIFACTS),-artifacts -outputdir $(call q,ARTIFACTS))
results    = @mkdir -p -- $(if $(value ARTIFACTS),$(call q,ARTIFACTS)) $(if $(value JUNIT),"$$(dirname -- $(call q,JUNIT))") .lab

# The questions need root. go test starts the finished test binary with sudo, and with your CDB_* variables. go itself runs as
# you, because sudo often does not find go, and go's caches would belong to root. The path is relative, as that of LAB in vm.mk.
AS_ROOT := scripts/as-root.sh

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' vm.mk Makefile | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo 'Q=Lifecycle selects questions for lab, lab-here, steady and selftest. README.md has the other variables.'

.PHONY: deps
deps: ## install what is missing: compiler, libseccomp, busybox, QEMU, strace, crun, criu, mkfs.erofs
	@scripts/deps.sh

.PHONY: tools
tools: $(BIN)/lab ## build runc, containerd, the shim and ctr in the versions that go.mod pins, into .lab/bin
	@GO=$(call q,GO) $(BIN)/lab tools

include vm.mk

.PHONY: terminal
terminal:
	@( : </dev/tty ) 2>/dev/null || { echo 'STEP=1 stops at each step until you press a key, and this process has no terminal: type the command at a terminal' >&2; exit 1; }

.PHONY: lab-here
lab-here: $(if $(value STEP),terminal) deps tools ## run the questions on this machine, as root; only in a disposable VM
	@$(AS_ROOT) true
	$(results)
	@echo 'compiling the tests: minutes at the first time, without output'
	$(TEST) -exec $(AS_ROOT) $(FLAGS) .

# How often, and where: make steady N=60, or make steady N=6 WHERE=vm
N     ?= 10
WHERE ?= here
.PHONY: steady
steady: deps tools $(BIN)/lab ## run all questions N times, shuffled, every second time on a busy machine; lists what failed
	$(GO) test -c -tags vmlab -o .lab/lab.test .
	$(if $(filter vm,$(WHERE)),$(VM) $(BIN)/lab steady -n $(N) $(BIN)/lab exec .lab/lab.test -test.timeout=40m,\
		$(AS_ROOT) $(BIN)/lab steady -n $(N) .lab/lab.test -test.timeout=40m) $(if $(value Q),-test.run $(call q,Q))

# A='RUNC=1.3.4' B='RUNC=1.3.5' name runs: variables of make, results, or a facts.json. A= is the pinned stack. FORMAT=markdown prints
# Markdown. FRESH=1 makes each run again. The runs are made in the VM, with WHERE=here on this machine.
A      ?=
B      ?=
FORMAT ?= text
FRESH  ?=
compare_flags = -where $(if $(filter file,$(origin WHERE)),vm,$(call q,WHERE)) $(RUN) $(if $(filter-out 0,$(value FRESH)),-fresh)
.PHONY: compare
compare: $(BIN)/lab ## say what differs between two runs: make compare A='RUNC=1.3.4' B='RUNC=1.3.5'
	@MAKE=$(call q,MAKE_COMMAND) $(BIN)/lab compare $(compare_flags) -format $(call q,FORMAT) -html .lab/compare/index.html $(call q,A) $(call q,B)

# The variables of a stack, with several values each. RESULTS= adds results, or facts.json, of other runs.
RESULTS ?=
.PHONY: matrix
matrix: $(BIN)/lab ## make a table of what differs between many runs: make matrix RUNC='1.2.5 1.3.4' CGROUP='v1 v2'
	@MAKE=$(call q,MAKE_COMMAND) $(BIN)/lab matrix $(compare_flags) \
		$(foreach v,RUNC CONTAINERD CTR SHIM KERNEL CGROUP MEM CPUS ACCEL,$(if $(value $(v)),$(v)=$(call q,$(v)))) $(value RESULTS)

# The questions import libcontainer. libcontainer needs cgo, and cgo needs a C compiler for arm64.
ARM64_CC := $(shell command -v aarch64-linux-gnu-gcc)
VET_ARM64 := $(if $(ARM64_CC),GOARCH=arm64 CGO_ENABLED=1 CC=$(ARM64_CC) $(GO) vet -tags vmlab ./...,\
	@echo 'skipped: go vet of the questions for arm64. It needs aarch64-linux-gnu-gcc (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross)')

.PHONY: test
test: ## run go vet, staticcheck, and the unit tests with the race detector; needs no root
	$(GO) vet ./...
	$(GO) vet -tags vmlab ./...
	$(GO) vet -tags 'vmlab selftest vmtest' ./...
	GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...
	$(VET_ARM64)
	$(GO) tool staticcheck ./...
	$(GO) tool staticcheck -tags 'vmlab selftest vmtest' ./...
	$(GO) test -race ./...

.PHONY: syllabus
syllabus: ## list the questions
	@$(GO) run ./cmd/lab syllabus

.PHONY: sweep
sweep: $(BIN)/lab ## remove the leftovers of killed runs, and kept runs, from this machine
	@$(AS_ROOT) $(BIN)/lab sweep

# How long each fuzz target runs: make fuzz FUZZTIME=30s
FUZZTIME ?= 10s
.PHONY: fuzz
fuzz: ## fuzz the lab's own parsers: mountinfo, cgroups, status, system calls, runc state
	for target in cgroup:FuzzHierarchies host:FuzzStat proc:FuzzStatus proc:FuzzSyscall runc:FuzzState; do \
		$(GO) test -run '^$$' -fuzz "^$${target#*:}$$" -fuzztime $(FUZZTIME) ./helpers/$${target%:*} || exit; done

.PHONY: bench
bench: deps tools ## measure the lab's helpers against the same commands without them, as a ratio
	$(GO) test -exec $(AS_ROOT) -tags vmlab -count=1 -run '^$$' -bench . -benchtime 20x .

.PHONY: selftest
selftest: deps tools $(BIN)/lab ## test the lab itself: killed runs, two runs at once, the host's own containerd, bad input
	$(GO) test -c -tags vmlab -o .lab/lab.test .
	$(GO) test -exec ../$(AS_ROOT) -tags 'vmlab selftest' -count=1 -v -timeout 40m $(RUN) ./selftest
