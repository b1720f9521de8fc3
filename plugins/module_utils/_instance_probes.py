# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use it from outside selfhost.dify.

"""Looks at a running Dify server and changes nothing: asks Docker, Compose, the services and the host, all at once.

Services are asked at their containers' addresses, which this host reaches, with the accounts and keys that the API's
own container was started with. What was seen is judged in C(_instance).
"""

from __future__ import annotations

import contextlib
import glob
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
import typing as t
from urllib.parse import urlsplit

from ansible_collections.selfhost.dify.plugins.module_utils import _celery, _dotenv, _dotenv_files, _instance
from ansible_collections.selfhost.dify.plugins.module_utils import _instance_sources as _sources
from ansible_collections.selfhost.dify.plugins.module_utils._connection import (
    Connection,
    Refused,
    query,
    redis_command,
    redis_stream,
)
from ansible_collections.selfhost.dify.plugins.module_utils._instance import Finding, Place
from ansible_collections.selfhost.dify.plugins.module_utils._ownership import OwnershipError, open_root
from ansible_collections.selfhost.dify.plugins.module_utils._ownership_walk import Policy, Walker

# Where a vector store says that it is ready: the API's setting with its address, and the path.
READY = {
    "weaviate": ("WEAVIATE_ENDPOINT", "/v1/.well-known/ready"),
    "qdrant": ("QDRANT_URL", "/readyz"),
}
# Version and directory; without an engine the command may end well all the same, and says here why.
ENGINE = "{{.ServerVersion}}\n{{.DockerRootDir}}\n{{range .ServerErrors}}{{.}} {{end}}"
METADATA = "http://169.254.169.254/latest/meta-data/"
LOG_LINES = 10
# How the last runs of the role backup's program ended, and what it locks while one is under way.
BACKUP_STATE = "/var/lib/selfhost-dify-backup/state.json"
BACKUP_LOCK = "/run/selfhost-dify-backup.lock"

Facts = t.Dict[str, t.Any]
Probe = t.Callable[[], t.Tuple[Facts, t.List[Finding]]]


class ProbeError(Exception):
    """Something could not be looked at; the message says why."""


class Options(t.NamedTuple):
    """What to look at. ``path``: the directory of the Compose project; see the module for the others."""

    path: str
    url: str
    domain: str
    https_port: int
    owners: t.Sequence[t.Mapping[str, t.Any]]
    secrets: t.Mapping[str, str]
    public_ports: t.Collection[str]
    reference_time: float | None
    timeout: float


class Answer(t.NamedTuple):
    """What a service answered over HTTP. ``body``: its JSON, or None."""

    status: int
    version: str
    body: t.Any


def look(options: Options) -> tuple[Facts, list[Finding], set[str]]:
    """Facts, findings, and the secrets that must not be shown."""
    begun = time.monotonic()
    one = _Look(options)
    one.run()
    one.facts["durations"]["total"] = round(time.monotonic() - begun, 2)
    return one.facts, one.findings, one.hidden


