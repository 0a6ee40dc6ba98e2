#!/usr/bin/env bash
# Sends a request to each kind of route of a running service (make serve) with curl, and saves the responses.
#
#     examples/curl.sh [URL [FOLDER]]
set -euo pipefail
url=${1:-http://localhost:3000} folder=${2:-.}

post() { # ROUTE BODY FILE
  curl --fail-with-body --silent --show-error -X POST "$url$1" -H 'content-type: application/json' -d "$2" -o "$folder/$3"
  echo "$folder/$3"
}

post /generate    '{"n": 80, "seed": 1, "labels": "0123456789", "columns": 10}' grid.png
post /write       '{"text": "31415926535", "seed": 7}' writing.png
post /interpolate '{"from": {"seed": 1, "label": "3"}, "to": {"seed": 2, "label": "8"}, "format": "gif", "scale": 4}' interpolation.gif
post /dataset     '{"n": 1000, "seed": 7}' digits.npz
curl --fail-with-body --silent --show-error "$url/card" -o "$folder/card.json"
echo "$folder/card.json"
