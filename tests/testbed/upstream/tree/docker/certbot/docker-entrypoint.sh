#!/bin/sh
# Makes /update-cert.sh of its template, then runs the command.
set -eu
sed "s|\${CERTBOT_EMAIL}|$CERTBOT_EMAIL|g; s|\${CERTBOT_DOMAIN}|$CERTBOT_DOMAIN|g; s|\${CERTBOT_OPTIONS}|$CERTBOT_OPTIONS|g" \
    /update-cert.template.txt >/update-cert.sh
chmod +x /update-cert.sh
exec "$@"
