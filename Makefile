# minivault. `make help` lists the targets.

.DEFAULT_GOAL := build
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:

PREFIX ?= /usr/local
# `make V=1` shows the whole commands.
Q := $(if $(V),,@)
RUN_FLAGS ?=
# Bash has a SECONDS of its own, so only what make was given counts.
SECONDS := 60

CC := gcc
CLANG := clang
JOBS := $(shell nproc)

GIT_TAG := $(shell git describe --tags --match 'v*' --dirty 2>/dev/null)
GIT_COMMIT := $(shell git describe --always --dirty --exclude '*' 2>/dev/null)
VERSION := $(or $(patsubst v%,%,$(GIT_TAG)),0.1.0$(addprefix +,$(GIT_COMMIT)))

# From the root: bpf/steer.h, and what is generated from bpf/.
CPPFLAGS := -D_GNU_SOURCE -Isrc -Iinclude -I.
WARNINGS := -Wall -Wextra -Werror
CFLAGS_ALL := -std=gnu11 $(WARNINGS) -pthread
# A program is linked with those that it really uses: the offline tools need no libbpf.
LIBRARIES := -Wl,--as-needed -luring -lzstd -lisal -lsodium -lbpf -lllhttp -pthread
# What tests hold our own work against.
LIBRARIES_TEST := -lyyjson

SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
# gcc says of every fence that ThreadSanitizer does not model it. The post's order two words of
# different threads and publish nothing, so it misses nothing.
THREAD_SANITIZE := -fsanitize=thread -Wno-tsan
FUZZ_SANITIZE := -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all

# ---- sources ----

find_c = $(sort $(shell find $(1) -name '*.c' 2>/dev/null))

SRC := $(call find_c,src)
SRC_SIM := $(filter src/io/io_sim%,$(SRC))
SRC_URING := $(filter src/io/io_uring%,$(SRC))
# The offline tools: a program of its own, whose parts the unit tests see.
SRC_ADMIN := $(filter-out src/admin/admin.c,$(filter src/admin/%,$(SRC)))
SRC_COMMON := $(filter-out src/main.c src/admin/% $(SRC_SIM) $(SRC_URING),$(SRC))
SRC_REAL := $(SRC_COMMON) $(SRC_URING)
SRC_SIMULATED := $(SRC_COMMON) $(SRC_SIM)

# A test lies beside the module that it tests; the end of its name says what it is linked with:
#   _test.c   no world: the unit program
#   _both.c   the real and the simulated world, in two programs (tests/support/world.h)
#   _uring.c  the real world only
#   _sim.c    the simulated world only
#   _fuzz.c   a libFuzzer target, one program each; its corpus is tests/corpus/NAME
TESTS := $(call find_c,tests)
UNIT := $(filter %_test.c,$(TESTS))
SUPPORT := tests/support/support.c
IO_BOTH := $(filter %_both.c,$(TESTS)) $(SUPPORT)
IO_REAL := $(IO_BOTH) $(filter %_uring.c,$(TESTS))
IO_SIMULATED := $(IO_BOTH) $(filter %_sim.c,$(TESTS))
SIM := $(call find_c,tests/sim)
FUZZ := $(filter %_fuzz.c,$(TESTS))
FUZZ_HELPERS := tests/support/fuzz.c
FUZZ_TARGETS := $(patsubst %_fuzz,%,$(basename $(notdir $(FUZZ))))
# Those in the simulated world.
FUZZ_SIMULATED := front
# What several threads touch, and the world that they sleep in.
THREADS := $(call find_c,tests/threads)
SRC_THREADS := $(addprefix src/shard/,mailbox.c post.c lease.c rate.c) $(SRC_URING) \
    src/base/heap.c src/base/histogram.c src/base/memory.c
PERF_COMMON := $(call find_c,perf/common)
PERF_PROGRAMS := mvload bound crowd micro mail cache_trace engine
# One file each, in perf/storage.
PERF_BOUNDS := loopback sequence
PERF_LOAD := perf/mvload/keys.c
PERF := $(PERF_COMMON) $(call find_c,$(addprefix perf/,$(PERF_PROGRAMS))) \
    $(PERF_BOUNDS:%=perf/storage/%.c)
PLANTS := ack_before_sync reuse_buffer skip_directory_sync replay_stale drop_tombstone \
    skip_segment_sync

