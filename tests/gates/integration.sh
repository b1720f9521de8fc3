#!/usr/bin/env bash
# ansible-test integration of every target, or of those named, on this machine, as root: some targets give files away.
set -euo pipefail
cd "$(dirname "$0")/../.."
copy=$(tests/gates/collection.sh)
. tests/gates/environment.sh
cd "$copy"
as_root=$([ "$(id -u)" = 0 ] || echo sudo env "PATH=$PATH" "HOME=$HOME" "LC_ALL=$LC_ALL")
$as_root ansible-test integration --color no --python "$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" "$@"
