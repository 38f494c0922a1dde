.PHONY: build test ci demo bench kafka

build: ; go build -o bin/ ./cmd/enricher
test:  ; go test ./...
ci:    ; bash .ci/run
demo:  ; go run ./cmd/enricher demo
bench: ; go test -run '^$$' -bench . ./...
kafka: ; go run ./test/kafka/run
