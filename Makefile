# Targets install the programs that they need, or print the command that does.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
TAGS      = netgo,osusergo
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS   = -s -w -X main.version=$(VERSION) -X main.revision=$(REVISION)
# Without a C compiler and C headers the agent is built without cgo, and so without NVML.
NO_CGO    = $(shell deployment/need.sh --check gcc || echo CGO_ENABLED=0)
BUILD     = $(NO_CGO) $(GO) build -buildvcs=false -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)'
# go-nvml calls functions that newer NVML headers mark as deprecated.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations
# mkfs.ext4 is in sbin, which is not in a user's PATH on Debian.
export PATH := $(PATH):/usr/sbin:/sbin
# Length and seed of make chaos and make kills, and number of kills. CHAOSFLAGS=--like-field
# gives the master of make chaos the habits of masters in use.
MINUTES  ?= 2
SEED     ?= 1
KILLS    ?= 1000
# Number of faults of make gpu-faults.
FAULTS   ?= 100
# Time for each fuzz target of make fuzz.
FUZZTIME ?= 1m
# Tests wait for processes half of the time, so one package more than there are processors runs
# at once, and up to two tests of it per processor (in cmd/agent six). The packages that take longest
# start first.
TESTFLAGS = -p $$(( $$(nproc) + 1 )) -parallel $$(( 2 * $$(nproc) ))
SLOWEST   = ./cmd/agent ./internal/ffmpeg ./internal/journal ./actors
# Builder of packages. As a tool of go.mod it would bring some hundred modules.
NFPM     ?= $(GO) run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0
DEB_VERSION = $(shell deployment/deb/version.sh $(VERSION) $$(git rev-list --count HEAD 2>/dev/null || echo 0))
EPOCH     = $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
DEB_ARCHS ?= amd64 arm64
DEB_DIR   ?= bin/deb
MAINTAINER ?= ffmpeg-agent <root@localhost>
CONFFILE  ?= deployment/agent.yaml
HOST_ARCH  = $(shell $(GO) env GOHOSTARCH)
# Platforms that must compile without a C compiler.
CROSS     = linux/arm64 darwin/arm64

# Programs that each target needs besides Go. Those of all targets on the command line are
# checked together, before anything is built.
FFMPEG           = ffmpeg ffprobe
NEEDS_demo       = $(FFMPEG)
NEEDS_test       = $(FFMPEG) gcc tmux $(if $(filter 0,$(shell id -u)),fuse-overlayfs)
NEEDS_check      = gcc
NEEDS_bench      = $(FFMPEG) gcc
NEEDS_chaos      = $(FFMPEG) gcc ip nsenter mount
NEEDS_media      = $(FFMPEG)
NEEDS_sabotage   = $(NEEDS_chaos)
NEEDS_kills      = $(NEEDS_chaos)
NEEDS_attack     = $(FFMPEG) gcc
NEEDS_guest      = $(FFMPEG) gcc gzip qemu-system-x86_64 mkfs.ext4 $(if $(filter 0,$(shell id -u)),debootstrap)
NEEDS_gpu-faults = $(FFMPEG) gcc
NEEDS_fuzz       = gcc
NEEDS_page-test  = $(FFMPEG) chromium
NEEDS_observe-test = $(FFMPEG) prometheus promtool
NEEDS_deb        = gcc gzip
NEEDS_e2e        = gcc gzip debootstrap systemd-nspawn
NEEDS_image      = gcc docker
NEEDS_container-test = gcc docker docker-compose debootstrap
# CGO_ENABLED=0 asks for a build without a C compiler.
OPTIONAL         = $(if $(filter build build-agent demo gpu-check,$(GOALS)),$(if $(filter 0,$(CGO_ENABLED)),,gcc))
GOALS            = $(MAKECMDGOALS)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

.PHONY: demo
demo: need build ## run real transcodes with an embedded master and an agent, and show the energy report
	@bin/agent demo

.PHONY: test
test: need ## run all tests with the race detector; make check runs vet
	RAPID_SEED=1 $(GO) test -race -vet=off -tags $(TAGS) -timeout 10m $(TESTFLAGS) $(SLOWEST) ./...

