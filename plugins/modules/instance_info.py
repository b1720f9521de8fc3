#!/usr/bin/python

# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: instance_info
short_description: Ask a running Dify server what is wrong with it
version_added: 0.4.0
author:
  - selfhost.dify contributors (@selfhost-dify)
description:
  - Looks at a Dify server and returns what it saw as facts, and what is wrong as findings with a remedy each.
  - Asks Docker, Compose, each service at its container's address with the API's own accounts, and the host itself, all
    at once; a few seconds on a healthy server. Nothing has to be installed besides Docker and Compose.
  - Changes nothing. For the Celery ping two keys are in Redis for a moment, as with Celery's own command, and are taken
    out again.
  - What cannot be looked at is a finding, too; the module fails for wrong options only.
extends_documentation_fragment:
  - selfhost.dify._attributes
  - selfhost.dify._attributes.info_module
options:
  path:
    description:
      - Directory of the Compose project, C(docker/) of the checkout.
    type: path
    default: /opt/dify/docker
  url:
    description:
      - Address of Dify's own nginx without a path. It is asked without TLS, since its place is a loopback port.
    type: str
    default: http://127.0.0.1:3000
  domain:
    description:
      - The name users type. The certificate that this host serves for it on O(https_port) is looked at.
      - Without it no certificate is looked at.
    type: str
    default: ""
  https_port:
    description:
      - Port of this host on which the edge serves O(domain).
    type: int
    default: 443
  owners:
    description:
      - Directories of containers that must belong to somebody on the host, down to the last file.
    type: list
    elements: dict
    default:
      - service: api
        target: /app/api/storage
        owner: 1001
        group: 1001
    suboptions:
      service:
        description:
          - Service that writes there; nothing is looked at where it is not to run.
        type: str
        required: true
      target:
        description:
          - Directory inside its container.
        type: str
        required: true
      owner:
        description:
          - Number of the owner on the host.
        type: int
        required: true
      group:
        description:
          - Number of the group on the host.
        type: int
        required: true
  secrets:
    description:
      - Settings in C(.env) that must not have the release's public default, with the service that enforces each. A
        service that is not to run needs none.
    type: dict
    default:
      SECRET_KEY: api
      DB_PASSWORD: db_postgres
      REDIS_PASSWORD: redis
      SANDBOX_API_KEY: sandbox
      PLUGIN_DAEMON_KEY: plugin_daemon
      PLUGIN_DIFY_INNER_API_KEY: api
      WEAVIATE_API_KEY: weaviate
      QDRANT_API_KEY: qdrant
  public_ports:
    description:
      - Ports that may be published on every address, as a service and a port inside its container, such as
        V(plugin_daemon:5003).
    type: list
    elements: str
    default: []
  reference_time:
    description:
      - Seconds since 1970 by a clock that is right, to judge the host's clock by. A difference of up to 60 seconds
        counts for nothing, since the task needs its time, too.
      - Without it the clock is not judged.
    type: float
  timeout:
    description:
      - Seconds for each question. The storage is walked for one second less, and what was not reached is said.
    type: float
    default: 5
notes:
  - Databases other than PostgreSQL, vector stores other than Weaviate and Qdrant, and Redis behind Sentinel are not
    asked themselves; the state of their containers is judged.
  - Containers are reached at their addresses on the host's bridge networks, so Docker must run on the host itself and
    not rootless.
seealso:
  - module: selfhost.dify.volume_ownership
  - module: selfhost.dify.dotenv
  - module: selfhost.dify.connection_info
"""

EXAMPLES = r"""
---
- name: Ask the server what is wrong
  selfhost.dify.instance_info:
    domain: dify.example.com
    reference_time: "{{ now().timestamp() }}"
  register: dify

- name: Require a healthy server
  ansible.builtin.assert:
    that: dify.healthy
    fail_msg: "{{ dify.findings | selectattr('severity', 'equalto', 'error') | map(attribute='seen') | join(' ') }}"
"""

RETURN = r"""
---
healthy:
  description: Whether there is no finding of severity C(error).
  returned: success
  type: bool
  sample: false
