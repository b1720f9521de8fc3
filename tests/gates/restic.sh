#!/usr/bin/env bash
# Installs restic where it is missing, for the unit tests that use a real repository.
set -euo pipefail
command -v restic >/dev/null && exit
echo "Installing with apt: restic"
as_root=$([ "$(id -u)" = 0 ] || echo sudo)
$as_root apt-get update -q
$as_root apt-get install -y -q restic
