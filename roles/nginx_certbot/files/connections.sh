#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Run by the image's entrypoint before nginx starts: no file that nginx includes can raise the connections of its workers,
# since conf.d is read inside http.
set -eu
files=$(ulimit -H -n)
[ "$files" != unlimited ] || files=1048576
sed -i \
  -e "1i worker_rlimit_nofile $files;" \
  -e '/^worker_rlimit_nofile /d' \
  -e "s/worker_connections *[0-9]*;/worker_connections $NGINX_WORKER_CONNECTIONS;/" \
  /etc/nginx/nginx.conf
