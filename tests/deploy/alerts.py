"""Holds deploy/prometheus/alerts.yml to its own rules: each alert is tested both ways, and says what is wrong.

Whether the tests pass is promtool's to say.
"""

import pathlib
import sys

import yaml

PROMETHEUS = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "prometheus"


def problems(rules, tests):
    cases = [case for test in tests for case in test["alert_rule_test"]]
    for rule in rules:
        name = rule["alert"]
        mine = [case for case in cases if case["alertname"] == name]
        if not any(case.get("exp_alerts") for case in mine):
            yield f"{name}: no test in which it fires"
        if not any(not case.get("exp_alerts") for case in mine):
            yield f"{name}: no test in which it keeps quiet"
        if rule["labels"].get("severity") not in ("critical", "warning"):
            yield f"{name}: severity is neither critical nor warning"
        for field in ("summary", "description"):
            if not rule["annotations"].get(field):
                yield f"{name}: no {field}"
    for name in {case["alertname"] for case in cases} - {rule["alert"] for rule in rules}:
        yield f"{name}: tested, but there is no such alert"


def main():
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    rules = [rule for group in rules for rule in group["rules"]]
    tests = yaml.safe_load((PROMETHEUS / "alerts.test.yml").read_text())["tests"]
    found = list(problems(rules, tests))
    for problem in found:
        print(f"alerts.yml: {problem}", file=sys.stderr)
    if found:
        sys.exit(1)
    print(f"alerts.yml: {len(rules)} alerts, each tested both ways")


main()
