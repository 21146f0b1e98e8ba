#!/usr/bin/env bash
# Installs the controller's profile alone, pinned by the same lock file, and measures it:
# size on disk, time and memory to import everything `foresize run` needs.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv=$(command -v uv || echo .venv/bin/uv)
export UV_NATIVE_TLS=1 VIRTUAL_ENV=$work/venv
"$uv" venv --quiet "$work/venv"
"$uv" build --quiet --wheel --out-dir "$work/dist"
"$uv" pip install --quiet --constraint requirements.lock "$work"/dist/*.whl
echo "distributions $("$uv" pip list --quiet --format json | "$work/venv/bin/python" -c 'import json, sys; print(len(json.load(sys.stdin)))')"
echo "site-packages $(du -sm "$work"/venv/lib/python*/site-packages | cut -f1) MB"
cd "$work"
"$work/venv/bin/python" -c 'import autoscaler.wiring, autoscaler.kube, lightgbm' # byte-compile once
"$work/venv/bin/python" - <<'PY'
import resource, sys, time
start = time.process_time()
import autoscaler.cli, autoscaler.wiring, foresize.settings  # noqa: E401
import kubernetes.client, lightgbm, uvicorn, starlette.applications  # noqa: E401
seconds = time.process_time() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
heavy = sorted({"pandas", "sklearn", "pyarrow", "matplotlib", "mlflow"} & set(sys.modules))
print(f"imports {seconds:.2f} s CPU, {peak:.0f} MB peak memory, heavy libraries loaded: {heavy or 'none'}")
PY
"$work/venv/bin/foresize" --help >/dev/null && echo "foresize --help works"
