"""Write ``conda/environment*.yml`` from ``pyproject.toml``.

    python -m tools.conda.environments

A test compares the files with what this program would write.
"""

from __future__ import annotations

from tools.conda.names import ROOT, conda_spec, conda_specs, extra, project

FOLDER = ROOT / "conda"
HEAD = "# Written by `python -m tools.conda.environments` from pyproject.toml.\n"


def _environment(about: str, name: str, specs: list[str]) -> str:
    lines = [HEAD + about + f"name: {name}", "channels:", "  - conda-forge", "  - nodefaults"]
    return "\n".join([*lines, "dependencies:", *(f"  - {spec}" for spec in specs)]) + "\n"


def environments() -> dict[str, str]:
    """Return the text of each file, by its name."""
    about = project()
    python = f"python {about['project']['requires-python']}"
    needed = conda_specs(about["project"]["dependencies"])
    builder = conda_specs(about["build-system"]["requires"])
    user = [python, "pip", *sorted({*builder, *needed})]
    gpu = f"{conda_spec(extra('torch')[0])} cuda*"
    developer = conda_specs([*extra("experiments"), *extra("dev")])
    return {
        "environment.yml": _environment(
            "# What daskhpo needs. In a clone, afterwards:\n"
            "#   pip install --no-deps --no-build-isolation .\n",
            "daskhpo",
            user,
        ),
        "environment-gpu.yml": _environment(
            "# The same with a CUDA build of PyTorch. A login node has no GPU: name the CUDA\n"
            "# version of the compute nodes, or the solver finds no such build and says so:\n"
            "#   CONDA_OVERRIDE_CUDA=12.4 conda env create --file conda/environment-gpu.yml\n",
            "daskhpo-gpu",
            [*user, gpu],
        ),
        "environment-dev.yml": _environment(
            "# What the tests, the experiments and the documentation need, too.\n",
            "daskhpo-dev",
            [python, "pip", *sorted({*builder, *needed, *developer})],
        ),
    }


def main() -> None:
    """Write the files."""
    for name, text in environments().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    main()
