# Telford: everything a developer does, by name. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO      ?= go
BIN     := $(CURDIR)/bin
TOOLS   := $(BIN)/tools
# Modules that make up the workspace, and private ones that stay outside of it.
WORKSPACE := . server examples
PRIVATE   := bench tools tools/buf
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X telford.dev/telford/server/runtime.version=$(VERSION)
ARGS ?=
NAME ?=

.PHONY: help build demo test soak lint fmt bench generate tools need tidy ci clean

help: ## Lists these targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  ARGS="…" hands flags on to demo, test and bench; NAME=rpc picks the benchmark.'

build: ## Builds the program as one static file, bin/telford
	CGO_ENABLED=0 $(GO) build -C server -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/telford ./cmd/telford

demo: build ## Runs the shop: the runtime, four services, real traffic; ends by itself (ARGS=--stay keeps it running)
	CGO_ENABLED=0 $(GO) build -C examples -o $(BIN)/shop ./shop
	$(BIN)/shop demo --telford $(BIN)/telford $(ARGS)

need: ## Checks what the tests need beside Go, and installs it where apt and root allow
	@tools/need.sh

test: need ## Runs every test of every module under the race detector, then each fuzz target for 3 s
	@GOWORK=off $(GO) run -C tools ./cmd/testall -root $(CURDIR) $(ARGS)

soak: need ## Runs the same with full sizes, one package at a time, and 60 s for each fuzz target (an hour)
	@TELFORD_SOAK=1 GOWORK=off $(GO) run -C tools ./cmd/testall -root $(CURDIR) -p 1 -fuzztime 60s -timeout 4h $(ARGS)

lint: tools ## Checks format, linters, protos, generated code and go.mod of every module
	@BIN=$(TOOLS) MODULES="$(WORKSPACE) bench" TIDY="$(WORKSPACE) $(PRIVATE)" tools/lint.sh

fmt: tools ## Formats all Go code
	$(TOOLS)/gofumpt -w $$(git ls-files '*.go' ':!*.pb.go' ':!*.pb.gw.go')

generate: tools ## Generates the Go code of all .proto files
	PATH="$(TOOLS):$$PATH" tools/generate.sh $(CURDIR)

bench: ## Runs one benchmark beside its peers: make bench NAME=rpc ARGS="-short -json FILE"
	@test -n "$(NAME)" && test -d "bench/$(NAME)" || { echo "make bench: NAME must be one of:" $$(cd bench && ls -d */ | grep -v internal | tr -d /) >&2; exit 2; }
	GOWORK=off $(GO) build -C bench -o $(BIN)/bench-$(NAME) ./$(NAME)
	$(BIN)/bench-$(NAME) $(ARGS)

tools: $(TOOLS)/.built $(TOOLS)/.built-buf ## Builds linters and generators into bin/tools, in the versions of tools/go.mod

$(TOOLS)/.built: tools/go.mod tools/go.sum
	@mkdir -p $(TOOLS)
	GOWORK=off GOBIN=$(TOOLS) $(GO) install -C tools tool
	@touch $@

$(TOOLS)/.built-buf: tools/buf/go.mod tools/buf/go.sum
	@mkdir -p $(TOOLS)
	GOWORK=off GOBIN=$(TOOLS) $(GO) install -C tools/buf tool
	@touch $@

tidy: ## Tidies go.mod of every module, each on its own
	@for m in $(WORKSPACE) $(PRIVATE); do echo "$$m"; (cd $$m && GOWORK=off $(GO) mod tidy); done

ci: build lint test ## What has to hold before a change is merged

clean: ## Removes what was built
	rm -rf $(BIN)
