#!/usr/bin/env bash
# Makes .venv with the pinned tools of requirements-dev.txt; on a bare Debian or Ubuntu it first gets Python's venv module through apt.
# The distribution's Python goes first: it is built with optimizations that those of version managers often lack (a fifth of the time).
set -euo pipefail
cd "$(dirname "$0")/../.."

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
    if usable "$candidate"; then python=$candidate; break; fi
  done
fi
if [ -z "$python" ] || ! usable "$python"; then
  echo "Python is ${python:-$(python3 --version 2>&1)} here, but 3.11 or newer is needed; install one or set PYTHON to it." >&2
  exit 1
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  echo "Python's venv module is missing: installing $version-venv with apt"
  as_root=$([ "$(id -u)" = 0 ] || echo sudo)
  $as_root apt-get update -q
  $as_root apt-get install -y -q "$version-venv"
fi

echo "Making .venv with $("$python" --version): about 600 MB, one to two minutes"
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
touch .venv/stamp
