#!/bin/sh
# The stand-in adds no language plugins.
exec /bin/tini -- /usr/local/bin/docker-entrypoint.sh
