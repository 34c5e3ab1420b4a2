#!/bin/sh
# Labels a small embedded corpus on a local Ray cluster of its own, the way any job is submitted, and draws its report.
set -eu
output=${1:-corpora/demo}

status() { ray status >/dev/null 2>&1; }
if ! status; then
  ray start --head --disable-usage-stats --dashboard-host 127.0.0.1 >/dev/null
  trap 'ray stop >/dev/null 2>&1' EXIT
fi

ray job submit -- jobs/pseudolabel.yaml "source=procedural:apartments?scenes=24" "output=$output"
liftgs inspect "$output" --output "$output/report.html"
echo
echo "corpus: $(cd "$output" && pwd)"
echo "report: $(cd "$output" && pwd)/report.html   (open it in a browser)"
