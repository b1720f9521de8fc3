#!/bin/sh
exec python3 -m dify_api.cli "$@"
