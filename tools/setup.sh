#!/usr/bin/env bash
# Makes a virtual environment with exactly what requirements.lock names, and foresize in it, editable.
set -euo pipefail
venv=${1:-.venv}
cd "$(dirname "$0")/.."

python=$(command -v python3.12 || command -v python3.11 || command -v python3 || true)
for candidate in python3.12 python3.11 python3; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "foresize needs Python 3.11 or newer; found: $("$python" --version 2>&1 || echo none). Install python3.11." >&2
  exit 1
fi
sudo=""
if [ "$(id -u)" != 0 ]; then sudo=sudo; fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
  $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends python3-venv
fi
# LightGBM's wheel links to the compiler's OpenMP runtime, which a bare Debian does not have.
if command -v ldconfig >/dev/null && ! ldconfig -p | grep -q 'libgomp\.so\.1'; then
  $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends libgomp1
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
export UV_NATIVE_TLS=1 VIRTUAL_ENV=$PWD/$venv
"$venv/bin/uv" pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
"$venv/bin/uv" pip install --quiet --no-deps --no-build-isolation -e .
echo "foresize is installed in $venv"
