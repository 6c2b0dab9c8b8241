"""Grades an Autobahn run: every case must be strictly OK, in its behaviour and in how the connection closed.

Stricter than the suite: NON-STRICT is a failure, and so is a case that was not run or a close that the suite
merely prefers otherwise.
"""

import json
import pathlib
import sys

# All cases of autobahntestsuite 25.10.1 but 12.* and 13.*.
CASES = 301

# The suite never grades these: it reports INFORMATIONAL whatever happens. Each with the close code that an
# endpoint which keeps the RFC answers.
UNGRADED = {
    "7.1.6": 1000,  # a large message, a close and a ping in one go: the close is answered
    "7.13.1": 1002,  # close code 5000: outside every range of RFC 6455, 7.4.2
    "7.13.2": 1002,  # close code 65535: likewise
}


def fault(case, result):
    """What is wrong with a case, or None."""
    behavior, closing = result["behavior"], result["behaviorClose"]
    code = result["remoteCloseCode"]
    if case in UNGRADED:
        if (behavior, closing) != ("INFORMATIONAL", "INFORMATIONAL"):
            return f"behavior {behavior}, close {closing}: this case used not to be graded"
        return None if code == UNGRADED[case] else f"closed with {code}, not {UNGRADED[case]}"
    if (behavior, closing) != ("OK", "OK"):
        return f"behavior {behavior}, close {closing}, close code {code}"
    return None


def main():
    reports = pathlib.Path(sys.argv[1])
    index = reports / "index.json"
    results = json.loads(index.read_text()).get("tidegate") if index.exists() else None
    if not results:
        sys.exit(f"no case was run: nothing answered at the URL, or the client did not finish ({reports})")
    key = lambda case: [int(part) for part in case.split(".")]
    faults = {case: fault(case, results[case]) for case in sorted(results, key=key)}
    failed = {case: what for case, what in faults.items() if what}
    for case, what in failed.items():
        report = json.loads((reports / results[case]["reportfile"]).read_text())
        print(f"{case:>8}  {what}\n{'':>8}  expects: {' '.join(report['expectation'].split())}")
    missing = CASES - len(results)
    if missing:
        print(f"{len(results)} cases were run, {CASES} were expected")
    print(f"Autobahn: {len(results) - len(failed)} passed, {len(failed)} failed")
    if failed:
        print(f"details: {reports / 'index.html'}")
    sys.exit(1 if failed or missing else 0)


if __name__ == "__main__":
    main()
