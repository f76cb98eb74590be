.PHONY: build test lint demo

build:
	go build -o tally ./cmd/tally

test:
	go test ./...

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	go tool staticcheck ./...

demo: build
	./tally demo
