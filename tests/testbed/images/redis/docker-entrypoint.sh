#!/usr/bin/env bash
# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Start redis-server as uid 999 on /data, which it owns.
set -euo pipefail

if [[ "$1" == -* ]]; then
  set -- redis-server "$@"
fi

if [[ "$1" == redis-server && "$(id -u)" == 0 ]]; then
  find . \! -user redis -exec chown redis '{}' +
  # Outside protected mode, as in the image this one stands in for: other containers reach it by the network.
  exec setpriv --reuid redis --regid redis --init-groups "$@" --protected-mode no
fi
exec "$@"
