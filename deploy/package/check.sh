#!/usr/bin/env bash
# Builds a snapshot of a release and checks what is in it: archives, checksums and
# their signature, SBOMs, image and packages. Needs Go, gpg and, on Debian, root to
# install the deb; installs the rest. GORELEASER names a program to use instead of
# building it. It builds for Linux on this machine's architecture, without an SBOM; with
# the argument all, for everything, which takes much longer.
set -euo pipefail
cd "$(dirname "$0")/../.."

goreleaser=(${GORELEASER:-go run github.com/goreleaser/goreleaser/v2@v2.15.1})
fail() { echo "deploy/package/check.sh: $*" >&2; exit 1; }

missing=()
for tool in gpg:gpg rpm:rpm unzip:unzip buildah:buildah crun:crun systemd-analyze:systemd groff:groff-base; do
  command -v "${tool%:*}" >/dev/null || missing+=("${tool#*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -q
  apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

temp=$(mktemp -d)
trap 'gpgconf --homedir "$temp" --kill all; rm -rf "$temp"' EXIT
export GNUPGHOME=$temp
gpg --batch --quiet --passphrase '' --quick-generate-key release@localhost
GPG_FINGERPRINT=$(gpg --list-keys --with-colons | sed -n 's/^fpr:*\([0-9A-F]*\):$/\1/p' | head -n 1)
export GPG_FINGERPRINT IMAGE_REPOSITORY=localhost/enricher GITHUB_REPOSITORY_OWNER=example

systems="linux darwin windows" architectures="amd64 arm64" skip=docker
if [ "${1-}" != all ]; then
  systems=linux architectures=$(go env GOARCH) skip=docker,sbom
fi
"${goreleaser[@]}" check
sed "s/goos: \[.*/goos: [${systems// /, }]/; s/goarch: \[.*/goarch: [${architectures// /, }]/" .goreleaser.yaml >"$temp/goreleaser.yaml"
"${goreleaser[@]}" release --config "$temp/goreleaser.yaml" --snapshot --clean --skip="$skip"

cd dist
gpg --quiet --verify checksums.txt.sig checksums.txt
sha256sum --check --quiet checksums.txt
for os in $systems; do
  for arch in $architectures; do
    name=$(echo enricher_*_"${os}_${arch}".[tz]*)
    case $os in
      windows) list=$(unzip -Z1 "$name") program=enricher.exe ;;
      *) list=$(tar -tf "$name") program=enricher ;;
    esac
    for file in "$program" LICENSE README.md share/enricher.1.gz share/enricher.bash share/enricher.zsh share/enricher.fish; do
      grep -qx "$file" <<<"$list" || fail "$name does not contain $file"
    done
    if [ "$skip" = docker ]; then
      grep -q '"name": "github.com/twmb/franz-go"' enricher_*_"${os}_${arch}".cdx.json || fail "the SBOM of $name does not list franz-go"
    fi
  done
done
for package in enricher-*.rpm; do
  rpm -qpl "$package" 2>/dev/null >"$temp/files"
  grep -qx /usr/lib/systemd/system/enricher.service "$temp/files" || fail "$package has no unit"
done

# The image for this machine is built and runs. Its base stands in for the one that the
# certificates come from, so that no registry is needed.
arch=$(go env GOARCH)
image() { buildah --storage-driver vfs --root "$temp/images" --runroot "$temp/containers" "$@"; }
export BUILDAH_ISOLATION=chroot
mkdir -p "$temp/context/linux/$arch"
cp enricher_linux_"$arch"*/enricher "$temp/context/linux/$arch"
base=$(image from scratch)
image copy --quiet "$base" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
image commit --quiet "$base" "docker.io/library/$(sed -n 's/^FROM \(golang:.*\) AS .*/\1/p' ../deploy/package/Dockerfile)"
image build --quiet --format docker --pull-never --build-arg "TARGETPLATFORM=linux/$arch" \
  --file ../deploy/package/Dockerfile --tag enricher "$temp/context"
image run "$(image from --pull-never localhost/enricher)" -- /enricher demo --events 200

# The package for this machine is installed, verified and removed.
if [ "$(id -u)" != 0 ]; then
  echo "not root: the deb is not installed"
  exit
fi
dpkg --install enricher_*_"$(dpkg --print-architecture)".deb
systemd-analyze verify enricher.service
getent passwd enricher >/dev/null || fail "there is no user enricher"
enricher version
enricher man | cmp - <(gzip -dc /usr/share/man/man1/enricher.1.gz) || fail "the manual page is that of another version"
[ -z "$(gzip -dc /usr/share/man/man1/enricher.1.gz | groff -man -ww -z 2>&1)" ] || fail "groff complains about the manual page"
enricher config print --config /etc/enricher/enricher.yaml >/dev/null
echo "# changed" >>/etc/enricher/enricher.yaml
dpkg --install --force-confold enricher_*_"$(dpkg --print-architecture)".deb
grep -q "# changed" /etc/enricher/enricher.yaml || fail "an upgrade replaces the configuration"
dpkg --remove enricher
[ ! -e /usr/bin/enricher ] || fail "the program is left behind"
dpkg --purge enricher
