#!/bin/sh
# The stand-in has no pg_bigm.
exec /usr/local/bin/docker-entrypoint.sh postgres
