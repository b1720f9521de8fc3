# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use it from outside selfhost.dify.

"""Judges what was seen of a Dify server: pure functions from data to findings. How it is seen: C(_instance_probes)."""

from __future__ import annotations

import typing as t

from ansible_collections.selfhost.dify.plugins.module_utils import _releases
from ansible_collections.selfhost.dify.plugins.module_utils._connection import Refused
from ansible_collections.selfhost.dify.plugins.module_utils._instance_sources import (
    Container,
    Project,
    is_loopback,
    last_complaint,
    tag,
)

ERROR, WARNING, INFO = "error", "warning", "info"

# Every finding there is, in the order in which causes come before what follows from them, with its severity.
FINDINGS = {
    "not_installed": ERROR,
    "engine_missing": ERROR,
    "engine_down": ERROR,
    "project_unreadable": ERROR,
    "disk_full": ERROR,
    "clock_skew": ERROR,
    "service_missing": ERROR,
    "service_dropped": ERROR,
    "one_shot_failed": ERROR,
    "service_stopped": ERROR,
    "database_unreachable": ERROR,
    "database_refuses_password": ERROR,
    "database_missing": ERROR,
    "database_refuses": ERROR,
    "migrations_unknown": ERROR,
    "migrations_behind": ERROR,
    "redis_unreachable": ERROR,
    "redis_refuses_password": ERROR,
    "redis_refuses_writes": ERROR,
    "redis_refuses": ERROR,
    "service_restarting": ERROR,
    "service_unhealthy": ERROR,
    "storage_owner": ERROR,
    "storage_missing": ERROR,
    "api_unhealthy": ERROR,
    "setup_broken": ERROR,
    "proxy_down": ERROR,
    "proxy_stale": ERROR,
    "web_unhealthy": ERROR,
    "unclaimed": ERROR,
    "worker_silent": ERROR,
    "plugin_daemon_unhealthy": ERROR,
    "plugin_daemon_key": ERROR,
    "sandbox_unreachable": ERROR,
    "sandbox_key": ERROR,
    "sandbox_python": ERROR,
    "sandbox_javascript": ERROR,
    "vector_store_not_ready": ERROR,
    "ssrf_proxy_open": ERROR,
    "ssrf_proxy_unreachable": ERROR,
    "port_open": ERROR,
    "certificate_expired": ERROR,
    "certificate_unreachable": ERROR,
    "images_disagree": ERROR,
    "image_outdated": WARNING,
    "release_differs": WARNING,
    "certificate_expiring": WARNING,
    "backup_failed": WARNING,
    "backup_old": WARNING,
    "disk_filling": WARNING,
    "logs_large": WARNING,
    "public_secrets": WARNING,
    "env_drift": WARNING,
    "plugins_failed": WARNING,
    "release_security": WARNING,
    "storage_unseen": WARNING,
    "probe_failed": WARNING,
    "service_starting": INFO,
    "release_newer": INFO,
}

DIFY_IMAGES = ("dify-api", "dify-web", "dify-agent-backend", "dify-agent-local-sandbox")
# A container that was restarted so often and started so few seconds ago is in a loop: Docker waits a minute at most.
LOOP_RESTARTS, LOOP_SECONDS = 3, 75
DISK_FULL, DISK_FILLING = 97, 85  # percent
CERTIFICATE_DAYS = 14
BACKUP_DAYS = 2
LOG_BYTES = 5 * 1024**3
CLOCK_SECONDS = 60


class Finding(t.NamedTuple):
    """What is wrong: ``seen`` says it, ``remedy`` what to do. ``service``: the one it is about, if any."""

    id: str
    seen: str
    remedy: str
    service: str = ""

    @property
    def severity(self) -> str:
        return FINDINGS[self.id]


def ordered(findings: t.Iterable[Finding]) -> list[dict[str, str]]:
    """The findings as the module returns them: errors first, causes before what follows from them."""
    ranks = {name: number for number, name in enumerate(FINDINGS)}
    severities = (ERROR, WARNING, INFO)
    rows = sorted(findings, key=lambda one: (severities.index(one.severity), ranks[one.id], one.service, one.seen))
    return [
        {"id": one.id, "severity": one.severity, "service": one.service, "seen": one.seen, "remedy": one.remedy}
        for one in rows
    ]


class Place(t.NamedTuple):
    """Where the server is, for remedies that can be typed. ``path``: the Compose project's directory."""

    path: str

    def compose(self, *words: str) -> str:
        return "docker compose --project-directory {0} {1}".format(self.path, " ".join(words))

    @property
    def env(self) -> str:
        return self.path + "/.env"


