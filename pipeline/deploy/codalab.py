"""Write a bundle for CodaLab, which the organiser of CheXpert runs as
`python src/predict.py valid_image_paths.csv predictions.csv`.

    python -m pipeline.deploy.codalab chexpert

reads   models/<comp>/ensemble.json, scores.csv, quantiles.json and the weights that they name;
        data/<comp>/images.csv
writes  submissions/<comp>/codalab/src/         predict.py, code and networks: all that is uploaded
                                  /Dockerfile   an image to run it in
                                  /README.md    the `cl` commands to type
                                  /contents.json   the sha256 of every file, which the rehearsal
                                                checks

`make codalab-rehearse` runs the bundle first: alone, in an empty folder and a fresh environment,
without the network.
"""

import argparse
from importlib.metadata import version

from pipeline.core.artifacts.files import write_text
from pipeline.core.artifacts.paths import submissions_folder
from pipeline.core.config.competition import load_competition
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError
from pipeline.deploy.environments import CODALAB_IMAGE, CODALAB_INSTALLS
from pipeline.deploy.package import megabytes, record_contents, write_package

# The program that the organiser calls.
PREDICT = '''"""One row for each study of the images in a list.

    python src/predict.py valid_image_paths.csv predictions.csv
"""
import os
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True  # this folder may be read-only
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("NUMBA_CACHE_DIR", tempfile.gettempdir())

from pipeline.deploy.away.codalab import predict_submission  # noqa: E402  # after settings

if __name__ == "__main__":
    predict_submission(Path(__file__).parent)
'''

DOCKERFILE = """FROM {image}
RUN pip install --no-cache-dir {packages}
"""

README = """# {title} on CodaLab

`src` predicts on its own: no network, nothing written beside the predictions, {size:.0f} MB of
weights and at most 2 GB of memory besides, a GPU where there is one.

Try it at home first: `make codalab-rehearse COMP={competition}`.

    docker build -t YOU/{competition} . && docker push YOU/{competition}
    cl upload src
    cl run valid_image_paths.csv:valid_image_paths.csv CheXpert-v1.0:valid src:src \\
       "python src/predict.py valid_image_paths.csv predictions.csv" -n run-predictions \\
       --request-docker-image YOU/{competition} --request-gpus 1 --request-memory 16g
    cl make run-predictions/predictions.csv -n predictions-NAME
    cl edit predictions-NAME --tags chexpert-submit
    cl edit predictions-NAME --description "NAME (ensemble) (Institution) link"

NAME is one word. The description's last parenthesis is read as the institution. Five submissions a
day and twenty in all, failed ones among them. `valid_image_paths.csv` and `CheXpert-v1.0` are the
organiser's bundles on the worksheet of the tutorial; for the score they are replaced by the hidden
ones and the whole chain runs again.
"""


def main(arguments: argparse.Namespace) -> None:
    competition = load_competition(arguments.competition)
    if competition.task.unit != "study":
        raise UserError(
            f"pipeline/competitions/{competition.name}.py scores images; a CodaLab bundle writes "
            "studies"
        )

    # All that is uploaded. The code lies in folders, which CodaLab keeps; Kaggle's client does not.
    folder = submissions_folder(competition.name) / "codalab"
    package = write_package(competition, folder / "src", zipped=False)
    write_text(folder / "src" / "predict.py", PREDICT)

    # How to run it: the versions of this machine, so that it computes there what it computes here.
    # torch is the image's own.
    packages = " ".join(f"{name}=={version(name)}" for name in CODALAB_INSTALLS)
    write_text(folder / "Dockerfile", DOCKERFILE.format(image=arguments.image, packages=packages))
    size = megabytes((folder / "src").glob("*.safetensors"))
    readme = README.format(title=competition.task.title, competition=competition.name, size=size)
    write_text(folder / "README.md", readme)
    record_contents(folder, ("src", "Dockerfile", "README.md"))
    print(
        f"{folder}: {len(package['networks'])} networks, {size:.0f} MB; "
        f"{folder / 'README.md'} says what to type"
    )


def parser() -> argparse.ArgumentParser:
    """The program's options."""
    options = stage_parser(__doc__, targets=False)
    by_study = "chexpert, or another that is scored by study"
    options.add_argument("competition", metavar="COMPETITION", help=by_study)
    start = f"the Docker image to start from (default {CODALAB_IMAGE})"
    options.add_argument("--image", default=CODALAB_IMAGE, help=start)
    return options


if __name__ == "__main__":
    run_stage(main, parser())
