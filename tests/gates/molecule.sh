#!/usr/bin/env bash
# molecule test of the scenarios named, or of all, three side by side. Each line says which scenario speaks.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH=$PWD/.venv/bin:$PATH LC_ALL=C.UTF-8 NO_COLOR=1 ANSIBLE_FORCE_COLOR=false COLUMNS=160
if [ $# = 0 ]; then
  for file in molecule/*/molecule.yml; do set -- "$@" "$(basename "$(dirname "$file")")"; done
fi
# The testbed first, so that the scenarios do not wait for each other to build it.
python3 tests/testbed/testbed.py up
one() {
  set -o pipefail
  local said=passed
  molecule test -s "$1" 2>&1 | sed --unbuffered "s/^/[$1] /" || said=FAILED
  echo "[$1] $said after $SECONDS s"
  [ $said = passed ]
}
export -f one
printf '%s\n' "$@" | xargs --max-procs 3 --max-args 1 bash -c 'one "$1"' one
