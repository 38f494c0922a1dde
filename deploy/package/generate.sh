#!/bin/sh
# Makes the manual page and the completions that go into archives and packages.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p bin/package
go build -o bin/package-enricher ./cmd/enricher
for shell in bash zsh fish; do
  bin/package-enricher completion "$shell" >"bin/package/enricher.$shell"
done
bin/package-enricher man | gzip -9n >bin/package/enricher.1.gz
rm bin/package-enricher
