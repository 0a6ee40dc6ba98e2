"""What `bentoml build` packs is enough to serve."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SERVE = """
import json, sys
from serving.service import MnistGan
card = MnistGan().generator.card
ours = [module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] in ("models", "serving")]
print(json.dumps({"name": card.name, "files": ours}))
"""


def test_a_bento_of_an_empty_store_serves_the_generator_that_ships_from_its_own_files(tmp_path):
    environment = os.environ | {"BENTOML_HOME": str(tmp_path)}
    environment.pop("MNIST_GAN_MODEL", None)
    bentoml = Path(sys.executable).parent / "bentoml"
    built = subprocess.run(
        [bentoml, "build", "--output", "tag"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    (source,) = tmp_path.glob("bentos/mnist-gan/*/src")
    served = subprocess.run([sys.executable, "-c", SERVE], cwd=source, env=environment, capture_output=True, text=True)
    assert served.returncode == 0, served.stderr
    told = json.loads(served.stdout.splitlines()[-1])
    assert told["name"] == "fast-mnist"
    assert all(Path(file).is_relative_to(source) for file in told["files"])
    packed = {str(file.relative_to(source)) for file in source.rglob("*") if file.is_file()}
    assert not [name for name in packed if name.startswith(("training", "tests")) or name.endswith(".safetensors")]
