# Sourced by the gates that run ansible-test: the tools of .venv first on PATH, and a home of its own under .cache.
# shellcheck shell=bash
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# Directories whose Pythons do not start (version managers' shims) make ansible-test give up; the managers' real ones follow instead.
path=$root/.venv/bin
IFS=: read -ra directories <<<"$PATH"
for directory in "${directories[@]}" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin; do
  fits=yes
  for python in "$directory"/python3.[0-9] "$directory"/python3.[0-9][0-9]; do
    if [ -x "$python" ] && ! "$python" -c '' 2>/dev/null; then fits=no; fi
  done
  if [ -d "$directory" ] && [ $fits = yes ]; then path=$path:$directory; fi
done
export PATH=$path LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1

# ansible-test keeps its environments and pip in ~/.ansible/test. pip's own settings stay in force.
mkdir -p "$root/.cache/home/.ansible/test/cache"
for settings in .config .pip; do
  if [ -e "$HOME/$settings" ]; then ln -sfn "$HOME/$settings" "$root/.cache/home/$settings"; fi
done
export HOME=$root/.cache/home

# ansible-test fetches a script that installs pip from a host of its own. This one does the same with pip's wheel from the package index.
pip=$("$root/.venv/bin/python" - <<'PYTHON'
import inspect, re
from ansible_test._internal import python_requirements
print(re.search(r"pip='([0-9.]+)'", inspect.getsource(python_requirements))[1])
PYTHON
)
bootstrap=$HOME/.ansible/test/cache/get_pip_${pip//./_}.py
if [ ! -e "$bootstrap" ]; then
  "$root/.venv/bin/python" -m pip download --quiet --no-deps --dest "$(dirname "$bootstrap")" "pip==$pip"
  cat >"$bootstrap" <<PYTHON
import os, sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "pip-$pip-py3-none-any.whl"))
from pip._internal.cli.main import main
arguments = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
sys.exit(main(["install", "--upgrade", "--force-reinstall"] + arguments))
PYTHON
fi
