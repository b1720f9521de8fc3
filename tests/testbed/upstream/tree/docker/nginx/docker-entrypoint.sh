#!/usr/bin/env bash
# Fills in the templates, then becomes nginx.
set -eu
cd /etc/nginx

fill() { envsubst "$(compgen -e | sed 's/.*/${&}/')" <"$1.template" >"$1"; }

export HTTPS_CONFIG='' ACME_CHALLENGE_LOCATION=''
if [ "$NGINX_HTTPS_ENABLED" = true ]; then
    certificates=/etc/letsencrypt/live/$CERTBOT_DOMAIN
    if [ -z "$CERTBOT_DOMAIN" ] || [ ! -f "$certificates/$NGINX_SSL_CERT_FILENAME" ] ||
        [ ! -f "$certificates/$NGINX_SSL_CERT_KEY_FILENAME" ]; then
        certificates=/etc/ssl
    fi
    export SSL_CERTIFICATE_PATH=$certificates/$NGINX_SSL_CERT_FILENAME
    export SSL_CERTIFICATE_KEY_PATH=$certificates/$NGINX_SSL_CERT_KEY_FILENAME
    HTTPS_CONFIG=$(envsubst <https.conf.template)
fi
if [ "$NGINX_ENABLE_CERTBOT_CHALLENGE" = true ]; then
    ACME_CHALLENGE_LOCATION='location /.well-known/acme-challenge/ { root /var/www/html; }'
fi

fill nginx.conf
fill proxy.conf
fill conf.d/default.conf
exec nginx -g 'daemon off;'
