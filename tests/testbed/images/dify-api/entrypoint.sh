#!/usr/bin/env bash
# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# MODE is api, worker or beat. Settings are checked first and the schema is brought up to date, as in the real image.
set -euo pipefail

python3 -m dify_api.settings

if [[ "${MIGRATION_ENABLED:-false}" == true ]]; then
  echo 'Running migrations'
  python3 -m dify_api.database
fi

case "${MODE:-api}" in
  worker | beat)
    exec python3 -m dify_api.worker
    ;;
  *)
    exec gunicorn --bind "${DIFY_BIND_ADDRESS:-0.0.0.0}:${DIFY_PORT:-5001}" --workers "${SERVER_WORKER_AMOUNT:-1}" \
      --worker-class gthread --threads 64 --timeout "${GUNICORN_TIMEOUT:-200}" dify_api.app:application
    ;;
esac