.PHONY: build
build: need ## build bin/agent and bin/devmaster
	@mkdir -p bin
	$(BUILD) -o bin/agent ./cmd/agent
	$(BUILD) -o bin/devmaster ./cmd/devmaster
	@$(NO_CGO) $(GO) env CGO_ENABLED | grep -qx 1 || echo "warning: built without cgo: the agent cannot use NVML and does not measure NVIDIA graphics cards" >&2

.PHONY: build-agent
build-agent: build

.PHONY: check
check: need ## run gofmt, vet, staticcheck and the import rules, and build for other platforms
	@unformatted=$$(gofmt -l .) || exit 1; \
	if [ -n "$$unformatted" ]; then echo "not formatted with gofmt:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet -tags $(TAGS) ./...
	$(GO) tool staticcheck -tags $(TAGS) ./...
	$(GO) test -count=1 ./internal/architecture
	@for platform in $(CROSS); do \
		echo "building for $$platform without cgo"; \
		CGO_ENABLED=0 GOOS=$${platform%/*} GOARCH=$${platform#*/} $(GO) build -buildvcs=false -tags $(TAGS) ./... || exit 1; \
	done
	$(GO) mod tidy -diff

.PHONY: bench
bench: need build ## measure the accuracy of the energy meter and the CPU use of the agent
	$(GO) run -tags $(TAGS) ./cmd/bench

.PHONY: chaos
chaos: need build ## inject faults into real agents for MINUTES=2 with SEED=1, and check the invariants
	$(BUILD) -o bin/chaos ./cmd/chaos
	bin/chaos --agent bin/agent --devmaster bin/devmaster --minutes $(MINUTES) --seed $(SEED) --min-faults 300 --min-kinds 20 $(CHAOSFLAGS)

.PHONY: media
media: need ## encode inputs of many kinds, sound, damaged and fetched, and show the verdicts
	@cd internal/ffmpeg && $(GO) test -tags $(TAGS) -count=1 -timeout 15m -run '^TestMedia$$' -media
	@cd cmd/agent && $(GO) test -tags $(TAGS) -count=1 -timeout 5m -run '^TestLargeInput' -v -fetch.megabytes 1000 -fetch.lies

.PHONY: sabotage
sabotage: need ## break the agent's code in known ways, and check that chaos detects each one
	$(GO) run -tags $(TAGS) ./cmd/chaos sabotage

.PHONY: kills
kills: need build ## kill -9 agents KILLS=1000 times at random moments of real encodes
	$(BUILD) -o bin/chaos ./cmd/chaos
	bin/chaos --agent bin/agent --devmaster bin/devmaster --only 'agent: killed' --faults $$(($(KILLS) * 5 / 4)) --min-faults $(KILLS) --minutes 15 --seed $(SEED)

.PHONY: guest
guest: need ## test cgroup limits and power loss in a virtual machine
	@mkdir -p bin/guest && deployment/guest/fetch.sh bin/guest
	[ "$$(id -u)" != 0 ] || $(MAKE) e2e-files
	GUEST_DIR=$(CURDIR)/bin/guest E2E_DIR=$(CURDIR)/bin/e2e $(GO) test -tags $(TAGS),guest -count=1 -timeout 20m -v ./deployment/guest

.PHONY: attack
attack: need build ## attack the agent in the ways that THREATS.md lists, and show what held
	@cd internal/attack && $(GO) test -tags $(TAGS),attack -count=1 -timeout 30m -v -run '^TestAttacks$$' -agent ../../bin/agent .

.PHONY: deb
deb: need ## build the Debian packages for DEB_ARCHS, with cgo for this machine's own, in bin/deb
	rm -rf $(DEB_DIR) && mkdir -p $(DEB_DIR)
	$(foreach arch,$(DEB_ARCHS),$(call deb,$(arch)))

