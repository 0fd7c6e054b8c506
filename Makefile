# Two commands do all the set-up themselves: make demo, make test.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
TAGS      = netgo,osusergo
LDFLAGS   = -s -w -X main.version=$(VERSION)
BUILD     = $(GO) build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)'
# go-nvml calls what newer drivers have better names for; that is no news here.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations
# What make chaos and make kills play.
MINUTES  ?= 2
SEED     ?= 1
KILLS    ?= 1000
# How often make gpu-faults disturbs the reader of the cards.
FAULTS   ?= 100
# Platforms that must compile without a C compiler.
CROSS     = linux/arm64 darwin/arm64

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

.PHONY: demo
demo: need-ffmpeg build ## real transcodes on this machine: embedded master, agent, energy report
	@bin/agent demo

.PHONY: test
test: need-ffmpeg need-gcc ## all tests, with the race detector
	RAPID_SEED=1 $(GO) test -race -tags $(TAGS) -timeout 5m ./...

.PHONY: build build-agent
build build-agent: ## bin/agent and bin/devmaster
	@mkdir -p bin
	$(BUILD) -o bin/agent ./cmd/agent
	$(BUILD) -o bin/devmaster ./cmd/devmaster

.PHONY: check
check: need-gcc ## gofmt, vet, staticcheck, import directions, builds for other platforms
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not gofmt-ed:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet -tags $(TAGS) ./...
	$(GO) tool staticcheck -tags $(TAGS) ./...
	$(GO) test -count=1 ./internal/architecture
	@for platform in $(CROSS); do \
		echo "building for $$platform without cgo"; \
		CGO_ENABLED=0 GOOS=$${platform%/*} GOARCH=$${platform#*/} $(GO) build -tags $(TAGS) ./... || exit 1; \
	done
	$(GO) mod tidy -diff

.PHONY: bench
bench: need-ffmpeg need-gcc build ## how exact the joules are, beside known truths, and what measuring costs
	$(GO) run -tags $(TAGS) ./cmd/bench

.PHONY: chaos
chaos: need-ffmpeg need-gcc build ## real agents through seeded faults, and a verdict; MINUTES=2 SEED=1
	@deployment/need.sh ip
	$(BUILD) -o bin/chaos ./cmd/chaos
	bin/chaos --agent bin/agent --devmaster bin/devmaster --minutes $(MINUTES) --seed $(SEED) --min-faults 300 --min-kinds 20

.PHONY: sabotage
sabotage: need-ffmpeg need-gcc ## break the agent's own code in known ways, and see that chaos catches it
	@deployment/need.sh ip
	$(GO) run -tags $(TAGS) ./cmd/chaos sabotage

.PHONY: kills
kills: need-ffmpeg need-gcc build ## KILLS=1000 times kill -9 of agents at random moments of real encodes
	@deployment/need.sh ip
	$(BUILD) -o bin/chaos ./cmd/chaos
	bin/chaos --agent bin/agent --devmaster bin/devmaster --only 'agent: killed' --faults $$(($(KILLS) * 5 / 4)) --min-faults $(KILLS) --minutes 15 --seed $(SEED)

.PHONY: guest
guest: need-ffmpeg ## limits by every cgroup controller, and power loss, in a small virtual machine
	@deployment/need.sh qemu-system-x86_64 mkfs.ext4
	@mkdir -p bin/guest && deployment/guest/fetch.sh bin/guest
	GUEST_DIR=$(CURDIR)/bin/guest $(GO) test -tags $(TAGS),guest -count=1 -timeout 20m -v ./deployment/guest

.PHONY: gpu-check
gpu-check: build ## the agent's own reading of this machine's NVIDIA cards: counter against integrated power
	@bin/agent gpu-check

.PHONY: gpu-faults
gpu-faults: need-ffmpeg need-gcc ## FAULTS=100 times kill, stop and garble the reader of fake cards while a job runs
	$(GO) test -race -tags $(TAGS) -count=1 -timeout 20m ./cmd/agent -run TestCardsAreMeasuredThroughWhateverBefallsTheirReader -gpu.faults $(FAULTS) -v

.PHONY: fuzz
fuzz: need-gcc ## each fuzz target for FUZZTIME (default 1m)
	@for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $${FUZZTIME:-1m} $$package || exit 1; \
		done; \
	done

.PHONY: need-ffmpeg need-gcc
need-ffmpeg:
	@deployment/need.sh ffmpeg ffprobe
need-gcc:
	@deployment/need.sh gcc

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
