#!/usr/bin/env bash
# Fills in Squid's configuration, then becomes Squid.
set -eu
cd /etc/squid

for template in *.conf.template; do
    sed "s|\${HTTP_PORT}|$HTTP_PORT|; s|\${COREDUMP_DIR}|$COREDUMP_DIR|" "$template" >"${template%.template}"
done
tail -F /var/log/squid/access.log 2>/dev/null &
exec /usr/sbin/squid -NYC -f /etc/squid/squid.conf
