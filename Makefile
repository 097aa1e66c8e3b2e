# The commands of the lab. `make help` lists them.

SHELL := /bin/sh
GO    ?= go
BIN   := .lab/bin
TOOLS := $(BIN)/runc $(BIN)/containerd $(BIN)/ctr $(BIN)/containerd-shim-runc-v2

# Q picks questions by regular expression, as go test's -run does: make lab-here Q=Lifecycle
Q ?=
RUN := $(if $(Q),-run '$(Q)')

# JUNIT=file writes a JUnit report, ARTIFACTS=dir brings each question's transcript.
JUNIT     ?=
ARTIFACTS ?=
TEST      := $(if $(JUNIT),$(GO) tool gotestsum --format standard-verbose --junitfile '$(JUNIT)' --,$(GO) test)
FLAGS     := -tags vmlab -count=1 -timeout 40m -v $(RUN) $(if $(ARTIFACTS),-artifacts -outputdir '$(abspath $(ARTIFACTS))')
results    = @mkdir -p $(if $(ARTIFACTS),'$(ARTIFACTS)') $(if $(JUNIT),'$(dir $(JUNIT))') .lab

# The lab needs root. Who is not root lets go test start the finished test binary through sudo: go itself and its
# caches stay the user's own (sudo often does not find go, and would leave caches that only root can clean).
SUDO := $(if $(filter-out 0,$(shell id -u)),-exec 'sudo -E')

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: deps
deps: ## install what is missing of compiler, libseccomp, busybox, strace, QEMU
	@scripts/deps.sh

.PHONY: tools
tools: $(TOOLS) ## build the runc, containerd, shim and ctr that go.mod pins, into .lab/bin

# Static, so that the same files run on any distribution and inside a bare VM; -trimpath, so that two machines build
# the same bytes and the digests that a run prints can be compared.
$(BIN)/runc: go.mod
	CGO_ENABLED=1 $(GO) build -trimpath -tags 'seccomp netgo osusergo urfave_cli_no_docs' \
		-ldflags '-linkmode external -extldflags -static' -o $@ github.com/opencontainers/runc
	@touch $@

# Left out is what no question asks about, and above all CRI, with all of Kubernetes that it imports: under emulation the
# daemon was seen to boot in 1.05 s instead of 2.5 s. Each run prints the tags with what is under test.
$(BIN)/%: go.mod
	CGO_ENABLED=0 $(GO) build -trimpath -tags 'no_cri no_btrfs no_devmapper no_zfs no_tracing' -o $@ github.com/containerd/containerd/v2/cmd/$*
	@touch $@

include vm.mk

.PHONY: lab-here
lab-here: deps tools ## ask the questions on this machine, as root; only in a disposable VM
	$(results)
	$(TEST) $(SUDO) $(FLAGS) .

# The questions import libcontainer, which needs cgo, and that a compiler for arm64.
ARM64_CC := $(shell command -v aarch64-linux-gnu-gcc)
VET_ARM64 := $(if $(ARM64_CC),GOARCH=arm64 CGO_ENABLED=1 CC=$(ARM64_CC) $(GO) vet -tags vmlab ./...,\
	@echo 'the questions were not vetted for arm64: that needs aarch64-linux-gnu-gcc (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross)')

.PHONY: test
test: ## vet both builds, staticcheck, unit tests with the race detector; no root
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
sweep: $(BIN)/lab ## remove what killed or kept runs left on this machine
	@$(if $(filter-out 0,$(shell id -u)),sudo )$(BIN)/lab sweep

# Each fuzz target for so long: make fuzz FUZZTIME=30s
FUZZTIME ?= 10s
.PHONY: fuzz
fuzz: ## fuzz what the lab itself parses: mountinfo, cgroups, status, system calls, state documents
	for target in cgroup:FuzzHierarchies host:FuzzStat proc:FuzzStatus proc:FuzzSyscall runc:FuzzState; do \
		$(GO) test -run '^$$' -fuzz "^$${target#*:}$$" -fuzztime $(FUZZTIME) ./helpers/$${target%:*} || exit; done

.PHONY: bench
bench: deps tools ## what the lab's helpers cost over the same commands run raw, as a ratio
	$(GO) test $(SUDO) -tags vmlab -count=1 -run '^$$' -bench . -benchtime 20x .

.PHONY: selftest
selftest: deps tools $(BIN)/lab ## test the lab itself: killed runs, two at once, a host's own containerd, bad input
	$(GO) test -c -tags vmlab -o .lab/lab.test .
	$(GO) test $(SUDO) -tags 'vmlab selftest' -count=1 -v -timeout 20m $(RUN) ./selftest
