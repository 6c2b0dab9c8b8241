"""Holds helm/tidegate to what it promises, with helm, Kubernetes' own schemas and the node's own check of its settings.

    chart.py HELM [TIDEGATE]

HELM is the helm to run; TIDEGATE a node's binary: without it the rendered settings are not checked. Installs nothing
anywhere: that takes a cluster.
"""

import base64
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "tidegate"
# The oldest that Chart.yaml allows, and what clusters run.
KUBERNETES = ["1.27", "1.30", "1.34", "1.37"]
MONITORING = "monitoring.coreos.com/v1/ServiceMonitor"
REDIS = "config.relay.redis.url=redis://redis:6379/0"

# What is refused, and what of the message an operator needs.
REFUSALS = [
    ([], "where Redis is"),
    ([REDIS, "replicaCout=3"], "replicaCout"),
    ([REDIS, "replicaCount=-1"], "replicaCount"),
    ([REDIS, "replicaCount=three"], "replicaCount"),
    ([REDIS, "image.pullPolicy=Sometimes"], "pullPolicy"),
    ([REDIS, "image.digest=latest"], "digest"),
    ([REDIS, "service.type=ExternalName"], "service"),
    ([REDIS, "service.port=0"], "port"),
    ([REDIS, "listen.public=80"], "listen"),
    ([REDIS, "listen.public=9000"], "both 9000"),
    ([REDIS, "tls.existingSecret=No_Such-Name"], "existingSecret"),
    ([REDIS, "metrics.serviceMonitor.enabled=perhaps"], "enabled"),
    ([REDIS, "apiKeys[0].name=backend"], "apiKeys"),
    ([REDIS, "apiKeys[0].name=a/b", "apiKeys[0].scope=admin", "apiKeys[0].existingSecret=s", "apiKeys[0].key=k"], "name"),
    ([REDIS, "apiKeys[0].name=a", "apiKeys[0].scope=root", "apiKeys[0].existingSecret=s", "apiKeys[0].key=k"], "scope"),
    ([REDIS, "podSecurityContxt.fsGroup=1"], "podSecurityContxt"),
    ([REDIS, "terminationGracePeriodSeconds=44"], "44, but the node drains for 35 s"),
    ([REDIS, "config.drain.duration=5m", "terminationGracePeriodSeconds=60"], "Set it to 315 or more"),
    ([REDIS, "config.drain.delay=soon"], 'config.drain.delay is "soon"'),
    (["config.relay.kind=memory"], "carries nothing between nodes"),
    (["config.relay.kind=memory", "replicaCount=1", "autoscaling.enabled=true"], "carries nothing between nodes"),
    (["config.relay.kind=kafka"], "kind"),
    (["config.relay.redis.url=redis://user:secret@redis:6379/0"], "redis.existingSecret"),
    ([REDIS, "config.relay.redis.password=secret"], "redis.existingSecret"),
    ([REDIS, "redis.existingSecret=s"], "redis.urlKey"),
    ([REDIS, "config.listen.public=0.0.0.0:80"], "listen.public"),
    ([REDIS, "config.tls.cert=/a"], "tls.existingSecret"),
    ([REDIS, "tls.recordLayer=none"], "recordLayer"),
    ([REDIS, "tls.ticketKeys.existingSecret=tickets"], "tls.existingSecret"),
    ([REDIS, "config.api.keys[0].name=a"], "apiKeys"),
    ([REDIS, "podDisruptionBudget.minAvailable=1"], "one of maxUnavailable and minAvailable"),
    ([REDIS, "autoscaling.enabled=true", "autoscaling.maxReplicas=1"], "below autoscaling.minReplicas"),
]


