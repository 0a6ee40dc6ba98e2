"""The completion of commands in bash."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "tools/completion.bash"
COMPLETE = r"""
source "$1"
while IFS= read -r line; do
    IFS=' ' read -ra COMP_WORDS <<< "$line."
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMP_WORDS[COMP_CWORD]=${COMP_WORDS[COMP_CWORD]%.}
    [[ $(complete -p "${COMP_WORDS[0]}") =~ '-F '([a-z_]+) ]] && "${BASH_REMATCH[1]}" "${COMP_WORDS[0]}"
    IFS=,; echo "${#COMPREPLY[@]}:${COMPREPLY[*]}"
done
"""
EXPECTED = {
    "train --pre": "2:--preset,--precision",
    "train --preset ": "4:mlp,dcgan,fast,r3gan",
    "train --resume runs/a --min": "1:--minutes",
    "export-onnx runs/a --precision i": "1:int8",
    "evaluate --fit": "1:--fit-classifier",
    "sample a.onnx --format p": "1:parquet",
    "export-site a.onnx --onnx": "1:--onnxruntime-web",
    "sample a.o": "0:",  # bash then completes the name of a file
}


def test_bash_completes_options_and_their_values():
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ended = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", SCRIPT],
        input="\n".join(EXPECTED) + "\n",
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stderr == ""
    assert dict(zip(EXPECTED, ended.stdout.splitlines(), strict=True)) == EXPECTED