SITE = "ansible-playbook selfhost.dify.site"
OVERWRITE = SITE + " -e dify_env_drift=overwrite"


# --- services --------------------------------------------------------------------------------------------------------


def judge_services(
    project: Project, containers: t.Mapping[str, Container], logs: t.Mapping[str, str], now: float, place: Place
) -> list[Finding]:
    """What is wrong with each service that is to run."""
    found = [
        Finding(
            "service_dropped",
            "{0} does not run: settings point at it, but its profile {1} is not in COMPOSE_PROFILES.".format(
                name, profile
            ),
            "Add {0} to COMPOSE_PROFILES in {1}, then run: {2}; or undo every edit of that file: {3}".format(
                profile, place.env, place.compose("up", "--detach"), OVERWRITE
            ),
            name,
        )
        for name, profile in sorted(project.dropped.items())
        if name not in containers or not containers[name].running
    ]
    for name in sorted(project.active):
        container = containers.get(name)
        if container is None:
            found.append(
                Finding(
                    "service_missing",
                    "{0} has no container, although the project starts it.".format(name),
                    place.compose("up", "--detach", name),
                    name,
                )
            )
        else:
            finding = _judge_service(container, project.services[name].one_shot, logs.get(name, ""), now, place)
            found += [finding] if finding else []
    return found


def _judge_service(container: Container, one_shot: bool, log: str, now: float, place: Place) -> Finding | None:
    name, state = container.service, container.state
    last = last_complaint(log)
    said = ' Its log ends with: "{0}".'.format(last) if last else ""
    if one_shot:
        if state != "exited" or container.exit_code == 0:
            return None
        seen = "{0} ended with exit code {1}.{2}".format(name, container.exit_code, said)
        return Finding("one_shot_failed", seen, place.compose("up", name), name)
    logs = place.compose("logs", "--tail", "100", name)
    if container.out_of_memory:
        said = " The kernel ended it for want of memory." + said
    looping = container.restarts >= LOOP_RESTARTS and now - container.started < LOOP_SECONDS
    looping = looping and container.health != "healthy"
    if state == "restarting" or (state == "running" and looping):
        code = ", last exit code {0}".format(container.exit_code) if state == "restarting" else ""
        seen = "{0} ends and is started again, {1} times so far{2}.{3}".format(name, container.restarts, code, said)
        remedy = "{0}; if it goes on, read why: {1}".format(place.compose("up --detach --force-recreate", name), logs)
        return Finding("service_restarting", seen, remedy, name)
    if state != "running":
        seen = "{0} is {1}, exit code {2}.{3}".format(name, state, container.exit_code, said)
        if container.error:
            seen = "{0} is {1}: {2}.{3}".format(name, state, container.error.rstrip("."), said)
        verb = "unpause" if state == "paused" else "up --detach"
        return Finding("service_stopped", seen, place.compose(verb, name), name)
    if container.health == "unhealthy":
        seen = "{0} runs, but its own health check fails.{1}".format(name, said)
        return Finding("service_unhealthy", seen, "Read why, and mend it: {0}".format(logs), name)
    if container.health == "starting":
        return Finding("service_starting", "{0} is starting.".format(name), "Ask again in a minute.", name)
    return None


def not_well(project: Project, containers: t.Mapping[str, Container], now: float) -> list[str]:
    """Services whose log tells something."""
    found = judge_services(project, containers, {}, now, Place(""))
    return [one.service for one in found if one.service in containers]


def judge_images(project: Project, containers: t.Mapping[str, Container], place: Place) -> list[Finding]:
    """Whether what runs is what the project names, and of one release."""
    found = []
    running = {name: one for name, one in containers.items() if one.running}
    for name in sorted(project.active & set(running)):
        wanted = project.services[name].image
        if wanted and wanted != running[name].image:
            found.append(
                Finding(
                    "image_outdated",
                    "{0} runs {1}, the project names {2}.".format(name, running[name].image, wanted),
                    place.compose("up", "--detach"),
                    name,
                )
            )
    tags: dict[str, list[str]] = {}
    for name, one in sorted(running.items()):
        if one.image.split("@")[0].rpartition("/")[2].split(":")[0] in DIFY_IMAGES and tag(one.image):
            tags.setdefault(tag(one.image), []).append(name)
    if len(tags) > 1:
        parts = "; ".join("{0}: {1}".format(version, ", ".join(names)) for version, names in sorted(tags.items()))
        remedy = place.compose("up", "--detach")
        found.append(Finding("images_disagree", "Images of several releases run together: {0}.".format(parts), remedy))
    return found


