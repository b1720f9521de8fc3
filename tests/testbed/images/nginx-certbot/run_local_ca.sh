#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Where the image has its own script of this name.
exec python3 /app/edge.py local-ca