findings:
  description: What is wrong, errors first and causes before what follows from them.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: A name that stays the same; docs/status.md lists all of them.
      type: str
    severity:
      description: One of C(error), C(warning), C(info).
      type: str
    service:
      description: The service it is about, or an empty string.
      type: str
    seen:
      description: What was seen, a sentence or two.
      type: str
    remedy:
      description: What to do, where possible a command to be run as root on the host.
      type: str
  sample:
    - id: service_stopped
      severity: error
      service: db_postgres
      seen: db_postgres is exited, exit code 0.
      remedy: docker compose --project-directory /opt/dify/docker up --detach db_postgres
release:
  description: The release in the checkout, from the Compose file's own image, and the commit, or V(null).
  returned: when there is a server
  type: dict
  sample: {checked_out: 1.16.1, commit: 6f8ed69ee15f9a2e7189ca066275e973d091d1e9}
services:
  description: Every service that is to run or has a container.
  returned: when there is a server
  type: dict
  contains:
    expected:
      description: Whether the project starts it.
      type: bool
    one_shot:
      description: Whether it is to end by itself.
      type: bool
    state:
      description: Docker's word, or C(missing).
      type: str
    health:
      description: Outcome of its health check, or V(null) where it has none.
      type: str
    restarts:
      description: How often Docker started it again.
      type: int
    exit_code:
      description: Its last exit code.
      type: int
    image:
      description: The image that it runs.
      type: str
    uptime_seconds:
      description: Since when it runs, or V(null).
      type: int
    last_error:
      description: The last line of its log that sounds like trouble. Only of services that are not well.
      type: str
    log:
      description: The last ten lines of its log. Only of services that are not well.
      type: list
      elements: str
setup:
  description: What the API says of its setup, V(null) where it does not say.
  returned: when the API runs
  type: dict
  sample: {step: finished, setup_at: "2026-11-22T02:37:34"}
api:
  description: Whether C(/health) says ok, and the version in C(X-Version).
  returned: when the API runs
  type: dict
  sample: {healthy: true, version: 1.16.1}
worker:
  description: Names of the workers that answered a Celery ping, V(null) where nobody could be asked.
  returned: when the project has containers
  type: dict
  sample: {answered: [celery@9f2d3c7c0a51]}
database:
  description: The database as the API's own account sees it. V(null) for what is not known.
  returned: when the project has containers
  type: dict
  contains:
    type:
      description: E(DB_TYPE).
      type: str
    reachable:
      description: Whether it can be signed in to.
      type: bool
    databases:
      description: Names of the databases.
      type: list
      elements: str
    revision:
      description: Revision of the schema.
      type: str
    head:
      description: Revision that the code in the API's container wants.
      type: str
    failed_plugins:
      description: Plugins whose installation failed.
      type: list
      elements: str
redis:
  description: Redis as the API's own account sees it, C(limit_bytes) 0 for no limit, V(null) for what it may not ask.
  returned: when the project has containers
  type: dict
  sample: {reachable: true, version: 6.2.21, used_bytes: 1891232, limit_bytes: 0}
sandbox:
  description: Whether it runs 1+1 in each language.
  returned: when it runs and answers
  type: dict
  sample: {python3: true, nodejs: true}
plugin_daemon:
  description: Whether it is healthy and takes the API's key, and its version.
  returned: when it runs and answers
  type: dict
  sample: {healthy: true, version: 0.6.3-local}
vector_store:
  description: Its name, and whether it says that it is ready, or V(null) for one that cannot be asked.
  returned: when the project has containers
  type: dict
  sample: {name: weaviate, ready: true}
ssrf_proxy:
  description: Whether it forbids 169.254.169.254.
  returned: when it runs and answers
  type: dict
  sample: {forbids_metadata: true}
storage:
  description: Directories of O(owners) with how many entries do not belong to their owner, and the first three.
  returned: when there is an engine
  type: list
  elements: dict
  sample:
    - service: api
      path: /opt/dify/docker/volumes/app/storage
      owner: 1001
      group: 1001
      examined: 1204
      wrong: 1
      sample: [[upload_files/a.pdf, "0:0"]]
      complete: true
      missing: false
environment:
  description: Names of the settings edited by hand since the last run (V(null) without the memory of one), and of
    secrets that are still public.
  returned: when there is an engine and the release's example
  type: dict
  sample: {edited: [LOG_LEVEL], public_secrets: []}