def judge_release(checked_out: str, answered: str) -> list[Finding]:
    """The version in the checkout against what the API says, and against the releases known here."""
    found = []
    if checked_out and answered and checked_out != answered:
        seen = "The API says it is {0}, the checkout holds {1}.".format(answered, checked_out)
        found.append(Finding("release_differs", seen, "{0}, with dify_version set to the one you mean".format(SITE)))
    version = answered or checked_out
    newer = _releases.newer(version)
    repaired = [release for release in newer if release in _releases.SECURITY]
    if repaired:
        seen = "{0} lacks security fixes: {1}.".format(
            version, "; ".join("{0} repairs {1}".format(release, _releases.SECURITY[release]) for release in repaired)
        )
        remedy = "Back up, then {0} -e dify_version={1} -e dify_upgrade=true, or a later release".format(
            SITE, repaired[-1]
        )
        found.append(Finding("release_security", seen, remedy))
    if newer:
        seen = "{0} runs; the newest release known to this version of the collection is {1}.".format(version, newer[-1])
        found.append(Finding("release_newer", seen, "Read its release notes, back up, then upgrade."))
    return found


# --- what answers ----------------------------------------------------------------------------------------------------


def judge_api(status: int, body: t.Any, place: Place) -> list[Finding]:
    """The API's own C(/health), asked inside."""
    if status == 200 and isinstance(body, dict) and body.get("status") == "ok":
        return []
    remedy = "Read why: {0}".format(place.compose("logs", "--tail", "100", "api"))
    return [Finding("api_unhealthy", "The API answers /health with status {0}.".format(status), remedy, "api")]


def judge_proxy(ping: int | None, page: int | None, api_well: bool, url: str, place: Place) -> list[Finding]:
    """What Dify's own nginx answers on loopback: status of the API's ping and of a page.

    None where nobody listens, 0 where no answer came in time.
    """
    again = place.compose("up", "--detach", "--force-recreate", "--no-deps", "nginx")
    found = []
    if ping is None:
        seen = "Dify's nginx does not answer {0}/console/api/ping.".format(url)
        found.append(
            Finding("proxy_down", seen, "{0}; read {1}".format(again, place.compose("logs", "nginx")), "nginx")
        )
    elif ping != 200 and api_well:
        seen = "The API is well, but Dify's nginx {0}: it looks for it where it was before it was recreated.".format(
            "answers status {0} for it".format(ping) if ping else "gets no answer from it"
        )
        found.append(Finding("proxy_stale", seen, again, "nginx"))
    if ping is not None and not 0 < (page or 0) < 400:
        answers = "answers with status {0}".format(page) if page else "does not answer"
        remedy = "{0}; if that does not help: {1}".format(
            again, place.compose("up", "--detach", "--force-recreate", "web", "nginx")
        )
        found.append(Finding("web_unhealthy", "{0}/signin {1}.".format(url, answers), remedy, "web"))
    return found


def judge_setup(status: int, body: t.Any, url: str, place: Place) -> list[Finding]:
    """Whether somebody owns the server: C(GET /console/api/setup)."""
    step = body.get("step") if isinstance(body, dict) else None
    if status == 200 and step == "finished":
        return []
    if status == 200:
        seen = "The server is not set up: whoever comes first owns it."
        return [Finding("unclaimed", seen, "{0}; it claims the server for dify_admin_email".format(SITE))]
    seen = "{0}/console/api/setup answers with status {1}, as it does without its database.".format(url, status)
    remedy = "Mend the database first; then read {0}".format(place.compose("logs", "--tail", "100", "api"))
    return [Finding("setup_broken", seen, remedy, "api")]


def judge_worker(names: t.Sequence[str], place: Place) -> list[Finding]:
    """The workers that answered a Celery ping."""
    if names:
        return []
    remedy = "{0}; if it stays silent: {1}".format(
        place.compose("restart", "worker"), place.compose("logs", "--tail", "100", "worker")
    )
    return [Finding("worker_silent", "No worker answers a Celery ping, so nothing queued is done.", remedy, "worker")]


