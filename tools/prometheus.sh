#!/usr/bin/env bash
# Makes `prometheus` and `promtool` available without installing a service; prints their folder on the last line.
#
#   tools/prometheus.sh              what is on PATH, else what was fetched before, else the distribution's package
#   tools/prometheus.sh --download   the distribution's package, whatever is on PATH
#
# The package is unpacked, not installed, under ${FORESIZE_CACHE:-${XDG_CACHE_HOME:-~/.cache}/foresize}/prometheus.
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }
works() { [[ -x $1/prometheus && -x $1/promtool ]] && "$1/prometheus" --version >/dev/null 2>&1 && "$1/promtool" --version >/dev/null 2>&1; }

folder="${FORESIZE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/foresize}/prometheus"

if [[ ${1:-} != --download ]]; then
    on_path="$(command -v prometheus || true)"
    if [[ -n $on_path ]] && command -v promtool >/dev/null; then
        dirname "$on_path"
        exit 0
    fi
fi
if works "$folder/bin"; then
    printf '%s\n' "$folder/bin"
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    say "There is no apt-get here: install Prometheus (prometheus and promtool) yourself and put it on PATH."
    exit 1
fi

mkdir -p "$folder"
work="$(mktemp -d "$folder/unfinished.XXXXXX")"
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

# promtool is a package of its own from Debian 13 on.
wanted() {
    printf 'prometheus\n'
    if apt-cache show promtool >/dev/null 2>&1; then printf 'promtool\n'; fi
}
fetch() (cd "$work" && wanted | xargs apt-get -q download >&2)

if ! fetch; then
    say "Package lists are missing or old: updating them."
    if [[ $(id -u) -eq 0 ]]; then apt-get -q update >&2; else sudo apt-get -q update >&2; fi
    fetch
fi
for package in "$work"/*.deb; do
    dpkg-deb -x "$package" "$work/unpacked"
done
mkdir -p "$work/bin"
mv "$work/unpacked/usr/bin/prometheus" "$work/unpacked/usr/bin/promtool" "$work/bin/"
if ! works "$work/bin"; then
    say "The package was unpacked, but its programs do not run here."
    exit 1
fi
rm -rf "$folder/bin"
mv "$work/bin" "$folder/bin"
printf '%s\n' "$folder/bin"
