#!/bin/sh
# Labels a small embedded corpus through `ray job submit`, on a Ray cluster of its own, and draws its report.
#
#   scripts/demo.sh [OUTPUT]      run inside the virtual environment; `make demo` does that
set -eu
output=${1:-corpora/demo}

# A cluster of its own, in another folder, on other ports, with a token that only this script knows: it neither meets
# nor disturbs one that runs here already.
RAY_TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/liftgs-demo-XXXXXX")
export RAY_TMPDIR
RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE RAY_AUTH_TOKEN
free_port() { python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free_port)
ray start --head --block --disable-usage-stats --port=0 --ray-client-server-port="$(free_port)" \
  --dashboard-host=127.0.0.1 --dashboard-port="$port" >"$RAY_TMPDIR/start.log" 2>&1 &
ray=$!
trap 'kill $ray 2>/dev/null || :; wait $ray 2>/dev/null || :; rm -rf "$RAY_TMPDIR"' EXIT  # dash obeys -e in a trap too
trap 'exit 130' INT TERM

export RAY_ADDRESS="http://127.0.0.1:$port"
tries=0
until ray job submit -- true >/dev/null 2>&1; do  # the dashboard answers before it can run jobs
  tries=$((tries + 1))
  if [ $tries -gt 60 ] || ! kill -0 $ray 2>/dev/null; then
    echo "Ray did not start:" >&2
    tail -20 "$RAY_TMPDIR/start.log" >&2
    exit 1
  fi
  sleep 1
done
echo "Ray runs; its dashboard is at $RAY_ADDRESS while this lasts"

ray job submit -- jobs/pseudolabel.yaml "source=procedural:apartments?scenes=24" "output=$output"
liftgs inspect "$output" --output "$output/report.html"
echo
echo "corpus: $(cd "$output" && pwd)"
echo "report: $(cd "$output" && pwd)/report.html   (open it in a browser)"
