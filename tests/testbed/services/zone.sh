#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs BIND for one domain, whose TXT records a key may change. Usage: zone.sh DOMAIN KEY_NAME ALGORITHM SECRET
set -eu
mkdir -p /srv/zone /run/named
cd /srv/zone
cat >named.conf <<CONF
options { directory "/srv/zone"; recursion no; listen-on { any; }; listen-on-v6 { none; }; allow-transfer { none; }; };
key "$2" { algorithm $3; secret "$4"; };
zone "$1" { type primary; file "$1"; update-policy { grant $2 zonesub TXT; }; };
CONF
cat >"$1" <<ZONE
\$TTL 1
@ SOA @ nobody 1 3600 3600 3600 1
@ NS @
@ A 127.0.0.1
ZONE
exec named -g -c named.conf
