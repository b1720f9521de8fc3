#!/usr/bin/env bash
# ansible-test sanity over a copy of the collection, with every supported Python that this machine has.
set -euo pipefail
cd "$(dirname "$0")/../.."
copy=$(tests/gates/collection.sh)
. tests/gates/environment.sh
cd "$copy"
ansible-test sanity --color no "$@"
