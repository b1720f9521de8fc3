#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# As in nginx's own image: scripts in /docker-entrypoint.d run before the command.
set -eu
for script in /docker-entrypoint.d/*.sh; do
  [ ! -x "$script" ] || "$script"
done
exec "$@"
