"""What is shipped: a wheel and a zip that bring nothing to site-packages but `gristmill`, with the recipes and models inside."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The wheel, and the zip for --py-files, made as scripts/package makes them but elsewhere."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)], check=True, capture_output=True)
    wheel = next(out.glob("*.whl"))
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(out / "zip"), str(wheel)], check=True)
    subprocess.run([sys.executable, "-m", "zipfile", "-c", str(out / "gristmill.zip"), "gristmill"], cwd=out / "zip", check=True)
    return out


def test_the_wheel_holds_gristmill_alone(dist):
    names = zipfile.ZipFile(next(dist.glob("*.whl"))).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"gristmill"}
    assert {"gristmill/udfs/registry.py", "gristmill/udfs/characters.npz", "gristmill/jobs/clean.py", "gristmill/conf/demo.yaml",
            "gristmill/conf/models/manifest.yaml", "gristmill/jobs/report.html"} <= set(names)


def clean_python(folder, code):
    """Run code where only `folder` can bring gristmill: -S leaves out the editable install, the dependencies come by path."""
    import numpy

    site = Path(numpy.__file__).parent.parent
    start = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(site)!r}]; "
    return subprocess.run([sys.executable, "-S", "-c", start + code], capture_output=True, text=True, cwd=folder.parent)


@pytest.mark.parametrize("place", ["zip", "gristmill.zip"])
def test_operators_recipes_and_models_work_from_there(dist, place):
    code = (                                    # `char_count` needs one small kernel, the whole recipe a minute of compiling
        "import pyarrow as pa; from gristmill.udfs import registry, assets, fasttext_model; from gristmill.udfs.texts import Texts; "
        "assert 'dist' in assets.__file__, assets.__file__; ops = registry.operators(); "
        "print(int(registry.apply(ops['char_count'], Texts(pa.array(['一二'])), {})['char_count'][0])); "
        "model = ops['language'].parameters().model; print(len(assets.check(model)), assets.load(model, fasttext_model.load) is not None); "
        "from gristmill.jobs import recipe, stage; steps = recipe.steps(recipe.load(str(assets.resolve('conf/demo.yaml')))); "
        "print(len(steps) > 5 and len(stage.compile_stage(steps[:1]).steps) == 1)"
    )
    done = clean_python(dist / place, code)
    assert done.stdout.split() == ["2", "64", "True", "True"], done.stderr[-2000:]


@pytest.mark.parametrize("package", ["jobs", "udfs", "training"])
def test_a_second_import_name_is_refused(package):
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, '.'); import {package}"], cwd=ROOT, capture_output=True, text=True)
    assert f"import gristmill.{package}, not {package}" in done.stderr
