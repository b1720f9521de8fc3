#!/usr/bin/env bash
# molecule test of the scenarios named, or of all, one after the other.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH=$PWD/.venv/bin:$PATH LC_ALL=C.UTF-8
if [ $# = 0 ]; then
  for file in molecule/*/molecule.yml; do set -- "$@" "$(basename "$(dirname "$file")")"; done
fi
for scenario in "$@"; do
  echo "--- scenario $scenario"
  molecule test -s "$scenario"
done
