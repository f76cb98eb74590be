.PHONY: build generate test lab fixtures lint fuzz bench vuln demo deb deb-test size

# How long make fuzz takes for each target.
FUZZTIME = 1m

build:
	go build -o tally ./cmd/tally
	go build -o tallyd ./cmd/tallyd

# Compiles the BPF programs anew; their objects are committed. It takes Debian
# 12's clang, llvm, libbpf-dev and linux-libc-dev.
generate:
	go generate ./bpf

# As root on Debian this needs nothing else; elsewhere tests skip what is missing.
test:
	go run ./lab/cmd/labsetup -if-possible
	go test -timeout 25m $(TESTFLAGS) ./...

# Finds, or installs and downloads, what the lab boots machines with; once.
lab:
	go run ./lab/cmd/labsetup

# Captures the machines of fixtures/ anew, or those of NAMES; builds a kernel at
# the first run.
fixtures:
	go run ./lab/cmd/fixtures -o fixtures $(NAMES)

# The Debian package, into dist/: docs/service.md.
deb:
	packaging/build dist

# Installs, upgrades and removes the package in guests that run systemd, and boots
# them by way of each kind of initramfs: half an hour, and not part of test.
deb-test:
	go test -timeout 60m -count=1 -v -tags packages ./packaging

# Sizes of the static programs, and what code of others is in them.
size:
	packaging/size

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	go tool staticcheck ./...

fuzz:
	.ci/fuzz $(FUZZTIME)

# Side by side with floors and peers; wants a machine with nothing else to do.
bench:
	go run ./internal/bench -o docs/benchmarks.md

# Known vulnerabilities in dependencies; needs the vulnerability database's server.
vuln:
	go tool govulncheck ./...

# All of it on this machine, in a temporary folder; as root with registers in this
# kernel, which are the demo's alone.
demo: build
	./tally demo