def judge_sandbox(language: str, status: int, body: t.Any, place: Place) -> list[Finding]:
    """The sandbox's answer to 1+1 in C(python3) or C(nodejs)."""
    if status in (401, 403):
        seen = "The sandbox refuses the API's key: CODE_EXECUTION_API_KEY differs from its SANDBOX_API_KEY."
        remedy = "Give both the same value in {0}, then run: {1}".format(place.env, place.compose("up", "--detach"))
        return [Finding("sandbox_key", seen, remedy, "sandbox")]
    data = (body.get("data") or {}) if isinstance(body, dict) else {}
    if status == 200 and str(data.get("stdout", "")).strip() == "2":
        return []
    name = {"python3": "Python", "nodejs": "JavaScript"}[language]
    said = data.get("error") or (body.get("message") if isinstance(body, dict) else "") or "status {0}".format(status)
    remedy = "Compare volumes/sandbox/conf/config.yaml with the release's own, then run: {0}".format(
        place.compose("up", "--detach", "--force-recreate", "sandbox")
    )
    seen = "The sandbox does not run 1+1 in {0}: {1}.".format(name, str(said).strip()[:300].rstrip("."))
    return [Finding("sandbox_" + name.lower(), seen, remedy, "sandbox")]


def judge_plugin_daemon(health: int, keyed: int, place: Place) -> list[Finding]:
    """Status of its health check, and of a question with the API's key."""
    if health != 200:
        seen = "The plugin daemon answers its health check with status {0}.".format(health)
        remedy = "Read why: {0}".format(place.compose("logs", "--tail", "100", "plugin_daemon"))
        return [Finding("plugin_daemon_unhealthy", seen, remedy, "plugin_daemon")]
    if keyed in (401, 403):
        seen = "The plugin daemon refuses the API's PLUGIN_DAEMON_KEY: the two were started with different ones."
        remedy = "{0}; if it stays so, look for PLUGIN_DAEMON_KEY in {1} and in what overrides it".format(
            place.compose("up", "--detach", "--force-recreate", "api", "worker", "plugin_daemon", "nginx"), place.env
        )
        return [Finding("plugin_daemon_key", seen, remedy, "plugin_daemon")]
    return []


def judge_plugins(failed: t.Sequence[str]) -> list[Finding]:
    """Plugins whose installation failed."""
    if not failed:
        return []
    seen = "Plugins could not be installed: {0}.".format(", ".join(failed))
    return [Finding("plugins_failed", seen, "Open Plugins in the console, read why, and install or remove them again.")]


def judge_ssrf_proxy(status: int, place: Place) -> list[Finding]:
    """What the proxy answered when it was asked for the cloud's metadata."""
    if status == 403:
        return []
    seen = (
        "ssrf_proxy does not forbid 169.254.169.254 (status {0}): workflows can read the cloud's credentials.".format(
            status
        )
    )
    remedy = "Compare {0}/ssrf_proxy with the release's own files, then run: {1}".format(
        place.path, place.compose("up", "--detach", "--force-recreate", "ssrf_proxy")
    )
    return [Finding("ssrf_proxy_open", seen, remedy, "ssrf_proxy")]


# --- database and Redis ----------------------------------------------------------------------------------------------


def judge_database(error: Exception, name: str, service: str, place: Place) -> Finding:
    """Why the database cannot be used with the API's own account.

    ``name``: of the database. ``service``: the project's that runs it, empty where it is the operator's own.
    """
    logs = place.compose("logs", "--tail", "100", service) if service else "the log of the server at DB_HOST"
    if not isinstance(error, Refused):
        seen = "The database does not answer: {0}.".format(_reason(error))
        remedy = place.compose("up", "--detach", service) if service else "See to the server that DB_HOST names."
        return Finding("database_unreachable", seen, remedy, service)
    if error.code in ("28P01", "28000"):
        seen = "The database refuses the API's password: DB_PASSWORD was changed in one place only ({0}).".format(error)
        remedy = (
            "Put the former DB_PASSWORD back into {0} (dated copies lie beside it) and run {1}; to change it for good: "
            "ansible-playbook selfhost.dify.rotate_secrets -e secret=DB_PASSWORD".format(
                place.env, place.compose("up", "--detach")
            )
        )
        return Finding("database_refuses_password", seen, remedy, service)
    if error.code == "3D000":
        return missing_database(name, place)
    remedy = "Read why: {0}".format(logs)
    return Finding("database_refuses", "The database says: {0}.".format(str(error).rstrip(".")), remedy, service)


def missing_database(name: str, place: Place) -> Finding:
    remedy = "Restore it from a backup; a database that never had data is made by: {0}".format(
        place.compose("up", "--detach", "--force-recreate", "api", "plugin_daemon", "nginx")
    )
    return Finding("database_missing", "The server has no database {0}.".format(name), remedy)