def command(words: t.Sequence[str], timeout: float) -> str:
    """What a command prints. Raises ProbeError when it fails, with what it says."""
    try:
        done = subprocess.run(list(words), stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise ProbeError("{0} is not on this host".format(words[0])) from None
    except subprocess.TimeoutExpired:
        raise ProbeError("{0} did not end within {1:g} seconds".format(" ".join(words[:3]), timeout)) from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["exit code {0}".format(done.returncode)]
        raise ProbeError(said[-1][:500])
    return done.stdout.decode("utf-8", "replace")


def ask(url: str, timeout: float, headers: t.Mapping[str, str] | None = None, body: t.Any = None) -> Answer:
    """Asks over HTTP, without any proxy and without following redirects. Raises OSError and HTTPException."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)
    with contextlib.closing(connection):
        target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
        sent = dict(headers or {})
        if body is not None:
            sent["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", target, data, sent)
        response = connection.getresponse()
        text = response.read(1024 * 1024)
        try:
            parsed = json.loads(text)
        except ValueError:
            parsed = None
        return Answer(response.status, response.getheader("X-Version") or "", parsed)


def together(
    probes: t.Mapping[str, t.Callable[[], t.Any]], timeout: float
) -> dict[str, tuple[t.Any, Exception | None, float]]:
    """Runs all at once: result, or what was raised, and seconds. What takes longer than ``timeout`` is left behind."""
    results: dict[str, tuple[t.Any, Exception | None, float]] = {}
    begun = time.monotonic()

    def run(name: str, probe: t.Callable[[], t.Any]) -> None:
        outcome: tuple[t.Any, Exception | None]
        try:
            outcome = (probe(), None)
        except Exception as error:  # whatever it is, it must not hide what the others see
            outcome = (None, error)
        results[name] = (*outcome, round(time.monotonic() - begun, 2))

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in probes.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, begun + timeout - time.monotonic()))
    late = ProbeError("no answer within {0:g} seconds".format(timeout))
    return {name: results.get(name, (None, late, timeout)) for name in probes}


class _Look:
    """One look at a server; ``run`` fills the three lists of results."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.place = Place(options.path)
        self.now = time.time()
        self.facts: Facts = {"durations": {}}
        self.findings: list[Finding] = []
        self.hidden: set[str] = set()
        self.settings: dict[str, str] = {}
        self.project = _sources.Project("", {}, frozenset(), {})
        self.containers: dict[str, _sources.Container] = {}

    def run(self) -> None:
        path = self.options.path
        compose_file = next(filter(os.path.isfile, (path + "/docker-compose.yaml", path + "/docker-compose.yml")), "")
        if not compose_file:
            self._find("not_installed", "{0} holds no Dify.".format(path), _instance.SITE + ", or give its path")
            return
        if not shutil.which("docker"):
            self._find("engine_missing", "The command docker is not on this host.", _instance.SITE)
            return
        self.release = _sources.checked_out(_dotenv_files.read(compose_file) or "")
        try:
            self.settings = _dotenv.resolve(_dotenv_files.read_dotenv(path + "/.env") or "")
        except (_dotenv.DotenvError, OSError) as error:
            self._find("project_unreadable", str(error), "Mend the file; dated copies lie beside it")
        self._hide(self.settings)
        if self._ask_docker():
            self._ask_services()
        self._conclude()

    # What Docker and Compose say

    def _ask_docker(self) -> bool:
        """Project and containers; false where there is no engine to ask."""
        found = self._together(
            {
                "config": lambda: self._docker(
                    "compose", "--project-directory", self.options.path, "--profile", "*", "config", "--format", "json"
                ),
                "engine": lambda: self._docker("info", "--format", ENGINE),
                "commit": self._commit,
            }
        )
        said, error = found["engine"]
        version, root, trouble = [*(said or "").split("\n", 2), "", ""][:3]
        if not version:
            self._find(
                "engine_down",
                "The Docker engine does not answer: {0}.".format(str(error or trouble.strip()).rstrip(".?")),
                "systemctl start docker; if it does not stay up: journalctl --unit docker --lines 50",
            )
            return False
        self.facts["engine"] = {"version": version, "root": root}
        text, error = found["config"]
        if error:
            self._find(
                "project_unreadable",
                "Compose cannot read the project: {0}.".format(str(error).rstrip(".")),
                "{0}; then look again with: {1}".format(_instance.SITE, self.place.compose("config", "--quiet")),
            )
        else:
            self.project = _sources.project(text, self.settings)
        name = self.project.name or self.settings.get("COMPOSE_PROJECT_NAME") or os.path.basename(self.options.path)
        label = "label=com.docker.compose.project=" + name
        ids = self._docker("ps", "--all", "--quiet", "--no-trunc", "--filter", label).split()
        if ids:
            self.containers = _sources.containers(self._docker("inspect", "--type", "container", *ids))
        for one in self.containers.values():
            self._hide(one.environment)
        return True

    def _commit(self) -> str:
        words = ["git", "-c", "safe.directory=*", "-C", self.options.path, "rev-parse", "HEAD"]
        return command(words, self.options.timeout).strip()

    def _docker(self, *words: str) -> str:
        return command(["docker", *words], self.options.timeout)

    # What the services say

    def _ask_services(self) -> None:
        unwell = _instance.not_well(self.project, self.containers, self.now)
        logs = {"log of " + name: (lambda one=self.containers[name]: self._log(one)) for name in dict.fromkeys(unwell)}
        probes: dict[str, Probe] = {
            "storage": self._storage,
            "disks": self._disks,
            "ports": self._ports,
            "environment": self._environment,
            "images": self._images,
            "backup": self._backup,
        }
        if self.options.domain:
            probes["certificate"] = self._certificate
        for service, probe in (
            ("api", self._api),
            ("nginx", self._nginx),
            ("plugin_daemon", self._plugin_daemon),
            ("sandbox", self._sandbox),
            ("ssrf_proxy", self._ssrf_proxy),
        ):
            if self._runs(service):
                probes[service] = probe
        if self._account():
            probes.update(database=self._database, redis=self._redis, worker=self._worker, store=self._store)
        found = self._together({**probes, **logs})
        for name in probes:
            result, error = found[name]
            if error:
                self._find("probe_failed", "{0} could not be looked at: {1}.".format(name, _said(error)), "Ask again.")
            else:
                facts, findings = result
                self.facts.update(facts)
                self.findings += findings
        self.logs = {name[7:]: found[name][0] or "" for name in logs}

    def _log(self, one: _sources.Container) -> str:
        done = subprocess.run(
            ["docker", "logs", "--tail", "50", one.id],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=self.options.timeout,
            check=False,
        )
        return done.stdout.decode("utf-8", "replace")

    def _runs(self, service: str) -> bool:
        return service in self.containers and self.containers[service].running

    def _account(self) -> t.Mapping[str, str]:
        """The environment of the API, or of a worker, which have the same accounts."""
        ones = (self.containers[name] for name in ("api", "worker", "worker_beat") if name in self.containers)
        return next((one.environment for one in ones), {})

    def _locate(self, host: str) -> str:
        """The address of a service of the project, or the host itself where it is none; empty if it does not run."""
        if host in self.project.services or host in self.containers:
            return self.containers[host].address if self._runs(host) else ""
        return host

    def _endpoint(self, setting: str, default: str) -> str:
        """A URL of the API's settings with an address that this host reaches; empty if its service does not run."""
        parts = urlsplit(self._account().get(setting) or default)
        address = self._locate(parts.hostname or "")
        port = ":{0}".format(parts.port) if parts.port else ""
        return "{0}://{1}{2}".format(parts.scheme, address, port) if address else ""

    def _api(self) -> tuple[Facts, list[Finding]]:
        base = "http://{0}:5001".format(self.containers["api"].address)
        try:
            health = ask(base + "/health", self.options.timeout)
            setup = ask(base + "/console/api/setup", self.options.timeout)
        except (OSError, http.client.HTTPException) as error:
            seen = "The API does not answer: {0}.".format(_said(error))
            remedy = "Wait a minute after a start; then read: {0}".format(
                self.place.compose("logs", "--tail", "100", "api")
            )
            return {"api": {"healthy": False, "version": None}}, [Finding("api_unhealthy", seen, remedy, "api")]
        findings = _instance.judge_api(health.status, health.body, self.place)
        findings += _instance.judge_setup(setup.status, setup.body, self.options.url, self.place)
        facts = {
            "api": {"healthy": not findings or findings[0].id != "api_unhealthy", "version": health.version or None},
            "setup": setup.body if setup.status == 200 else None,
        }
        return facts, findings

    def _nginx(self) -> tuple[Facts, list[Finding]]:
        def status(path: str) -> int | None:
            try:
                return ask(self.options.url + path, self.options.timeout / 2).status
            except socket.timeout:
                return 0
            except (OSError, http.client.HTTPException):
                return None

        facts = {"ping": status("/console/api/ping"), "page": status("/signin") if self._runs("web") else None}
        return {"nginx": facts}, []  # judged when it is known whether the API is well

    def _plugin_daemon(self) -> tuple[Facts, list[Finding]]:
        base = self._endpoint("PLUGIN_DAEMON_URL", "http://plugin_daemon:5002")
        headers = {"X-Api-Key": self._account().get("PLUGIN_DAEMON_KEY", "")}
        nobody = "/plugin/00000000-0000-0000-0000-000000000000/management/list?page=1&page_size=1"
        try:
            health = ask(base + "/health/check", self.options.timeout)
            keyed = ask(base + nobody, self.options.timeout, headers) if health.status == 200 else health
        except (OSError, http.client.HTTPException) as error:
            remedy = "Read why: {0}".format(self.place.compose("logs", "--tail", "100", "plugin_daemon"))
            seen = "The plugin daemon does not answer: {0}.".format(_said(error))
            return {}, [Finding("plugin_daemon_unhealthy", seen, remedy, "plugin_daemon")]
        findings = _instance.judge_plugin_daemon(health.status, keyed.status, self.place)
        version = health.body.get("version") if isinstance(health.body, dict) else None
        return {"plugin_daemon": {"healthy": not findings, "version": version}}, findings

    def _sandbox(self) -> tuple[Facts, list[Finding]]:
        base = self._endpoint("CODE_EXECUTION_ENDPOINT", "http://sandbox:8194")
        headers = {"X-Api-Key": self._account().get("CODE_EXECUTION_API_KEY", "")}
        facts: Facts = {}
        findings: list[Finding] = []
        for language, code in (("python3", "print(1+1)"), ("nodejs", "console.log(1+1)")):
            job = {"language": language, "code": code, "preload": "", "enable_network": False}
            try:
                answer = ask(base + "/v1/sandbox/run", self.options.timeout, headers, job)
            except (OSError, http.client.HTTPException) as error:
                seen = "The sandbox does not answer: {0}.".format(_said(error))
                remedy = self.place.compose("up", "--detach", "--force-recreate", "sandbox")
                return {}, [Finding("sandbox_unreachable", seen, remedy, "sandbox")]
            wrong = _instance.judge_sandbox(language, answer.status, answer.body, self.place)
            facts[language] = not wrong
            findings += wrong if wrong and wrong[0] not in findings else []
        return {"sandbox": facts}, findings

    def _ssrf_proxy(self) -> tuple[Facts, list[Finding]]:
        parts = urlsplit(self._endpoint("SSRF_PROXY_HTTP_URL", "http://ssrf_proxy:3128"))
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=self.options.timeout)
        try:
            with contextlib.closing(connection):
                connection.request("GET", METADATA)
                status = connection.getresponse().status
        except socket.timeout:
            status = 504  # it tries to go there
        except (OSError, http.client.HTTPException) as error:
            seen = "ssrf_proxy does not answer: {0}.".format(_said(error))
            remedy = self.place.compose("up", "--detach", "--force-recreate", "ssrf_proxy")
            return {}, [Finding("ssrf_proxy_unreachable", seen, remedy, "ssrf_proxy")]
        return {"ssrf_proxy": {"forbids_metadata": status == 403}}, _instance.judge_ssrf_proxy(status, self.place)

    def _store(self) -> tuple[Facts, list[Finding]]:
        """The vector store, where it can be asked; of the others the container's state must do."""
        name = self._account().get("VECTOR_STORE", "")
        facts: Facts = {"name": name, "ready": None}
        if name not in READY:
            return {"vector_store": facts}, []
        setting, path = READY[name]
        base = self._endpoint(setting, "http://{0}:{1}".format(name, {"weaviate": 8080, "qdrant": 6333}[name]))
        if not base.startswith("http://"):
            return {"vector_store": facts}, []  # it does not run, or it is elsewhere behind TLS
        try:
            status = ask(base + path, self.options.timeout).status
            seen = "{0} answers {1} with status {2}.".format(name, path, status)
        except (OSError, http.client.HTTPException) as error:
            status, seen = 0, "{0} does not answer: {1}.".format(name, _said(error))
        facts["ready"] = status == 200
        remedy = "Read why: {0}".format(self.place.compose("logs", "--tail", "100", name))
        finding = Finding("vector_store_not_ready", seen, remedy, name)
        return {"vector_store": facts}, [] if status == 200 else [finding]

    def _database(self) -> tuple[Facts, list[Finding]]:
        account = self._account()
        kind = account.get("DB_TYPE") or "postgresql"
        facts: Facts = {"type": kind, "reachable": None, "databases": None, "revision": None, "head": None}
        address = self._locate(account.get("DB_HOST", ""))
        if kind != "postgresql" or not address:
            return {"database": facts}, []
        name = account.get("DB_DATABASE") or "dify"
        target = Connection(
            "postgresql",
            address,
            int(account.get("DB_PORT") or 5432),
            "sslmode=require" in account.get("DB_EXTRAS", "") or "sslmode=verify" in account.get("DB_EXTRAS", ""),
            False,
            account.get("DB_USERNAME", "postgres"),
            account.get("DB_PASSWORD", ""),
            name,
        )
        timeout = self.options.timeout
        try:
            facts["databases"] = sorted(
                str(row[0]) for row in query(target, "SELECT datname FROM pg_database WHERE NOT datistemplate", timeout)
            )
        except (Refused, OSError) as error:
            facts["reachable"] = False
            host = account["DB_HOST"] if account["DB_HOST"] in self.containers else ""
            return {"database": facts}, [_instance.judge_database(error, name, host, self.place)]
        facts["reachable"] = True
        findings = []
        daemon = self.containers["plugin_daemon"].environment if "plugin_daemon" in self.containers else {}
        plugins = daemon.get("DB_DATABASE") or "dify_plugin"
        if plugins not in facts["databases"]:
            findings.append(_instance.missing_database(plugins, self.place))
        elif daemon:
            failed = self._failed_plugins(target._replace(database=plugins))
            facts["failed_plugins"] = failed
            findings += _instance.judge_plugins(failed)
        rows = _rows(target, "alembic_version", "SELECT version_num FROM alembic_version", timeout)
        facts["revision"] = next((row[0] for row in rows), None)
        if self._runs("api"):
            text = self._docker(
                "exec",
                self.containers["api"].id,
                "sh",
                "-c",
                "grep -hE '^(down_)?revision' migrations/versions/*.py",
            )
            known, heads = _sources.revisions(text)
            facts["head"] = ", ".join(sorted(heads))
            findings += _instance.judge_migrations([str(row[0]) for row in rows], known, heads, self.place)
        return {"database": facts}, findings

    def _failed_plugins(self, target: Connection) -> list[str]:
        """Names of the plugins whose last installation failed."""
        rows = _rows(
            target, "install_tasks", "SELECT plugins FROM install_tasks WHERE status = 'failed'", self.options.timeout
        )
        found = set()
        for row in rows:
            for plugin in json.loads(row[0] or "[]"):
                if plugin.get("status") == "failed":
                    found.add(plugin.get("plugin_id") or plugin.get("plugin_unique_identifier", "").split(":")[0])
        return sorted(found - {""})

    def _redis(self) -> tuple[Facts, list[Finding]]:
        account = self._account()
        address = self._locate(account.get("REDIS_HOST") or "redis")
        if not address or account.get("REDIS_USE_SENTINEL", "").lower() == "true":
            return {"redis": {"reachable": None}}, []
        target = Connection(
            "redis",
            address,
            int(account.get("REDIS_PORT") or 6379),
            account.get("REDIS_USE_SSL", "").lower() == "true",
            False,
            account.get("REDIS_USERNAME", ""),
            account.get("REDIS_PASSWORD", ""),
        )
        try:
            with socket.create_connection((target.host, target.port), self.options.timeout) as plain:
                stream = redis_stream(target, plain)
                redis_command(stream, "PING")
                try:
                    lines = redis_command(stream, "INFO").splitlines()
                except Refused:  # an account of the operator's own may not be allowed to ask that
                    lines = []
        except (Refused, OSError) as error:
            return {"redis": {"reachable": False}}, [_instance.judge_redis(error, self.place)]
        said = dict(line.split(":", 1) for line in lines if ":" in line)
        facts = {
            "reachable": True,
            "version": said.get("redis_version"),
            "used_bytes": int(said["used_memory"]) if "used_memory" in said else None,
            "limit_bytes": int(said["maxmemory"]) if "maxmemory" in said else None,
        }
        return {"redis": facts}, []

    def _worker(self) -> tuple[Facts, list[Finding]]:
        """Asks the workers; what Redis says against the question is Redis's trouble."""
        account = self._account()
        broker = _celery.broker(account.get("CELERY_BROKER_URL", ""), account.get("REDIS_KEY_PREFIX", ""))
        address = self._locate(broker.connection.host) if broker else ""
        if broker is None or not address:
            return {"worker": {"answered": None}}, []
        target = broker._replace(connection=broker.connection._replace(host=address))
        try:
            names = _celery.ping(target, self.options.timeout - 1)
        except (Refused, OSError) as error:
            return {"worker": {"answered": None}}, [_instance.judge_redis(error, self.place)]
        findings = _instance.judge_worker(names, self.place) if self._runs("worker") else []
        return {"worker": {"answered": names}}, findings

    # What the host says

    def _storage(self) -> tuple[Facts, list[Finding]]:
        rows = []
        for owner in self.options.owners:
            service = self.project.services.get(owner["service"])
            if service is None or owner["service"] not in self.project.active:
                continue
            sources = [source for source, target in service.binds if target == owner["target"]]
            rows += [walk(source, owner, self.options.timeout - 1) for source in sources]
        return {"storage": rows}, [one for row in rows for one in _instance.judge_storage(row)]

    def _disks(self) -> tuple[Facts, list[Finding]]:
        places = {
            source
            for name in self.project.active
            for source, _target in self.project.services[name].binds
            if os.path.isdir(source)
        }
        places.add(self.facts["engine"]["root"])
        disks = file_systems(places)
        logs = sum(
            os.path.getsize(path)
            for one in self.containers.values()
            if one.log_path
            for path in glob.glob(glob.escape(one.log_path) + "*")
        )
        facts = {"disks": disks, "logs_bytes": logs}
        return facts, _instance.judge_disks(disks) + _instance.judge_logs(logs, self.place)

    def _images(self) -> tuple[Facts, list[Finding]]:
        ids = list(dict.fromkeys(self._docker("image", "ls", "--quiet", "--no-trunc").split()))
        rows = self._docker("image", "inspect", "--format", "{{.Id}} {{.Size}}", *ids).split() if ids else []
        sizes = dict(zip(rows[::2], map(int, rows[1::2])))
        used = {one.image_id for one in self.containers.values()}
        unused = [size for name, size in sizes.items() if name not in used]
        facts = {"images_bytes": sum(sizes.values()), "images_unused": len(unused), "images_unused_bytes": sum(unused)}
        return facts, _instance.judge_images(self.project, self.containers, self.place)

    def _ports(self) -> tuple[Facts, list[Finding]]:
        found = set()
        for name in ("tcp", "tcp6"):
            with contextlib.suppress(FileNotFoundError), open("/proc/net/" + name, encoding="ascii") as table:
                found |= _sources.listening(table.read())
        opened = sorted({port for address, port in found if not _sources.is_loopback(address)})
        findings = _instance.judge_ports(self.containers.values(), self.options.public_ports, self.place)
        return {"open_ports": opened}, findings

    def _environment(self) -> tuple[Facts, list[Finding]]:
        path = self.options.path
        current = _dotenv_files.read_dotenv(path + "/.env")
        applied = _dotenv_files.read_dotenv(path + "/.env.applied")
        known = [path + "/docker-compose.yaml", path + "/envs/**/*.env.example"]
        release = _dotenv_files.read_release(path + "/.env.example", known)
        names = [name for name, service in self.options.secrets.items() if service in self.project.active]
        facts = {
            "edited": None if applied is None else _dotenv.edited(release, current or "", applied),
            "public_secrets": _dotenv.still_public(release, current or "", applied or "", names),
        }
        findings = _instance.judge_environment(facts["edited"] or [], facts["public_secrets"] or [], self.place)
        return {"environment": facts}, findings

    def _backup(self) -> tuple[Facts, list[Finding]]:
        """Nothing where no backup was ever begun. A run that is under way has not failed yet."""
        if not os.path.exists(BACKUP_STATE):
            return {}, []
        with open(BACKUP_STATE, encoding="utf-8") as stream:
            state = json.load(stream)
        running = _locked(BACKUP_LOCK)
        ran = state.get("backup") or {}
        last = ran.get("succeeded")
        facts = {
            "last_success": last,
            "age_seconds": None if last is None else max(0, int(self.now - last)),
            "size_bytes": ran.get("bytes"),
            "running": running,
            "failed": {
                name: str(one.get("message") or "")
                for name, one in state.items()
                if not running and not one.get("success", True)
            },
        }
        return {"backup": facts}, _instance.judge_backup(facts)

    def _certificate(self) -> tuple[Facts, list[Finding]]:
        domain = self.options.domain
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # an expired or private one is to be seen, too
        try:
            address = ("127.0.0.1", self.options.https_port)
            with socket.create_connection(address, self.options.timeout) as plain, context.wrap_socket(
                plain, server_hostname=domain
            ) as secured:
                der = secured.getpeercert(True) or b""
            _first, expires = _sources.validity(der)
        except (OSError, ValueError) as error:
            seen = "No certificate for {0} on port {1} of this host: {2}.".format(
                domain, self.options.https_port, _said(error)
            )
            remedy = "{0}; then read: docker logs --tail 100 nginx-certbot".format(_instance.SITE)
            return {"certificate": None}, [Finding("certificate_unreachable", seen, remedy)]
        facts = {"expires": expires, "days_left": int((expires - self.now) // 86400)}
        return {"certificate": facts}, _instance.judge_certificate(domain, expires, self.now)

    # What follows

    def _conclude(self) -> None:
        """What takes several answers to judge, and the facts of the services."""
        logs = getattr(self, "logs", {})
        self.findings += _instance.judge_services(self.project, self.containers, logs, self.now, self.place)
        answered = (self.facts.get("api") or {}).get("version") or ""
        self.findings += _instance.judge_release(self.release, answered)
        nginx = self.facts.pop("nginx", None)
        if nginx:
            well = bool((self.facts.get("api") or {}).get("healthy"))
            page = nginx["page"] if self._runs("web") else 200
            self.findings += _instance.judge_proxy(nginx["ping"], page, well, self.options.url, self.place)
        if self.options.reference_time is not None:
            difference = round(self.now - self.options.reference_time, 1)
            self.facts["clock_difference"] = difference
            self.findings += _instance.judge_clock(difference)
        self.findings = list(dict.fromkeys(self.findings))
        self.facts["release"] = {"checked_out": self.release or None, "commit": self.facts.pop("commit", None)}
        self.facts["services"] = {
            name: self._service_facts(name, logs.get(name, ""))
            for name in sorted(self.project.active | set(self.containers))
        }

    def _service_facts(self, name: str, log: str) -> Facts:
        one = self.containers.get(name)
        lines = [line.rstrip() for line in log.splitlines() if line.strip()]
        return {
            "expected": name in self.project.active,
            "one_shot": name in self.project.services and self.project.services[name].one_shot,
            "state": one.state if one else "missing",
            "health": (one.health or None) if one else None,
            "restarts": one.restarts if one else 0,
            "exit_code": one.exit_code if one else None,
            "image": one.image if one else None,
            "uptime_seconds": int(self.now - one.started) if one and one.running else None,
            "last_error": _sources.last_complaint(log) or None,
            "log": lines[-LOG_LINES:],
        }

    def _find(self, name: str, seen: str, remedy: str) -> None:
        self.findings.append(Finding(name, seen, remedy))

    def _hide(self, settings: t.Mapping[str, str]) -> None:
        """Remembers what must not be shown. Short ones and numbers would take half of the words out of the output."""
        for key, value in settings.items():
            password = urlsplit(value).password if "://" in value and "@" in value else None
            for secret in (value if _dotenv.is_secret(key) else None, password):
                if secret and len(secret) >= 8 and not secret.isdigit():
                    self.hidden.add(secret)

    def _together(self, probes: t.Mapping[str, t.Callable[[], t.Any]]) -> dict[str, tuple[t.Any, Exception | None]]:
        """Runs all at once and notes what each took."""
        found = together(probes, self.options.timeout + 1)
        self.facts["durations"].update({name: seconds for name, (_result, _error, seconds) in found.items()})
        if "commit" in found:
            self.facts["commit"] = found["commit"][0]
        return {name: (result, error) for name, (result, error, _seconds) in found.items()}


def _rows(target: Connection, table: str, statement: str, timeout: float) -> list[list[str | None]]:
    """As query; none where there is no such table, which is asked first, so that the server's log keeps clean."""
    there = query(target, "SELECT to_regclass('{0}')".format(table), timeout)
    return query(target, statement, timeout) if there[0][0] else []


def walk(path: str, owner: t.Mapping[str, t.Any], seconds: float) -> Facts:
    """Counts what in a directory does not belong to its owner, for at most so many seconds."""
    policy = Policy(int(owner["owner"]), int(owner["group"]), apply=False)
    row: Facts = {**{key: owner[key] for key in ("service", "owner", "group")}, "path": path}
    row.update(examined=0, wrong=0, sample=[], complete=True, missing=False)
    try:
        fd = open_root(os.path.realpath(path))
    except OwnershipError:
        return {**row, "missing": True}
    try:
        walker = Walker(fd, os.path.realpath(path), policy)
        until = time.monotonic() + seconds
        row["complete"] = walker.walk(lambda: time.monotonic() > until)
        walker.own_root()
        walker.close()
    finally:
        os.close(fd)
    report = walker.report
    row.update(examined=report.examined, wrong=report.wrong.total, sample=report.wrong.first()[:3])
    return row


def file_systems(places: t.Iterable[str]) -> list[Facts]:
    """The file systems that directories lie on, each once, with how full they are."""
    found: dict[int, Facts] = {}
    for path in sorted(places):
        try:
            device, said = os.stat(path).st_dev, os.statvfs(path)
        except OSError:
            continue
        if device in found:
            found[device]["volumes"].append(path)
            continue
        mount = os.path.realpath(path)
        while not os.path.ismount(mount):
            mount = os.path.dirname(mount)
        found[device] = {
            "mount": mount,
            "size_bytes": said.f_blocks * said.f_frsize,
            "free_bytes": said.f_bavail * said.f_frsize,
            "used_percent": _percent(said.f_blocks - said.f_bfree, said.f_bavail),
            "inodes_percent": _percent(said.f_files - said.f_ffree, said.f_favail),
            "volumes": [path],
        }
    return list(found.values())


def _locked(path: str) -> bool:
    """Whether anybody holds a lock on a file, without asking for one."""
    try:
        inode = ":{0} ".format(os.stat(path).st_ino)
        with open("/proc/locks", encoding="ascii") as stream:
            return any(inode in line for line in stream)
    except OSError:
        return False


def _percent(used: int, available: int) -> int:
    """As df counts: of what is used or can be used, rounded up."""
    return -(-100 * used // (used + available)) if used + available else 0


def _said(error: Exception) -> str:
    """What an exception says, in words."""
    if isinstance(error, socket.timeout):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or error or type(error).__name__).rstrip(".")
