"""Reads deploy/compose.yaml as an engine would: by the format's schema, then what the schema cannot see.

Does not start anything: that takes a container engine.
"""

import json
import pathlib
import sys
import sysconfig

import jsonschema
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def schema():
    packages = pathlib.Path(sysconfig.get_path("purelib"))
    return json.loads((packages / "compose" / "config" / "compose_spec.json").read_text())


def problems(stack):
    # `name` is newer than this copy of the schema.
    known = {key: value for key, value in stack.items() if key != "name"}
    for error in jsonschema.Draft7Validator(schema()).iter_errors(known):
        yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"

    services, volumes = stack["services"], stack.get("volumes", {})
    taken = {}
    for name, service in services.items():
        for port in service.get("ports", []):
            address, host, _ = port.rsplit(":", 2) if port.count(":") == 2 else ("", port, "")
            if address != "127.0.0.1":
                yield f"{name}: port {port} is published beyond loopback"
            if host in taken:
                yield f"{name}: port {host} is {taken[host]}'s already"
            taken[host] = name
        for volume in service.get("volumes", []):
            source, _, mode = volume.partition(":")
            if source.startswith("."):
                if not (DEPLOY / source).exists():
                    yield f"{name}: {source} does not exist"
                if not mode.endswith(":ro"):
                    yield f"{name}: {source} is mounted to be written"
            elif source not in volumes:
                yield f"{name}: there is no volume {source}"
        for other, condition in service.get("depends_on", {}).items():
            if other not in services:
                yield f"{name}: depends on {other}, which does not exist"
            elif condition["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                yield f"{name}: waits for {other} to be healthy, which has no healthcheck"
        if "healthcheck" not in service:
            yield f"{name}: no healthcheck"
        if "build" in service:
            context = (DEPLOY / service["build"]["context"]).resolve()
            if not (context / service["build"]["dockerfile"]).is_file():
                yield f"{name}: no {service['build']['dockerfile']} in {context}"
        elif not service["image"].startswith("tidegate:") and ":" not in service["image"]:
            yield f"{name}: the image has no version"

    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {target for job in scraped for static in job["static_configs"] for target in static["targets"]}
    nodes = {f"{name}:9000" for name, service in services.items() if service["image"].startswith("tidegate:")}
    if targets != nodes:
        yield f"Prometheus scrapes {sorted(targets)}, but the nodes are {sorted(nodes)}"

    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    if source["url"] != "http://prometheus:9090" or "prometheus" not in services:
        yield f"Grafana looks for Prometheus at {source['url']}"
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/tidegate.yaml").read_text())["providers"][0]
    mounts = [volume.split(":")[:2] for volume in services["grafana"]["volumes"]]
    if ["./grafana/dashboards", provider["options"]["path"]] not in mounts:
        yield f"no dashboards are mounted at {provider['options']['path']}"


def main():
    stack = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    found = list(problems(stack))
    for problem in found:
        print(f"compose.yaml: {problem}", file=sys.stderr)
    if found:
        sys.exit(1)
    print(f"compose.yaml: {len(stack['services'])} services fit together")


main()
