# Thin front to CMake and the scripts; README.md has a line for each target.
BUILD := build
JOBS := $(shell nproc)
PREFIX ?= /usr/local
CCACHE := $(if $(shell command -v ccache),-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
# Compiler output is cached by content, whatever the checkout's path.
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1
# Measurements and long simulations: minutes under sanitizers, and no code that other tests do not run there.
NOT_UNDER_ASAN := Scale|Lifeguard|Schedules|Thousand|KilledAnywhere|LargeTable|Cost|Flat|Microseconds|KnownSoon
.DEFAULT_GOAL := build

.PHONY: deps build test test-unit test-netns test-e2e e2e-run-nft e2e-run-legacy e2e-run-trixie e2e-overlay-nft \
    e2e-overlay-legacy e2e-attack test-asan check analyze bench fuzz demo install uninstall deb plugin clean

deps:
	packaging/deps.sh

build:
	cmake --preset release $(CCACHE) $(CONFIGURE_FLAGS)
	cmake --build $(BUILD) -j $(JOBS) $(if $(TARGETS),--target $(TARGETS))

test: deps test-unit test-netns test-e2e

test-unit: build
	ctest --test-dir $(BUILD) -L unit -j $(JOBS) --output-on-failure --repeat until-pass:2

test-netns: build
	ctest --test-dir $(BUILD) -L netns -j $(JOBS) --output-on-failure --repeat until-pass:2

# Two legs at a time: they mostly wait, and their labs do not meet. Chaos measures silence, a swarm its own time-outs.
test-e2e: plugin
	$(MAKE) --no-print-directory -j 2 --output-sync=target e2e-overlay-nft e2e-run-nft e2e-overlay-legacy \
	    e2e-run-legacy e2e-run-trixie e2e-attack
	python3 tests/e2e/swarm.py --retries 1
	python3 tests/e2e/chaos.py --rounds 2 --containers 10

e2e-run-nft e2e-run-legacy: e2e-run-%:
	python3 tests/e2e/run.py --retries 1 --iptables $*

e2e-run-trixie:
	packaging/engine.sh trixie $(BUILD)/engine-trixie
	WEFT_ENGINE_DIRECTORY=$(BUILD)/engine-trixie python3 tests/e2e/run.py --retries 1 --iptables nft

e2e-overlay-nft:
	python3 tests/e2e/overlay.py --retries 2 --reach-limit 2000 --underlay bridged --iptables nft

e2e-overlay-legacy:
	python3 tests/e2e/overlay.py --retries 2 --reach-limit 2000 --underlay routed --iptables legacy

e2e-attack:
	python3 tests/e2e/attack.py --firewall nft --family 4
	python3 tests/e2e/attack.py --firewall iptc --family 6

# LAYERS=unit builds and runs what needs no privileges alone: CI does so for time.
LAYERS := unit netns
test-asan:
	cmake --preset asan $(CCACHE)
	cmake --build $(BUILD)/asan -j $(JOBS) --target $(foreach layer,$(LAYERS),$(layer)_tests)
	ctest --test-dir $(BUILD)/asan -L '$(subst $() ,|,$(LAYERS))' -E '$(NOT_UNDER_ASAN)' -j $(JOBS) --output-on-failure --repeat until-pass:2

check: build
	cmake/check.sh

analyze: build
	cmake/tidy.py --analyze

fuzz:
	cmake --preset fuzz
	cmake --build $(BUILD)/fuzz -j $(JOBS) --target fuzz_targets
	tests/fuzz/run.sh $(BUILD)/fuzz

bench: build
	failed=0; for part in run overlay names; do python3 bench/e2e/$$part.py || failed=1; done; exit $$failed

demo: TARGETS = weftd weftctl
demo: deps build
	python3 tests/e2e/demo.py

install: CONFIGURE_FLAGS = -DCMAKE_INSTALL_PREFIX=$(PREFIX)
install: build
	cmake --install $(BUILD)
	[ -n "$(DESTDIR)" ] || [ ! -d /run/systemd/system ] || { \
	    systemctl daemon-reload && systemctl enable --now weftd.socket weftd.service; }

uninstall:
	packaging/uninstall.sh $(BUILD)

deb: CONFIGURE_FLAGS = -DCMAKE_INSTALL_PREFIX=/usr
deb: build
	cd $(BUILD) && cpack -G DEB
	@ls $(BUILD)/weft_*.deb

plugin: build
	packaging/plugin.sh $(BUILD)

clean:
	rm -rf $(BUILD)