def judge_migrations(
    current: t.Collection[str], known: t.Collection[str], heads: t.Collection[str], place: Place
) -> list[Finding]:
    """The revision in the database against those of the code that runs."""
    unknown = sorted(set(current) - set(known))
    if unknown:
        seen = "The database is at revision {0}, which the code that runs does not know.".format(", ".join(unknown))
        remedy = (
            "Run the release that made it ({0} with its dify_version), or restore a backup of this release; a database "
            "cannot be moved back.".format(SITE)
        )
        return [Finding("migrations_unknown", seen, remedy, "api")]
    if set(current) != set(heads):
        seen = "The database is at revision {0}, the code wants {1}.".format(
            ", ".join(sorted(current)) or "none", ", ".join(sorted(heads))
        )
        remedy = "{0}; then read {1}".format(
            place.compose("up", "--detach", "--force-recreate", "api", "nginx"),
            place.compose("logs", "api", "|", "grep", "-i", "migrat"),
        )
        return [Finding("migrations_behind", seen, remedy, "api")]
    return []


def judge_redis(error: Exception, place: Place) -> Finding:
    """Why Redis cannot be used."""
    if not isinstance(error, Refused):
        seen = "Redis does not answer: {0}.".format(_reason(error))
        return Finding("redis_unreachable", seen, place.compose("up", "--detach", "redis"), "redis")
    if error.code in ("NOAUTH", "WRONGPASS") or "invalid password" in str(error):
        seen = "Redis refuses the password that Dify uses: {0}.".format(str(error).rstrip("."))
        remedy = "REDIS_PASSWORD and the one in CELERY_BROKER_URL must be the same in {0}; then run: {1}".format(
            place.env, place.compose("up", "--detach", "--force-recreate")
        )
        return Finding("redis_refuses_password", seen, remedy, "redis")
    causes = {
        "OOM": "raise its maxmemory or take the limit away (CONFIG SET maxmemory 0)",
        "READONLY": "it is a replica: make it the master again (REPLICAOF NO ONE)",
        "MISCONF": "it cannot write its data to disk: free space, and look at the owner of volumes/redis/data",
    }
    if error.code in causes:
        seen = "Redis takes no writes, so nothing can be queued: {0}.".format(str(error).rstrip("."))
        remedy = "{0}; or as it was configured: {1}".format(
            causes[error.code][0].upper() + causes[error.code][1:], place.compose("restart", "redis")
        )
        return Finding("redis_refuses_writes", seen, remedy, "redis")
    remedy = "Read why: {0}".format(place.compose("logs", "--tail", "100", "redis"))
    return Finding("redis_refuses", "Redis says: {0}.".format(str(error).rstrip(".")), remedy, "redis")


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__).rstrip(".")


# --- the host --------------------------------------------------------------------------------------------------------


def judge_storage(row: t.Mapping[str, t.Any]) -> list[Finding]:
    """A directory that must belong to somebody: what a walk through it found."""
    path, owner = row["path"], "{0}:{1}".format(row["owner"], row["group"])
    if row["missing"]:
        return [Finding("storage_missing", "{0} does not exist.".format(path), SITE, row["service"])]
    found = []
    if row["wrong"]:
        seen = "{0} of the {1} entries examined in {2} do not belong to {3}: {4}.".format(
            row["wrong"],
            row["examined"],
            path,
            owner,
            ", ".join("{0} ({1})".format(name or ".", was) for name, was in row["sample"]),
        )
        remedy = "{0}, or by hand: chown --recursive {1} {2}".format(SITE, owner, path)
        found.append(Finding("storage_owner", seen, remedy, row["service"]))
    if not row["complete"]:
        seen = "{0} is too big to be walked in time: only {1} entries were examined.".format(path, row["examined"])
        remedy = "Look with more time: ansible-playbook selfhost.dify.status -e dify_status_timeout=60"
        found.append(Finding("storage_unseen", seen, remedy, row["service"]))
    return found


