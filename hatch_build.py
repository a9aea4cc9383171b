"""The packages of the labs, wherever there is an `experiments/<lab>/lab.toml`: a new lab needs no entry here."""

import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Labs(BuildHookInterface):
    """An editable install has the labs' folders on its path, a wheel their packages: `import outbox` either way."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        labs = sorted(path.parent for path in Path(self.root).glob("experiments/*/lab.toml"))
        if version == "editable":
            self.build_config.target_config["dev-mode-dirs"] = [".", *(str(lab.relative_to(self.root)) for lab in labs)]
        else:
            build_data["force_include"].update({str(lab / _package(lab)): _package(lab) for lab in labs})


def _package(lab: Path) -> str:
    return str(tomllib.loads((lab / "lab.toml").read_text(encoding="utf-8"))["package"])
