#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs three pebbles behind a certificate of its own throw-away CA. Usage: acme.sh OWN_ADDRESS DNS_SERVER ZONE_SERVER
set -eu
address=$1
dns=$2
zone=$3
mkdir -p /srv/acme
cd /srv/acme

if [ ! -s server.pem ]; then
  openssl req -quiet -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650 \
    -subj '/CN=selfhost.dify testbed CA' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
    -keyout ca.key -out ca.pem
  openssl req -quiet -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650 \
    -subj '/CN=pebble' -CA ca.pem -CAkey ca.key \
    -addext "subjectAltName=IP:${address},IP:127.0.0.1,DNS:pebble" \
    -addext 'basicConstraints=critical,CA:FALSE' -addext 'extendedKeyUsage=serverAuth' \
    -keyout server.key -out server.pem
fi

# Usage: configure PORT SECONDS: a directory on that port, with certificates of that life, managed a thousand ports above.
configure() {
  cat >"pebble-$1.json" <<JSON
{"pebble": {
  "listenAddress": "0.0.0.0:$1",
  "managementListenAddress": "0.0.0.0:$(($1 + 1000))",
  "certificate": "/srv/acme/server.pem",
  "privateKey": "/srv/acme/server.key",
  "httpPort": 80,
  "tlsPort": 443,
  "certificateValidityPeriod": $2
}}
JSON
}
# Let's Encrypt's certificates last 90 days. Those of the second directory last two and a half minutes, and nobody is given its root to trust.
# The third asks the DNS server whose records may be changed from outside.
configure 14000 7776000
configure 14001 150
configure 14002 7776000

# Pebble makes a new root at every start. All of them are kept, so that certificates on the hosts outlive it.
(
  for part in roots intermediates; do
    until curl -sf --cacert ca.pem "https://127.0.0.1:15000/${part}/0" >"${part}.new"; do sleep 0.1; done
  done
  cat issued.pem roots.new intermediates.new >issued.new 2>/dev/null || cat roots.new intermediates.new >issued.new
  mv issued.new issued.pem
) &
pebble -config pebble-14001.json -dnsserver "$dns" &
pebble -config pebble-14002.json -dnsserver "$zone" &
exec pebble -config pebble-14000.json -dnsserver "$dns"
