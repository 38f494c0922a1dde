#!/usr/bin/env bash
# Checks the contents of deploy/ without Docker or a cluster. Installs Prometheus
# if it is missing; Helm comes with the Go module in check/.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v promtool >/dev/null || ! command -v prometheus >/dev/null; then
  apt-get update -q
  apt-get install -q -y --no-install-recommends prometheus
fi
promtool check rules helm/enricher/files/alerts.yaml
promtool test rules prometheus/alerts_test.yaml
promtool check config --syntax-only prometheus/prometheus.yaml

cd check
go mod verify
go mod tidy -diff
go vet ./...
go test -count=1 -timeout 10m ./...
