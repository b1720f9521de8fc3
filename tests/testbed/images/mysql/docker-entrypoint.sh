#!/usr/bin/env bash
# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Start MariaDB as uid 999 on its own data directory; make that first when there is none.
# Variables: MYSQL_ROOT_PASSWORD (required for a new directory), MYSQL_DATABASE.
set -euo pipefail

if [[ "${1:-mysqld}" == -* ]]; then
  set -- mysqld "$@"
fi

if [[ "${1:-mysqld}" != mysqld ]]; then
  exec "$@"
fi

shift || true
if [[ ! -d /var/lib/mysql/mysql ]]; then
  if [[ -z "${MYSQL_ROOT_PASSWORD:-}" ]]; then
    echo 'MYSQL_ROOT_PASSWORD is empty, but a new data directory needs one: set it.' >&2
    exit 1
  fi
  chown mysql:mysql /var/lib/mysql
  mariadb-install-db --user=mysql --datadir=/var/lib/mysql --skip-test-db >/dev/null
  password="${MYSQL_ROOT_PASSWORD//\\/\\\\}"
  password="${password//\'/\\\'}"
  first="$(mktemp)"
  chown mysql "$first"
  {
    echo "ALTER USER root@localhost IDENTIFIED BY '$password';"
    echo "CREATE USER root@'%' IDENTIFIED BY '$password';"
    echo "GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;"
    if [[ -n "${MYSQL_DATABASE:-}" ]]; then
      echo "CREATE DATABASE \`$MYSQL_DATABASE\`;"
    fi
  } >"$first"
  set -- --init-file="$first" "$@"
fi

# The image this one stands in for looks up no names, and stores utf8mb4.
exec mariadbd --user=mysql --skip-name-resolve --character-set-server=utf8mb4 "$@"
