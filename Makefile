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

# V=1 shows the notes of all questions. JUNIT=file writes the JUnit report there as well. ARTIFACTS=dir stores there what go test
# -artifacts stores.
V         ?=
JUNIT     ?=
ARTIFACTS ?=
FLAGS     := -tags vmlab -count=1 -timeout 40m $(RUN) $(if $(value ARTIFACTS),-artifacts -outputdir $(call q,ARTIFACTS))

# lab run shows the run while it goes on, and leaves its results in .lab/results.
TEST      := $(BIN)/lab run $(if $(filter-out 0,$(value V)),-v) $(if $(value JUNIT),-junit $(call q,JUNIT)) -- $(GO) test

# The questions need root. If you are not root, go test starts the finished test binary with sudo. go itself runs as you,
# because sudo often does not find go, and go's caches would belong to root.
SUDO := $(if $(filter-out 0,$(shell id -u)),-exec 'sudo -E')

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

.PHONY: lab-here
lab-here: deps tools $(BIN)/lab ## run the questions on this machine, as root; only in a disposable VM
	@[ "$$(id -u)" = 0 ] || command -v sudo >/dev/null || { echo 'lab-here needs root, and there is no sudo: run it as root, or run "make lab"' >&2; exit 1; }
	@[ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null || sudo -v # it asks for the password before the live display begins
	@$(TEST) $(SUDO) $(FLAGS) .

# How often, and where: make steady N=60, or make steady N=6 WHERE=vm
N     ?= 10
WHERE ?= here
.PHONY: steady
steady: deps tools $(BIN)/lab ## run all questions N times, shuffled, every second time on a busy machine; lists what failed
	$(GO) test -c -tags vmlab -o .lab/lab.test .
	$(if $(filter vm,$(WHERE)),$(VM) $(BIN)/lab steady -n $(N) $(BIN)/lab exec .lab/lab.test -test.timeout=40m,\
		$(if $(filter-out 0,$(shell id -u)),sudo -E )$(BIN)/lab steady -n $(N) .lab/lab.test -test.timeout=40m) $(if $(value Q),-test.run $(call q,Q))

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

.PHONY: test-page
test-page: ## test the notebook in a browser; needs Chromium, which make deps does not install (Debian: apt-get install chromium)
	$(GO) test -tags browser -count=1 -v -run '^TestBrowser$$' ./helpers/notebook

# RUN_OF is the run that the picture shows: a directory of results, or a stream.
RUN_OF ?= .lab/results/latest
.PHONY: notebook-png
notebook-png: ## make docs/notebook.png, the README's picture of the notebook, of the last run; needs Chromium
	$(GO) test -tags browser -count=1 -v -run Browser_Picture ./helpers/notebook \
		-run-of "$$(realpath -- $(call q,RUN_OF))" -picture $(call q,CURDIR)/docs/notebook.png

.PHONY: syllabus
syllabus: ## list the questions
	@$(GO) run ./cmd/lab syllabus

.PHONY: sweep
sweep: $(BIN)/lab ## remove the leftovers of killed runs, kept runs, and the results of all but the newest 20 runs
	@$(if $(filter-out 0,$(shell id -u)),sudo )$(BIN)/lab sweep

# How long each fuzz target runs: make fuzz FUZZTIME=30s
FUZZTIME ?= 10s
.PHONY: fuzz
fuzz: ## fuzz the lab's own parsers: mountinfo, cgroups, status, system calls, runc state
	for target in cgroup:FuzzHierarchies host:FuzzStat proc:FuzzStatus proc:FuzzSyscall runc:FuzzState; do \
		$(GO) test -run '^$$' -fuzz "^$${target#*:}$$" -fuzztime $(FUZZTIME) ./helpers/$${target%:*} || exit; done

.PHONY: bench
bench: deps tools ## measure the lab's helpers against the same commands without them, as a ratio
	$(GO) test $(SUDO) -tags vmlab -count=1 -run '^$$' -bench . -benchtime 20x .

.PHONY: selftest
selftest: deps tools $(BIN)/lab ## test the lab itself: killed runs, two runs at once, the host's own containerd, bad input
	$(GO) test -c -tags vmlab -o .lab/lab.test .
	$(GO) test $(SUDO) -tags 'vmlab selftest' -count=1 -v -timeout 20m $(RUN) ./selftest
