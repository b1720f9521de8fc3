# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Back up and restore a Dify server with restic. The role selfhost.dify.backup installs and configures it.

A backup is a set: a snapshot for each part, all with the tag C(set=ID), and last of all a manifest whose tags name the
snapshots of the parts. A set without its manifest, or without a part that the manifest names, is incomplete: it is
never restored, and it goes when a newer complete one is there.
"""