open_ports:
  description: Ports on which something on this host listens on another address than loopback.
  returned: when there is an engine
  type: list
  elements: int
  sample: [22, 80, 443]
certificate:
  description: When the certificate expires, in seconds since 1970, and the days left; V(null) where none is served.
  returned: when O(domain) is given
  type: dict
  sample: {expires: 1795478400.0, days_left: 60}
backup:
  description: How the backups of P(selfhost.dify.backup#role) go. C(last_success) in seconds since 1970, V(null) for
    what is not known yet, C(failed) the commands whose last run failed with what they said, C(running) whether one is
    under way.
  returned: when there is an engine and a backup was begun
  type: dict
  sample: {last_success: 1795373950.8, age_seconds: 43200, size_bytes: 62864, running: false, failed: {}}
disks:
  description: The file systems with the server's volumes and Docker's own directory.
  returned: when there is an engine
  type: list
  elements: dict
  sample:
    - mount: /
      size_bytes: 84281802752
      free_bytes: 41281802752
      used_percent: 51
      inodes_percent: 7
      volumes: [/opt/dify/docker/volumes/app/storage, /var/lib/docker]
logs_bytes:
  description: Size of the containers' logs.
  returned: when there is an engine
  type: int
images_bytes:
  description: Size of all images on this host; what several share is counted for each.
  returned: when there is an engine
  type: int
images_unused:
  description: Number of images that no container of the project runs.
  returned: when there is an engine
  type: int
images_unused_bytes:
  description: Their size.
  returned: when there is an engine
  type: int
clock_difference:
  description: Seconds by which the host's clock is ahead of O(reference_time).
  returned: when O(reference_time) is given
  type: float
engine:
  description: Version and directory of the Docker Engine.
  returned: when there is an engine
  type: dict
  sample: {version: 28.2.2, root: /var/lib/docker}
durations:
  description: Seconds until each question was answered, many of them at the same time, and in C(total).
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selfhost.dify.plugins.module_utils._instance import ERROR, ordered
from ansible_collections.selfhost.dify.plugins.module_utils._instance_probes import Options, look

OWNERS = [{"service": "api", "target": "/app/api/storage", "owner": 1001, "group": 1001}]
SECRETS = {
    "SECRET_KEY": "api",
    "DB_PASSWORD": "db_postgres",
    "REDIS_PASSWORD": "redis",
    "SANDBOX_API_KEY": "sandbox",
    "PLUGIN_DAEMON_KEY": "plugin_daemon",
    "PLUGIN_DIFY_INNER_API_KEY": "api",
    "WEAVIATE_API_KEY": "weaviate",
    "QDRANT_API_KEY": "qdrant",
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/opt/dify/docker"},
            "url": {"type": "str", "default": "http://127.0.0.1:3000"},
            "domain": {"type": "str", "default": ""},
            "https_port": {"type": "int", "default": 443},
            "owners": {
                "type": "list",
                "elements": "dict",
                "default": OWNERS,
                "options": {
                    "service": {"type": "str", "required": True},
                    "target": {"type": "str", "required": True},
                    "owner": {"type": "int", "required": True},
                    "group": {"type": "int", "required": True},
                },
            },
            "secrets": {"type": "dict", "default": SECRETS, "no_log": False},
            "public_ports": {"type": "list", "elements": "str", "default": []},
            "reference_time": {"type": "float"},
            "timeout": {"type": "float", "default": 5},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not params["url"].startswith("http://"):
        module.fail_json(msg=f"url is {params['url']!r}, expected http:// and the loopback port of Dify's own nginx.")
    if params["timeout"] < 2:
        module.fail_json(msg=f"timeout is {params['timeout']:g}, expected 2 seconds or more.")
    facts, findings, hidden = look(
        Options(
            path=params["path"].rstrip("/") or "/",
            url=params["url"].rstrip("/"),
            domain=params["domain"],
            https_port=params["https_port"],
            owners=params["owners"],
            secrets=params["secrets"],
            public_ports=params["public_ports"],
            reference_time=params["reference_time"],
            timeout=params["timeout"],
        )
    )
    module.no_log_values.update(hidden)
    healthy = not any(one.severity == ERROR for one in findings)
    module.exit_json(changed=False, healthy=healthy, findings=ordered(findings), **facts)


if __name__ == "__main__":
    main()