# deb builds the package for an architecture.
define deb
	CGO_ENABLED=$(if $(filter $(HOST_ARCH),$(1)),1,0) GOOS=linux GOARCH=$(1) $(GO) build -buildvcs=false -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o $(DEB_DIR)/$(1)/agent ./cmd/agent
	SOURCE_DATE_EPOCH=$(EPOCH) $(GO) run -tags $(TAGS),docs -ldflags '$(LDFLAGS)' ./cmd/agent docs $(DEB_DIR)/$(1)
	gzip -9n $(DEB_DIR)/$(1)/man/*.1
	printf 'ffmpeg-agent (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- %s  %s\n' '$(DEB_VERSION)' '$(MAINTAINER)' \
		"$$(date -uRd @$(EPOCH))" | gzip -9n >$(DEB_DIR)/$(1)/changelog.gz
	GO=$(GO) deployment/deb/copyright.sh $(DEB_DIR)/$(1)/agent >$(DEB_DIR)/$(1)/copyright
	SOURCE_DATE_EPOCH=$(EPOCH) ARCH=$(1) BUILD=$(DEB_DIR)/$(1) VERSION=$(DEB_VERSION) CONFFILE=$(CONFFILE) MAINTAINER='$(MAINTAINER)' \
		LIBC='$(if $(filter $(HOST_ARCH),$(1)),libc6 (>= 2.34),base-files)' $(NFPM) package --config deployment/deb/nfpm.yaml --packager deb --target $(DEB_DIR)/

endef

.PHONY: e2e
e2e: need build e2e-files ## test the Debian package in a booted systemd, from its installation to its purge
	echo E2E_RUN=TestStory >bin/e2e/shared/environment
	deployment/e2e/boot.sh bin/e2e

# e2e-files makes what the tests in a booted Debian need.
.PHONY: e2e-files
e2e-files: build
	mkdir -p bin/e2e && deployment/e2e/tree.sh bin/e2e
	rm -rf bin/e2e/shared && mkdir -p bin/e2e/shared/src/bin
	cp -r README.md deployment bin/e2e/shared/src/
	cp bin/agent bin/devmaster bin/e2e/shared/src/bin/
	$(MAKE) deb DEB_ARCHS=amd64 DEB_DIR=bin/e2e/shared/current
	sed 's/^# Configuration of/# Settings of/' $(CONFFILE) >bin/e2e/previous.yaml
	$(MAKE) deb DEB_ARCHS=amd64 DEB_DIR=bin/e2e/shared/previous VERSION=previous DEB_VERSION=0.0.0~previous CONFFILE=bin/e2e/previous.yaml
	CGO_ENABLED=0 $(GO) test -c -tags $(TAGS),e2e -o bin/e2e/shared/e2e.test ./deployment/e2e

.PHONY: image
image: need build ## build the container images ffmpeg-rtmp/agent and ffmpeg-rtmp/devmaster
	docker build $(IMAGEFLAGS) -t ffmpeg-rtmp/agent -f deployment/Dockerfile .
	docker build $(IMAGEFLAGS) -t ffmpeg-rtmp/devmaster -f deployment/Dockerfile.devmaster .

.PHONY: container-test
container-test: need ## test the image and the metrics of containers on this machine's Docker engine
	@deployment/container/base.sh bin/container
	@deployment/container/prometheus.sh
	$(MAKE) image IMAGEFLAGS="--network host"
	$(GO) test -tags $(TAGS),container -count=1 -timeout 10m -v ./deployment/container

.PHONY: gpu-check
gpu-check: build ## compare the energy counters of this machine's NVIDIA cards with their integrated power
	@bin/agent gpu-check

.PHONY: gpu-faults
gpu-faults: need ## kill, stop and garble the NVML child FAULTS=100 times during a job on fake cards
	$(GO) test -race -tags $(TAGS) -count=1 -timeout 20m ./cmd/agent -run TestGPUEnergySurvivesNVMLChildFaults -gpu.faults $(FAULTS) -v

.PHONY: page-test
page-test: need ## open the agent's page in headless chromium, and write screenshots to bin/page
	$(GO) test -tags $(TAGS),page -count=1 -timeout 10m ./cmd/agent -run '^TestPageInBrowser$$' -page.screens $(CURDIR)/bin/page -v

.PHONY: observe-test
observe-test: need ## test the Prometheus rules, and each query of the dashboard against a real Prometheus
	promtool check config deployment/prometheus/prometheus.yml
	promtool test rules deployment/prometheus/rules_test.yml
	$(GO) test -tags $(TAGS),observe -count=1 -timeout 10m ./cmd/agent -run '^TestDashboardQueriesAnswer$$' -v

.PHONY: fuzz
fuzz: need ## run each fuzz target for FUZZTIME=1m
	@for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package || exit 1; \
		done; \
	done

.PHONY: need
need:
	@GO=$(GO) deployment/need.sh ca-certificates $(sort $(foreach goal,$(GOALS),$(NEEDS_$(goal)))) --optional $(OPTIONAL)

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
