"""Holds the Grafana dashboard, and what the alerts ask, against what nodes really export.

    dashboard.py                                        reads the dashboard: units, texts, layout, variables
    dashboard.py --node INTERNAL,PUBLIC [--node ...]    besides, starts a Prometheus that scrapes these nodes, puts a
                                                        little load on them, and wants numbers for every expression

INTERNAL is a node's internal address, PUBLIC the one for clients; both host:port. The nodes ask a backend for `rpc`
(`proxy.rpc`). Needs `prometheus` on the PATH.
"""

import argparse
import json
import pathlib
import re
import sys

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "tidegate.json"
WIDTH = 24


def problems(dashboard):
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    builtin = {"__rate_interval", "__interval", "__range"}
    ids, titles, covered = set(), set(), {}
    for panel in dashboard["panels"]:
        title = panel["title"]
        if panel["id"] in ids:
            yield f"{title}: id {panel['id']} is used twice"
        ids.add(panel["id"])

        place = panel["gridPos"]
        if place["x"] + place["w"] > WIDTH:
            yield f"{title}: wider than the dashboard"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = covered.setdefault((x, y), panel)
                if other is not panel:
                    yield f"{title}: lies over {other['title']} at {x}, {y}"

        if panel["type"] == "row":
            continue
        if title in titles:
            yield f"{title}: two panels have this title"
        titles.add(title)
        if not panel.get("description"):
            yield f"{title}: no description"
        if not panel["fieldConfig"]["defaults"].get("unit"):
            yield f"{title}: no unit"
        if not panel["targets"]:
            yield f"{title}: asks nothing"
        for target in panel["targets"]:
            if target["datasource"]["uid"] != "${datasource}":
                yield f"{title}: its data source is not the variable"
            if "$node" not in target["expr"]:
                yield f"{title}: takes no notice of the chosen nodes"
            for name in re.findall(r"\$\{?(\w+)", target["expr"]):
                if name not in variables | builtin:
                    yield f"{title}: ${name} is no variable"


def expressions(dashboard):
    """(where it is from, the expression) of every panel, as Grafana would send it."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expr = target["expr"].replace("$__rate_interval", "15s").replace("$node", ".+")
            yield f"{panel['title']} ({target['refId']})", expr
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
            yield f"variable {variable['name']}", f"count by ({label}) ({metric})"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--node", action="append", default=[], metavar="INTERNAL,PUBLIC")
    arguments.add_argument("--within", type=float, default=120, metavar="SECONDS", help="until every expression has numbers")
    arguments = arguments.parse_args()

    dashboard = json.loads(DASHBOARD.read_text())
    found = list(problems(dashboard))
    asked = list(expressions(dashboard))
    if arguments.node and not found:
        import observed

        nodes = [node.split(",") for node in arguments.node]
        found = observed.problems(nodes, asked, DEPLOY / "prometheus" / "alerts.yml", arguments.within)
    for problem in found:
        print(f"{DASHBOARD.name}: {problem}", file=sys.stderr)
    if found:
        sys.exit(1)
    print(f"{DASHBOARD.name}: {len(asked)} expressions{', each with numbers' if arguments.node else ''}")


main()