def judge_disks(disks: t.Iterable[t.Mapping[str, t.Any]]) -> list[Finding]:
    """File systems: ``mount``, ``used_percent``, ``inodes_percent``, ``free_bytes``, ``volumes`` on it."""
    found = []
    for disk in disks:
        for kind, percent in (("space", disk["used_percent"]), ("inodes", disk["inodes_percent"])):
            if percent < DISK_FILLING:
                continue
            seen = "{0} % of the {1} on {2} is used; on it lie {3}.".format(
                percent, kind, disk["mount"], ", ".join(disk["volumes"][:4])
            )
            remedy = (
                "Free some, or enlarge it: old images go with docker image prune, then look with du -x -d2 {0}".format(
                    disk["mount"]
                )
            )
            found.append(Finding("disk_full" if percent >= DISK_FULL else "disk_filling", seen, remedy))
    return found


def judge_logs(total: int, place: Place) -> list[Finding]:
    """Bytes in the containers' logs."""
    if total <= LOG_BYTES:
        return []
    seen = "The containers' logs take {0} GB.".format(total // 1024**3)
    return [Finding("logs_large", seen, "Set dify_logging, run {0}; or: {1}".format(SITE, place.compose("up", "-d")))]


def judge_ports(containers: t.Iterable[Container], allowed: t.Collection[str], place: Place) -> list[Finding]:
    """Ports that Docker publishes on addresses others can reach. ``allowed``: service:port, as in dify_public_ports."""
    found: dict[tuple[str, str, str], None] = {}
    for one in containers:
        for address, port, target in one.ports:
            if not is_loopback(address) and "{0}:{1}".format(one.service, target) not in allowed:
                found[(one.service, port, target)] = None
    return [
        Finding(
            "port_open",
            "{0} is published on port {1} of every address of this host, past the firewall.".format(service, port),
            "Take it out of the Compose files, or allow it with dify_public_ports: [{0}:{1}]; then {2}".format(
                service, target, SITE
            ),
            service,
        )
        for service, port, target in found
    ]


def judge_certificate(domain: str, expires: float, now: float) -> list[Finding]:
    """The certificate that is served for the domain."""
    days = int((expires - now) // 86400)
    remedy = "docker exec nginx-certbot sh -c 'kill -HUP 1', then read: docker logs --tail 100 nginx-certbot"
    if expires <= now:
        seen = "The certificate of {0} expired {1} days ago.".format(domain, -days - 1)
        return [Finding("certificate_expired", seen, remedy)]
    if days < CERTIFICATE_DAYS:
        seen = "The certificate of {0} is valid for {1} more days only, so it is not renewed.".format(domain, days)
        return [Finding("certificate_expiring", seen, remedy)]
    return []


def judge_backup(backup: t.Mapping[str, t.Any]) -> list[Finding]:
    """The facts of the last backup."""
    found = []
    again = "systemctl start selfhost-dify-backup"
    for command, message in sorted(backup["failed"].items()):
        unit = "selfhost-dify-backup" + ("-" + command if command in ("check", "drill") else "")
        seen = "The last {0} failed: {1}.".format(command, message.rstrip("."))
        remedy = "journalctl --unit {0} --lines 50; then: systemctl start {0}".format(unit)
        found.append(Finding("backup_failed", seen, remedy))
    age = backup["age_seconds"]
    if age is not None and age > BACKUP_DAYS * 86400:
        seen = "The last good backup is {0} days old.".format(int(age // 86400))
        found.append(Finding("backup_old", seen, "systemctl list-timers selfhost-dify-backup.timer; then: " + again))
    return found


def judge_environment(edited: t.Sequence[str], public: t.Sequence[str], place: Place) -> list[Finding]:
    """Hand edits in C(.env) and secrets everybody knows."""
    found = []
    if edited:
        seen = "Edited by hand in {0}: {1}.".format(place.env, ", ".join(edited))
        remedy = "Move them into dify_env, or undo them: {0}".format(OVERWRITE)
        found.append(Finding("env_drift", seen, remedy))
    if public:
        seen = "Still public defaults that anybody can look up: {0}.".format(", ".join(public))
        remedy = "One after the other: ansible-playbook selfhost.dify.rotate_secrets -e secret={0}".format(public[0])
        found.append(Finding("public_secrets", seen, remedy))
    return found


def judge_clock(difference: float) -> list[Finding]:
    """Seconds by which the host's clock is ahead of the clock it is compared with."""
    if abs(difference) <= CLOCK_SECONDS:
        return []
    seen = "The host's clock is {0:.0f} seconds {1}: sign-ins, certificates and schedules go wrong.".format(
        abs(difference), "ahead" if difference > 0 else "behind"
    )
    remedy = (
        "timedatectl set-ntp true, after apt install systemd-timesyncd where there is none; then look at: timedatectl"
    )
    return [Finding("clock_skew", seen, remedy)]
