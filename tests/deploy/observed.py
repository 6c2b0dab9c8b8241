"""A Prometheus that scrapes nodes under a little load, and what expressions say there.

Not here: which expressions.
"""

import contextlib
import json
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

# What a node cannot tell of itself while it has few connections is not a number, and rightly so.
UNKNOWN = re.compile(r"\btidegate_memory_per_connection_bytes\b")

# Of loopback only; no proxy has a say.
HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def problems(nodes, asked, alerts, within):
    """What does not hold by the end of `within` seconds. `nodes`: (internal, public); `asked`: (name, expression)."""
    deadline = time.monotonic() + within
    names = sorted(set(re.findall(r"\b(?:tidegate|process)_\w+", alerts.read_text())))
    asked = asked + [(f"{alerts.name}: {name}", f"count({name})") for name in names]
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        load = [threading.Thread(target=clients, args=(public, stop), daemon=True) for _, public in nodes]
        for thread in load:
            thread.start()
        stack.callback(lambda: [thread.join() for thread in load])
        stack.callback(stop.set)
        prometheus = stack.enter_context(Prometheus([internal for internal, _ in nodes], alerts, deadline))

        missing = {name: "not asked" for name, _ in asked}
        while missing and time.monotonic() < deadline:
            for name, expression in asked:
                if name in missing:
                    missing[name] = prometheus.fault(expression)
                    if missing[name] is None:
                        del missing[name]
            stop.wait(0.5)
        found = [f"{name}: {why}: {expression}" for name, expression in asked if (why := missing.get(name))]
        return found + prometheus.broken_rules()


def clients(address, stop):
    """One client after the other: subscribes, publishes, asks the backend, hears itself, goes."""
    url = f"ws://{address}/connection/websocket"
    setup = '{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"dashboard"}}'
    publish = '{"id":3,"publish":{"channel":"dashboard","data":{"text":"hello"}}}\n{"id":4,"rpc":{"method":"hello","data":{}}}'
    while not stop.is_set():
        try:
            with connect(url, proxy=None) as client:
                client.send(setup)
                for _ in range(5):
                    client.send(publish)
                    client.recv(timeout=5)
                    stop.wait(0.05)
        except (OSError, TimeoutError, WebSocketException):
            # The expressions will lack their numbers, which says more than this would.
            stop.wait(0.5)


class Prometheus:
    """A process with a data directory of its own, ended with the `with` block."""

    def __init__(self, targets, alerts, deadline):
        self.targets, self.alerts, self.deadline = targets, alerts, deadline

    def __enter__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-prometheus-"))
        shutil.copy(self.alerts, self.dir / "alerts.yml")
        settings = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [{"job_name": "tidegate", "static_configs": [{"targets": self.targets}]}],
        }
        (self.dir / "prometheus.yml").write_text(yaml.safe_dump(settings))
        # Another process may take the port in between; then the next one.
        for _ in range(5):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.address = "127.0.0.1:%d" % free.getsockname()[1]
            with open(self.dir / "log", "w") as log:
                self.process = subprocess.Popen(
                    [
                        "prometheus",
                        f"--config.file={self.dir / 'prometheus.yml'}",
                        f"--storage.tsdb.path={self.dir / 'data'}",
                        f"--web.listen-address={self.address}",
                    ],
                    stdout=log,
                    stderr=log,
                )
            if self.ready():
                return self
        log = (self.dir / "log").read_text()
        self.__exit__()
        raise SystemExit(f"Prometheus does not start:\n{log}")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def ready(self):
        while time.monotonic() < self.deadline and self.process.poll() is None:
            try:
                self.get("/-/ready")
                return True
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
        return False

    def get(self, path, **query):
        with HTTP.open(f"http://{self.address}{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return answer.read()

    def fault(self, expression):
        """Why the expression has no number now, or None."""
        try:
            answer = json.loads(self.get("/api/v1/query", query=expression))
        except urllib.error.HTTPError as error:
            return json.loads(error.read()).get("error", "refused")
        result = answer["data"]["result"]
        if not result:
            return "no data"
        if all(sample["value"][1] == "NaN" for sample in result) and not UNKNOWN.search(expression):
            return "not a number"
        return None

    def broken_rules(self):
        groups = json.loads(self.get("/api/v1/rules"))["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return [f"alert {rule['name']}: {rule.get('lastError') or rule['health']}" for rule in rules if rule["health"] != "ok"]
