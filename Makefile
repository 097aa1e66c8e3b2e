# The targets of the lab. `make help` lists them.

SHELL := /bin/sh
GO    ?= go
BIN   := .lab/bin

# The emulated processor of the VM has no instructions beyond these levels.
export GOAMD64 := v1
export GOARM64 := v8.0

# Targets such as deps and tools depend on each other by their order, also with make -j8.
.NOTPARALLEL:

# $(call q,NAME) is the value of the variable NAME, quoted for the shell. It is the value as it was typed: in
# Q='^A$$|^B$$' make would take $$| for a variable.
q = '$(subst ','\'',$(value $1))'

# Q selects questions by a regular expression, like go test's -run: make lab Q=Lifecycle
Q ?=
RUN := $(if $(value Q),-run $(call q,Q))

# STEP=1, or CDB_STEP=1 in the environment, stops at each step of a question, for a reader at a terminal. No deadline ends a run that
# waits. 0 means that it does not stop.
STEP ?= $(CDB_STEP)
override STEP := $(filter-out 0,$(STEP))
export CDB_STEP := $(STEP)

# V=1 shows the notes of all questions. JUNIT=file writes the JUnit report there as well. ARTIFACTS=dir stores there what go test
# -artifacts stores.
V         ?=
JUNIT     ?=
ARTIFACTS ?=
# All questions take 4 minutes natively, 20 under emulation, and twice that on one emulated CPU; a host may be half as fast.
LIMIT     := 90m
FLAGS     := -tags vmlab -count=1 -timeout $(if $(value STEP),0 -v,$(LIMIT)) $(RUN) $(if $(value ARTIFACTS),-artifacts -outputdir $(call q,ARTIFACTS))

# lab run shows the run while it goes on, and leaves its results in .lab/results. With STEP the reader at the terminal talks to the
# questions themselves.
RUNNER    := $(BIN)/lab run $(if $(filter-out 0,$(value V)),-v) $(if $(value JUNIT),-junit $(call q,JUNIT)) --
TEST      = $(if $(value STEP),$(RELEASE),$(RUNNER)) $(GO) test

# The questions need root. go test starts the finished test binary with sudo, and with your CDB_* variables. go itself runs as
# you, because sudo often does not find go, and go's caches would belong to root. The path is relative, as that of LAB in vm.mk.
AS_ROOT := scripts/as-root.sh

# RUNC=1.2.5 CONTAINERD=1.7.29 CTR= SHIM= name what is tested: a release, a program on PATH (RUNC=crun) or a path. make exports
# them to $(RELEASE), which builds the release and hands on its path. If one can't be built, the command does not run.
RELEASE := $(BIN)/lab release

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' vm.mk Makefile | awk -F'|' '{printf "  make %-13s %s\n", $$1, $$2}'
	@echo 'Q=Lifecycle selects questions, and for selftest, test-vm and test-disk tests of the lab. README.md has the other variables.'

.PHONY: deps
deps: ## install what is missing: compiler, libseccomp, pkg-config, busybox, QEMU, strace, crun, criu, mkfs.erofs, apparmor_parser, newuidmap
	@GO=$(call q,GO) scripts/deps.sh

.PHONY: tools
tools: $(BIN)/lab ## build runc, containerd, the shim and ctr in the versions that go.mod pins, into .lab/bin
	@GO=$(call q,GO) $(BIN)/lab tools

# The releases that questions use beside the programs under test: helpers/tools/earlier.go. They are built once, into .lab/releases.
.PHONY: releases
releases: $(BIN)/lab ## build the earlier releases that questions compare with, into .lab/releases
	@GO=$(call q,GO) $(BIN)/lab releases

# The same before a run. If one cannot be built, the questions skip what needs it.
.PHONY: earlier
earlier: $(BIN)/lab
	@GO=$(call q,GO) $(BIN)/lab releases -optional

include vm.mk

.PHONY: terminal
terminal:
	@( : </dev/tty ) 2>/dev/null || { echo 'STEP=1 stops at each step until you press a key, and this process has no terminal: type the command at a terminal' >&2; exit 1; }

