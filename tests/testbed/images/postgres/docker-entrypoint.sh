#!/usr/bin/env bash
# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Start PostgreSQL as uid 70 on its own data directory; make the cluster first when there is none.
# Variables: POSTGRES_PASSWORD (required for a new cluster), POSTGRES_USER, POSTGRES_DB, PGDATA.
set -euo pipefail

if [[ "${1:-postgres}" == -* ]]; then
  set -- postgres "$@"
fi

if [[ "${1:-postgres}" != postgres ]]; then
  exec "$@"
fi

if [[ "$(id -u)" == 0 ]]; then
  mkdir -p "$PGDATA"
  find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
  chmod 0700 "$PGDATA"
  exec setpriv --reuid postgres --regid postgres --init-groups "$0" "${@:-postgres}"
fi

if [[ ! -s "$PGDATA/PG_VERSION" ]]; then
  user="${POSTGRES_USER:-postgres}"
  database="${POSTGRES_DB:-$user}"
  if [[ -z "${POSTGRES_PASSWORD:-}" ]]; then
    echo 'POSTGRES_PASSWORD is empty, but a new database cluster needs one: set it.' >&2
    exit 1
  fi

  initdb --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") --encoding=UTF8 --auth-local=trust --auth-host=scram-sha-256
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  if [[ "$database" != postgres ]]; then
    # Created before the server listens on the network, so that pg_isready from outside means ready for use.
    pg_ctl --wait --silent --options="-c listen_addresses=''" start
    createdb --username="$user" --maintenance-db=postgres "$database"
    pg_ctl --wait --silent --mode=fast stop
  fi
  echo 'PostgreSQL init process complete; ready for start up.'
fi

# Debian compiles in 'localhost'; the image this one stands in for listens everywhere.
shift || true
exec postgres -c listen_addresses='*' "$@"
