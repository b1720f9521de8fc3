#!/bin/sh
# The stand-in only starts the server; it makes no cluster and no bucket.
exec /entrypoint.sh couchbase-server