class Checks:
    def __init__(self, helm):
        self.helm, self.problems = helm, []

    def expect(self, holds, problem):
        if not holds:
            self.problems.append(problem)

    def run(self, *arguments):
        return subprocess.run([self.helm, *map(str, arguments)], capture_output=True, text=True)

    def rendered(self, name, *arguments):
        """The objects of a release called `tg`; none if helm refuses."""
        run = self.run("template", "tg", CHART, "--namespace", "realtime", *arguments)
        self.expect(run.returncode == 0, f"{name}: helm template failed: {run.stderr.strip()}")
        try:
            return [item for item in yaml.load_all(run.stdout, Strict) if item] if run.returncode == 0 else []
        except yaml.YAMLError as error:
            self.problems.append(f"{name}: {error}")
            return []

    def lint(self, name, *arguments):
        run = self.run("lint", "--strict", CHART, *arguments)
        self.expect(run.returncode == 0, f"{name}: helm lint failed: {run.stdout}{run.stderr}")

    def refusals(self):
        for settings, sentence in REFUSALS:
            name = " ".join(settings) or "no values"
            run = self.run("template", "tg", CHART, *[word for setting in settings for word in ("--set", setting)])
            self.expect(run.returncode != 0, f"{name}: should be refused")
            self.expect(sentence in run.stderr, f"{name}: refused without saying {sentence!r}: {run.stderr.strip()}")

    def valid(self, name, objects):
        for item in objects:
            if item["apiVersion"].startswith("monitoring.coreos.com/"):
                continue
            for version in KUBERNETES:
                try:
                    kubernetes_validate.validate(item, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    self.problems.append(f"{name}: {item['kind']} in Kubernetes {version}: {error.message}")

    def fits(self, name, objects):
        """What no schema sees: that the objects fit each other, and that the pod is as locked down as it can be."""
        kinds = {}
        for item in objects:
            kinds.setdefault(item["kind"], []).append(item)
        self.expect("Secret" not in kinds, f"{name}: the chart makes a Secret")
        deployment = kinds["Deployment"][0]
        template = deployment["spec"]["template"]
        pod, labels = template["spec"], template["metadata"]["labels"]
        container = pod["containers"][0]
        ports = {port["name"] for port in container["ports"]}

        def selects(selector):
            return selector.items() <= labels.items()

        self.expect(selects(deployment["spec"]["selector"]["matchLabels"]), f"{name}: the Deployment misses its pods")
        for service in kinds["Service"]:
            about = f"{name}: Service {service['metadata']['name']}"
            self.expect(selects(service["spec"]["selector"]), f"{about} misses the pods")
            for port in service["spec"]["ports"]:
                self.expect(port["targetPort"] in ports, f"{about}: the pods have no port {port['targetPort']}")
        for budget in kinds.get("PodDisruptionBudget", []):
            self.expect(selects(budget["spec"]["selector"]["matchLabels"]), f"{name}: the budget misses the pods")
        for monitor in kinds.get("ServiceMonitor", []):
            wanted = monitor["spec"]["selector"]["matchLabels"].items()
            matched = [service for service in kinds["Service"] if wanted <= service["metadata"]["labels"].items()]
            self.expect(
                [service["metadata"]["name"] for service in matched] == [f"{deployment['metadata']['name']}-internal"],
                f"{name}: the ServiceMonitor selects {len(matched)} Services, and should the internal one",
            )
        for tester in kinds.get("Pod", []):
            selected = [s for s in kinds["Service"] if s["spec"]["selector"].items() <= tester["metadata"]["labels"].items()]
            self.expect(not selected, f"{name}: a Service selects the test pod")
        scaler = kinds.get("HorizontalPodAutoscaler")
        self.expect(bool(scaler) != ("replicas" in deployment["spec"]), f"{name}: replicas and autoscaling fight")

        self.expect(pod["automountServiceAccountToken"] is False, f"{name}: the pod has a token")
        self.expect(pod["securityContext"]["runAsNonRoot"] is True, f"{name}: the pod may be root")
        self.expect(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", f"{name}: no seccomp profile")
        lock = container["securityContext"]
        self.expect(lock["readOnlyRootFilesystem"] is True, f"{name}: the root file system is writable")
        self.expect(lock["allowPrivilegeEscalation"] is False, f"{name}: privileges may grow")
        self.expect(lock["capabilities"] == {"drop": ["ALL"]}, f"{name}: capabilities are left")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            self.expect(container[probe]["httpGet"]["port"] == "internal", f"{name}: {probe} asks the public port")
        mounts, volumes = {m["name"] for m in container["volumeMounts"]}, {v["name"] for v in pod["volumes"]}
        self.expect(mounts == volumes, f"{name}: volumes {volumes}, mounts {mounts}")

    def settings(self, name, objects, tidegate):
        """The node itself accepts what it would find in the pod."""
        config = next(item for item in objects if item["kind"] == "ConfigMap")["data"]["tidegate.yaml"]
        container = next(item for item in objects if item["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"][0]
        samples = {"URL": "redis://127.0.0.1:6379/0", "USERNAME": "node", "PASSWORD": "a secret"}
        with tempfile.TemporaryDirectory() as directory:
            etc = pathlib.Path(directory)
            for path in re.findall(r"/etc/tidegate/api/(\S+)", config):
                (etc / "api").mkdir(exist_ok=True)
                (etc / "api" / path).write_text(f"the secret of {path}, long enough")
            if "/etc/tidegate/tls/" in config:
                (etc / "tls").mkdir()
                certificate(etc / "tls" / "tls.crt", etc / "tls" / "tls.key")
            if "/etc/tidegate/ticket-keys/" in config:
                (etc / "ticket-keys").mkdir()
                (etc / "ticket-keys" / "tickets.key").write_text(base64.b64encode(os.urandom(32)).decode())
            file = etc / "tidegate.yaml"
            file.write_text(config.replace("/etc/tidegate", directory))
            env = {"PATH": os.environ["PATH"]}
            for variable in container["env"]:
                env[variable["name"]] = variable.get("value") or samples.get(variable["name"].split("__")[-1], "pod")
            command = [str(tidegate), "check-config", "--config", str(file), *container["args"][2:]]
            run = subprocess.run(command, env=env, capture_output=True, text=True)
            self.expect(run.returncode == 0, f"{name}: the node refuses its settings: {run.stdout}{run.stderr}")


class Strict(yaml.SafeLoader):
    """Refuses a key that is there twice, which YAML parsers of Kubernetes do and this one would not."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{key} is there twice, {node.start_mark}")
        return super().construct_mapping(node, deep)


def certificate(cert, key):
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    subprocess.run([*command.split(), "-out", cert, "-keyout", key], check=True, capture_output=True)


def main():
    helm, tidegate = sys.argv[1], pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None
    checks = Checks(helm)
    checks.lint("defaults")
    checks.refusals()

    examples = sorted((CHART / "ci").glob("*-values.yaml"))
    for example in examples:
        checks.lint(example.name, "--values", example)
        for capabilities in ([], ["--api-versions", MONITORING]):
            objects = checks.rendered(example.name, "--values", example, *capabilities)
            if not objects:
                continue
            checks.valid(example.name, objects)
            checks.fits(example.name, objects)
            if tidegate:
                checks.settings(example.name, objects, tidegate)

    auto = ["--set", REDIS, "--set", "metrics.serviceMonitor.enabled=auto"]
    for capabilities, wanted in ([], False), (["--api-versions", MONITORING], True):
        kinds = {item["kind"] for item in checks.rendered("auto", *auto, *capabilities)}
        checks.expect(("ServiceMonitor" in kinds) == wanted, f"serviceMonitor auto with {capabilities}: {kinds}")

    # A change of settings rolls the pods, and nothing else does.
    def checksum(*settings):
        objects = checks.rendered("checksum", *[word for s in (REDIS, *settings) for word in ("--set", s)])
        return next(o for o in objects if o["kind"] == "Deployment")["spec"]["template"]["metadata"]["annotations"]

    checks.expect(checksum() != checksum("config.log.level=debug"), "a change of config does not roll the pods")
    checks.expect(checksum() == checksum("replicaCount=5"), "replicaCount rolls the pods")

    for problem in checks.problems:
        print(f"helm/tidegate: {problem}", file=sys.stderr)
    if checks.problems:
        sys.exit(1)
    checked = "its settings accepted by the node" if tidegate else "its settings not checked: there is no node"
    print(f"helm/tidegate: {len(examples)} examples on Kubernetes {', '.join(KUBERNETES)}, {len(REFUSALS)} refusals, {checked}")


main()