# The steering program, for the kernel: no object of ours.
BPF := $(wildcard bpf/*.bpf.c)

ALL_C := $(SRC) $(TESTS) $(PERF)
ALL_H := $(sort $(shell find src include bpf tests perf -name '*.h' 2>/dev/null))
# Only these differ when a bug is planted.
SRC_PLANTED := $(shell grep -lw plant_is $(SRC) /dev/null)
# Only these see the version, so that a commit does not rebuild the rest.
VERSIONED := $(shell grep -lw MINIVAULT_VERSION $(SRC) /dev/null)

# ---- variants: build/NAME holds the objects of one set of flags ----

# $(1) name, $(2) compiler, $(3) flags for compiling and linking
define variant
build/$(1)/%.o: %.c Makefile
	@mkdir -p $$(@D)
	$(if $(V),,@echo "  $(2) $$@")
	$(Q)$(2) $$(CFLAGS_ALL) $$(CPPFLAGS) $(3) $$(DEFINE_VERSION) -MMD -MP -c -o $$@ $$<
$$(VERSIONED:%.c=build/$(1)/%.o): DEFINE_VERSION = -DMINIVAULT_VERSION='"$$(VERSION)"'
$$(VERSIONED:%.c=build/$(1)/%.o): build/version
# From the archives a program takes what it needs: a test may bring a stand-in for the rest.
build/$(1)/real.a: $$(patsubst %.c,build/$(1)/%.o,$$(SRC_REAL) $$(SRC_ADMIN))
	$(Q)rm -f $$@ && ar rcs $$@ $$^
build/$(1)/simulated.a: $$(SRC_SIMULATED:%.c=build/$(1)/%.o)
	$(Q)rm -f $$@ && ar rcs $$@ $$^
LINK_$(1) = $(if $(V),,@echo "  link $$@" &&) mkdir -p $$(@D) && $(2) $(3) -o $$@ $$(filter %.o %.a,$$^)
VARIANTS += $(1)
endef

# $(1) variant, $(2) sources
objects = $(patsubst %.c,build/$(1)/%.o,$(2))

MACHINE := $(shell uname -m)
OPTIMIZED := -O3 -flto=auto $(if $(filter x86_64,$(MACHINE)),-march=x86-64-v2)
# GCC clears and copies structures with "rep stos" and "rep movs", which take dozens of cycles to
# begin: plain stores answer 7 to 10 % more GETs a second (perf/pairs, get and get-absent).
comma := ,
UNROLLED := unrolled_loop:256:noalign$(comma)libcall:-1:noalign
STORES := -mmemset-strategy=$(UNROLLED) -mmemcpy-strategy=$(UNROLLED)
STORES := $(shell $(CC) $(STORES) -E -x c /dev/null >/dev/null 2>&1 && echo "$(STORES)")

$(eval $(call variant,release,$(CC),-O2 -g $(STORES)))
$(eval $(call variant,optimized,$(CC),$(OPTIMIZED) $(STORES)))
$(eval $(call variant,asan,$(CC),-O1 -g $(SANITIZE)))
$(eval $(call variant,tsan,$(CC),-O1 -g $(THREAD_SANITIZE)))
$(eval $(call variant,clang,$(CLANG),-O0))
$(eval $(call variant,fuzz,$(CLANG),-O1 -g $(FUZZ_SANITIZE)))
$(foreach plant,$(PLANTS),$(eval $(call variant,plant-$(plant),$(CC),\
    -O2 -g -DPLANTED=PLANT_$(shell echo $(plant) | tr a-z A-Z))))

# ---- the steering program: compiled for the kernel, embedded as libbpf's skeleton ----

# Debian has it where only root's PATH looks.
BPFTOOL := $(or $(shell command -v bpftool),/usr/sbin/bpftool)
# The kernel's headers want asm/types.h, which is the machine's; v3 (Linux 5.12) has 32-bit registers.
BPF_FLAGS := -target bpf -mcpu=v3 -O2 -g -ffreestanding -std=gnu11 $(WARNINGS) -I. \
    -idirafter /usr/include/$(shell $(CC) -print-multiarch)

# Linked by bpftool, which leaves the debugger's sections out.
build/bpf/steer.bpf.o: bpf/steer.bpf.c bpf/steer.h Makefile
	@mkdir -p $(@D)
	$(if $(V),,@echo "  $(CLANG) $@")
	$(Q)$(CLANG) $(BPF_FLAGS) -c -o $@.part $<
	$(Q)$(BPFTOOL) gen object $@ $@.part

build/bpf/steer.skel.h: build/bpf/steer.bpf.o
	$(Q)$(BPFTOOL) gen skeleton $< name steer_bpf >$@

$(VARIANTS:%=build/%/src/net/steer/steer.o): build/bpf/steer.skel.h

# ---- programs ----

./minivault: $(call objects,release,$(SRC_REAL) src/main.c)
	$(LINK_release) $(LIBRARIES)

./minivault-optimized: $(call objects,optimized,$(SRC_REAL) src/main.c)
	$(LINK_optimized) -s $(LIBRARIES)

./minivault-admin: $(call objects,release,src/admin/admin.c) build/release/real.a
	$(LINK_release) $(LIBRARIES)

# From the objects: an archive of LTO's would need its plugin.
./minivault-admin-optimized: $(call objects,optimized,$(SRC_REAL) $(SRC_ADMIN) src/admin/admin.c)
	$(LINK_optimized) -s $(LIBRARIES)

build/asan/minivault-admin: $(call objects,asan,src/admin/admin.c) build/asan/real.a
	$(LINK_asan) $(LIBRARIES)

build/asan/minivault: $(call objects,asan,$(SRC_REAL) src/main.c)
	$(LINK_asan) $(LIBRARIES)

# $(1) variant
define test_programs
build/$(1)/bin/unit: $$(call objects,$(1),$$(UNIT)) build/$(1)/real.a
	$$(LINK_$(1)) $$(LIBRARIES) $$(LIBRARIES_TEST) -lcriterion
build/$(1)/bin/io_uring: $$(call objects,$(1),$$(IO_REAL)) build/$(1)/real.a
	$$(LINK_$(1)) $$(LIBRARIES) -lcriterion
build/$(1)/bin/io_sim: $$(call objects,$(1),$$(IO_SIMULATED)) build/$(1)/simulated.a
	$$(LINK_$(1)) $$(LIBRARIES) -lcriterion
endef
$(foreach name,release asan,$(eval $(call test_programs,$(name))))

# The suites that .ci/check chose: CHECK names them, CHECK_FILES holds them. A program is small, since
# it takes from src only what these need.
ifdef CHECK
checked = $(call objects,release,$(filter $(1),$(CHECK_FILES)) $(2))
build/check/$(CHECK)/unit: $(call checked,%_test.c) build/release/real.a
	$(LINK_release) $(LIBRARIES) $(LIBRARIES_TEST) -lcriterion
build/check/$(CHECK)/io_uring: $(call checked,%_both.c %_uring.c,$(SUPPORT) tests/support/world_uring.c) build/release/real.a
	$(LINK_release) $(LIBRARIES) -lcriterion
build/check/$(CHECK)/io_sim: $(call checked,%_both.c %_sim.c,$(SUPPORT) tests/support/world_sim.c) build/release/simulated.a
	$(LINK_release) $(LIBRARIES) -lcriterion
endif

define sim_program
build/$(1)/sim: $$(call objects,$(1),$$(SIM)) build/$(1)/simulated.a
	$$(LINK_$(1)) $$(LIBRARIES)
endef
$(foreach name,release asan,$(eval $(call sim_program,$(name))))

# What a planted bug does not touch is the release's.
define plant_program
build/plant-$(1)/sim: $$(call objects,plant-$(1),$$(SRC_PLANTED)) $$(call objects,release,$$(SIM)) \
    build/release/simulated.a
	$$(LINK_plant-$(1)) $$(LIBRARIES)
endef
$(foreach name,$(PLANTS),$(eval $(call plant_program,$(name))))

define threads_program
build/$(1)/threads: $$(call objects,$(1),$$(THREADS) $$(SRC_THREADS))
	$$(LINK_$(1)) $$(LIBRARIES)
endef
$(foreach name,release tsan,$(eval $(call threads_program,$(name))))

# $(1) target, $(2) world
define fuzz_program
build/fuzz/$(1): $$(call objects,fuzz,$$(filter %/$(1)_fuzz.c,$$(FUZZ)) $$(FUZZ_HELPERS)) build/fuzz/$(2).a
	$$(LINK_fuzz) $$(LIBRARIES) $$(LIBRARIES_TEST)
endef
$(foreach name,$(FUZZ_TARGETS),$(eval $(call fuzz_program,$(name),$(if $(filter $(FUZZ_SIMULATED),$(name)),simulated,real))))

# $(1) program
define perf_program
build/release/bin/$(1): $$(call objects,release,$$(call find_c,perf/$(1)) $(2)) build/release/real.a
	$$(LINK_release) $$(LIBRARIES) -lm
endef
$(eval $(call perf_program,mvload,$(PERF_COMMON)))
$(eval $(call perf_program,bound,$(PERF_COMMON)))
$(eval $(call perf_program,crowd,$(PERF_COMMON)))
$(eval $(call perf_program,micro))
$(eval $(call perf_program,mail))
$(eval $(call perf_program,cache_trace,perf/common/options.c perf/mvload/keys.c))
$(eval $(call perf_program,engine,$(PERF_COMMON) $(PERF_LOAD)))

$(PERF_BOUNDS:%=build/release/bin/%): build/release/bin/%: build/release/perf/storage/%.o \
    $(call objects,release,$(PERF_COMMON) $(PERF_LOAD)) build/release/real.a
	$(LINK_release) $(LIBRARIES) -lm

# Changes only when the version does.
build/version: FORCE
	@mkdir -p $(@D)
	@echo '$(VERSION)' | cmp -s - $@ || echo '$(VERSION)' >$@

# Every source, also through the other compiler: it compiles src and the fuzz targets for fuzzing.
FOR_FUZZING := $(SRC) $(FUZZ) $(FUZZ_HELPERS)
build/compiled-gcc: $(call objects,release,$(ALL_C))
	@touch $@
build/compiled-clang: $(call objects,fuzz,$(FOR_FUZZING)) \
    $(call objects,clang,$(filter-out $(FOR_FUZZING),$(ALL_C)))
	@touch $@

# ---- what a person asks for ----

.PHONY: build build-optimized run deps test check soak perf sim fuzz bench bench-storage bench-front lint \
    format install clean help FORCE

build: ./minivault ./minivault-admin ## builds ./minivault and ./minivault-admin (the default)

build-optimized: ./minivault-optimized ./minivault-admin-optimized ## builds both -optimized: LTO, stripped

deps: ## installs what building needs and is missing
	@.ci/deps build

run: deps ## deps, build, then a server on port 3000 with ./data; RUN_FLAGS="..." adds flags
	@$(MAKE) --no-print-directory -j $(JOBS) build
	exec ./minivault -port 3000 -data ./data $(RUN_FLAGS)

test: ## everything that has to pass before a change lands; TEST_FLAGS="..." for .ci/test
	@.ci/deps build test
	@.ci/test $(TEST_FLAGS)

soak: build ## what takes longer, MINUTES=10 each; T=memory for those whose name has it; SEED=n
	@.ci/soak $(or $(MINUTES),10) "$(T)"

check: ## the tests of a few suites, in all worlds: T=wal for those that begin so, or T=wal/positions
	@.ci/check "$(T)"

sim: build/release/sim ## simulates crashes for SECONDS=60 on all cores; SEED=n replays one
	$< $(if $(SEED),--seed $(SEED),--seconds $(SECONDS) --jobs $(JOBS))

fuzz: $(patsubst %,build/fuzz/%,$(or $(TARGET),$(FUZZ_TARGETS))) ## fuzzes each target, or TARGET=name, for SECONDS=60
	@.ci/fuzz $(SECONDS) $(or $(TARGET),$(FUZZ_TARGETS))

perf: $(addprefix build/release/bin/,$(PERF_PROGRAMS) $(PERF_BOUNDS)) ## builds the load generator and what it compares with

bench: build-optimized perf ## compares with Redis, memcached and the bounds
	perf/compare --minivault $(CURDIR)/minivault-optimized

bench-storage: build-optimized perf ## the storage's targets, beside fio, Redis and RocksDB; BENCH_FLAGS="..."
	@.ci/deps bench
	perf/storage/compare --minivault $(CURDIR)/minivault-optimized $(BENCH_FLAGS)

bench-front: build-optimized perf ## the front's targets, beside bare servers and nginx; BENCH_FLAGS="..."
	@.ci/deps bench
	perf/front/compare --minivault $(CURDIR)/minivault-optimized $(BENCH_FLAGS)

lint: build/bpf/steer.skel.h ## clang-format, clang-tidy and cppcheck
	@.ci/deps build test lint
	@.ci/lint $(ALL_C) $(BPF) $(ALL_H)

format: ## formats every source in place
	clang-format -i $(ALL_C) $(BPF) $(ALL_H)

install: build ## installs into DESTDIR and PREFIX=/usr/local
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin minivault minivault-admin
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/include/minivault include/minivault/*.h
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/minivault README.md LICENSE

clean: ## removes what was built (never ./data)
	rm -rf build $(foreach name,minivault minivault-admin,$(name) $(name)-optimized)

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 18

FORCE:

-include $(foreach name,$(VARIANTS),$(patsubst %.c,build/$(name)/%.d,$(ALL_C)))