.PHONY: lab-here
lab-here: $(if $(value STEP),terminal) deps tools earlier $(BIN)/lab ## run the questions on this machine, as root; only in a disposable VM
	@$(AS_ROOT) true # sudo asks for the password before the live display begins
	@$(TEST) -exec $(AS_ROOT) $(FLAGS) .

# How often, and where: make steady N=60, or make steady N=6 WHERE=vm. A series that was stopped goes on; with FRESH=1 it begins again.
N     ?= 10
WHERE ?= here
# A slip must not run the questions as root on this machine. Make reads the whole file first, so nothing has begun.
ifneq ($(words $(value WHERE))$(filter-out vm here,$(value WHERE)),1)
$(error WHERE is "$(value WHERE)", expected vm or here)
endif

# Nor may a setting be dropped without a word: the user would believe that it holds.
here_only := $(filter lab-here mutants sabotage selftest,$(MAKECMDGOALS))
ifneq ($(and $(here_only),$(filter vm,$(WHERE))),)
$(error make $(here_only) asks on this machine only, as root: leave out WHERE=vm)
endif
here   := $(here_only) $(if $(filter here,$(WHERE)),$(filter steady watch released,$(MAKECMDGOALS)))
for_vm := $(strip $(foreach v,$(VM_SETTINGS),$(if $(filter command,$(firstword $(origin $v))),$v) $(if $(value CDB_$v),CDB_$v)))
ifneq ($(and $(strip $(here)),$(for_vm)),)
$(error make $(strip $(here)) asks on this machine, and only a VM has $(for_vm): leave it out, or use make lab)
endif
programs := $(strip $(foreach v,RUNC CONTAINERD CTR SHIM,$(if $(value $v),$v) $(if $(value CDB_$v),CDB_$v)))
ifneq ($(and $(filter mutants sabotage selftest,$(MAKECMDGOALS)),$(programs)),)
$(error make $(MAKECMDGOALS) is about the pinned programs, and $(programs) names another one: leave it out, or unset it)
endif
ifneq ($(and $(filter released,$(MAKECMDGOALS)),$(value Q)),)
$(error make released asks the questions of its table, and not those of Q: select bugs with ID= or RUNC=)
endif
# go test is green with a Q that selects no test.
tests_in := $(patsubst test-vm,helpers/vm,$(patsubst test-disk,helpers/node,$(filter selftest test-vm test-disk,$(MAKECMDGOALS))))
ifneq ($(and $(value Q),$(tests_in)),)
ifeq ($(shell q=$(call q,Q); cat $(tests_in:=/*_test.go) | sed -n 's/^func Test\([A-Za-z0-9_]*\).*/Test\1/p' | grep -E -e "$${q%%/*}"),)
$(error make $(MAKECMDGOALS) asks no question, it tests the lab itself. No test in $(tests_in) matches Q=$(value Q))
endif
endif

steady_flags = -n $(N) -where $(WHERE) $(if $(filter-out 0,$(value FRESH)),-fresh)
.PHONY: steady
steady: deps tools earlier $(BIN)/lab ## run all questions N times, shuffled, every second time on a busy machine; lists what failed or differed
	@mkdir -p .lab/steady # lab steady may run as root, and your next series has to remove its files
	$(GO) test -c -tags vmlab -o .lab/$@.test .
	test2json=$$($(GO) tool -n test2json) && $(if $(filter vm,$(WHERE)),\
		$(VM) $(RELEASE) $(BIN)/lab steady $(steady_flags) -test2json "$$test2json" $(BIN)/lab exec .lab/$@.test -test.timeout=$(LIMIT),\
		$(RELEASE) $(AS_ROOT) $(BIN)/lab steady $(steady_flags) -test2json "$$test2json" .lab/$@.test -test.timeout=$(LIMIT)) \
		$(if $(value Q),-test.run $(call q,Q))

# make mutants SEED=7 N=40 TARGET=runc JOBS=1 Q=Lifecycle: README.md has the others. ALL=1 takes lines that no question executes, too.
SEED   ?= 1
TARGET ?= runc
JOBS   ?= 1
.PHONY: mutants
mutants: deps tools earlier $(BIN)/lab ## make N mutants of a pinned program, run the questions on this machine against each, and list the survivors
	@$(AS_ROOT) true
	@test2json=$$($(GO) tool -n test2json) && GO=$(call q,GO) $(BIN)/lab mutants -seed $(call q,SEED) -n $(call q,N) -target $(call q,TARGET) \
		-jobs $(call q,JOBS) -test2json "$$test2json" -as-root $(AS_ROOT) $(RUN) $(if $(value DEADLINE),-deadline $(call q,DEADLINE)) \
		$(if $(filter-out 0,$(value FRESH)),-fresh) $(if $(filter-out 0,$(value ALL)),-all-lines) $(if $(filter-out 0,$(value SLOW)),-slow)

# LIE= names lies of testdata/sabotage.toml, Q= the questions that have to catch them.
LIE ?=
.PHONY: sabotage
sabotage: deps tools earlier $(BIN)/lab ## run the questions on this machine against programs that break one promise each: each has to be caught
	$(GO) test -c -tags vmlab -o .lab/lab.test .
	@$(AS_ROOT) true
	@test2json=$$($(GO) tool -n test2json) && GO=$(call q,GO) $(BIN)/lab sabotage -lies $(call q,LIE) -test2json "$$test2json" \
		-as-root $(AS_ROOT) $(if $(value Q),-run $(call q,Q)) $(if $(value DEADLINE),-deadline $(call q,DEADLINE))

# ID= names bugs by id or reference. RUNC=1.1.11 or CONTAINERD=1.7.7 names those that this version has, or has not any more.
ID ?=
BUGS := $(ID) $(foreach v,RUNC CONTAINERD,$(if $(value $(v)),$(v)=$(value $(v))))
.PHONY: released
released: deps tools earlier $(BIN)/lab ## check that the lab is red with bugs that were released, and green with their fixes; ID=, RUNC= select
	$(GO) test -c -tags vmlab -o .lab/$@.test .
	@$(VM) $(BIN)/lab released -bugs '$(subst ','\'',$(BUGS))' $(if $(filter-out 0,$(value FRESH)),-fresh) \
		-test2json "$$($(GO) tool -n test2json)" $(if $(filter vm,$(WHERE)),-where vm $(BIN)/lab exec .lab/$@.test,$(AS_ROOT) .lab/$@.test)

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
		$(foreach v,RUNC CONTAINERD CTR SHIM $(VM_SETTINGS),$(if $(value $(v)),$(v)=$(call q,$(v)))) $(value RESULTS)

# ARCH=arm64 makes it for another architecture, and counts for these two targets only: what other targets do with the tarball happens
# on this machine.
ARCH ?=
DIST = GO=$(call q,GO) $(BIN)/lab dist $(if $(filter dist dist-twice,$(MAKECMDGOALS)),$(if $(value ARCH),-arch $(call q,ARCH)))
.PHONY: dist
dist: deps $(BIN)/lab ## make the tarball for a machine without Go and without a network: .lab/dist/cdblab-linux-amd64.tar.gz
	@$(DIST)

.PHONY: dist-twice
dist-twice: deps $(BIN)/lab ## make the tarball twice, the second time from a clone with an empty build cache, and compare all bytes
	@$(DIST) -twice

# The questions import libcontainer. libcontainer needs cgo, and cgo needs a C compiler for arm64.
ARM64_CC := $(shell command -v aarch64-linux-gnu-gcc)
VET_ARM64 := $(if $(ARM64_CC),GOARCH=arm64 CGO_ENABLED=1 CC=$(ARM64_CC) $(GO) vet -tags vmlab ./...,\
	@echo 'skipped: go vet of the questions for arm64. It needs aarch64-linux-gnu-gcc (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross)')

.PHONY: test
test: ## run go vet, staticcheck, and the unit tests with the race detector; needs no root
	$(GO) vet ./...
	$(GO) vet -tags vmlab ./...
	$(GO) vet -tags 'vmlab selftest vmtest browser' ./...
	GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...
	$(VET_ARM64)
	$(GO) tool staticcheck ./...
	$(GO) tool staticcheck -tags 'vmlab selftest vmtest browser' ./...
	$(GO) test -race ./...

# Of these, make test runs what an ordinary user may.
.PHONY: test-root
test-root: ## run the unit tests that need root: they make mounts, namespaces and cgroups; only in a disposable VM
	$(GO) test -exec ../../$(AS_ROOT) -count=1 ./helpers/host ./helpers/confine ./helpers/proc

.PHONY: test-page
test-page: ## test the notebook in a browser; needs Chromium, which make deps does not install (Debian: apt-get install chromium)
	$(GO) test -tags browser -count=1 -v -run '^TestBrowser$$' ./helpers/notebook

# RUN_OF is the run that the picture shows: a directory of results, or a stream.
RUN_OF ?= .lab/results/latest
.PHONY: notebook-png
notebook-png: ## make docs/notebook.png, the README's picture of the notebook, of the last run; needs Chromium
	$(GO) test -tags browser -count=1 -v -run Browser_Picture ./helpers/notebook \
		-run-of "$$(realpath -- $(call q,RUN_OF))" -picture $(call q,CURDIR)/docs/notebook.png

# A=1 prints the answers as well.
.PHONY: syllabus
syllabus: ## list the questions; with A=1, and their answers
	@$(GO) run ./cmd/lab syllabus $(if $(value A),-a)

.PHONY: doctor doctor-here
doctor: ## check what `make lab` needs, and say what mends it
doctor-here: ## check what `make lab-here` needs
doctor doctor-here:
	@command -v $(GO) >/dev/null || { echo 'missing: $(GO). Install Go: https://go.dev/doc/install' >&2; exit 1; }
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/lab ./cmd/lab
	@$(VM) $(if $(value DISK),CDB_TARBALL=$(TARBALL)) GO=$(call q,GO) $(BIN)/lab doctor $(if $(filter doctor-here,$@),here)

.PHONY: watch
watch: $(BIN)/lab ## ask again each time when a Go file changes: make watch Q=Pause, or WHERE=vm
	@$(BIN)/lab watch $(MAKE) --no-print-directory $(if $(filter vm,$(WHERE)),lab,lab-here)

.PHONY: sweep
sweep: $(BIN)/lab ## remove the leftovers of killed runs, kept runs, old results, and releases that were not used for a month
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

.PHONY: bench-fleet
bench-fleet: ## measure lab fleet with the simulated results of 5,000 nodes: fails above 10 s or 1 GB
	$(GO) test -count=1 -run '^$$' -bench BenchmarkFleet -benchtime 1x -v ./helpers/fleet

.PHONY: bench-results
bench-results: ## measure the results of a recorded run: fails if the notebook takes above 1 s, or lab run 2 % of the questions' time
	$(GO) test -count=1 -run '^$$' -bench BenchmarkResults -benchtime 3x -v ./cmd/lab

# For these two go downloads the pinned linter. They are no tools of go.mod, because nothing that runs needs their dependencies.
.PHONY: lint-deploy
lint-deploy: ## check the workflows of .github and the manifests of deploy/kubernetes; needs the Go module proxy
	$(GO) run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 -shellcheck= -pyflakes=
	$(GO) run sigs.k8s.io/kustomize/kustomize/v5@v5.7.1 build deploy/kubernetes >.lab/kubernetes.yaml
	$(GO) test -count=1 ./deploy/kubernetes -manifest "$(CURDIR)/.lab/kubernetes.yaml"

.PHONY: selftest
selftest: deps tools earlier dist ## test the lab itself: killed runs, two runs at once, the host's own containerd, bad input
	$(GO) test -c -tags vmlab -o .lab/lab.test .
	$(GO) test -exec ../$(AS_ROOT) -tags 'vmlab selftest' -count=1 -v -timeout 40m $(RUN) ./selftest
