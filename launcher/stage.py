"""A stage: commands that run together in one job, and what they wait for and need."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from golf.config import ResourcesConfig


@dataclass(frozen=True, kw_only=True)
class Command:
    """One process of a stage; `golf stage` runs it."""

    name: str
    argv: tuple[str, ...]
    done: str | None = None
    """Result file, relative to the stage's folder; without one the command always runs."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One job of an experiment."""

    key: str
    """`prepare`, or `<seed>/train`, `<seed>/eval`, of a sweep `<variant>/<seed>/train`; also names
    it to people."""
    kind: str
    seed: int | None
    commands: tuple[Command, ...]
    after: tuple[str, ...] = ()
    """Keys of the stages that must be done first."""
    resources: ResourcesConfig
    env: dict[str, str] = field(default_factory=dict)
    image_id: str = ""
    """The container image that it must find itself in; empty where any will do."""

    @property
    def variant(self) -> str:
        """Key of the variant whose stage it is; empty where nothing is swept, or all need it."""
        parts = self.key.split("/")
        return parts[0] if len(parts) == 3 else ""

    def spec(self) -> dict[str, Any]:
        """`stage.json`, from which `golf stage` runs."""
        return {
            "stage": self.kind,
            "seed": self.seed,
            "env": self.env,
            "image_id": self.image_id,
            "commands": [dataclasses.asdict(command) for command in self.commands],
        }

    def registration(self) -> dict[str, Any]:
        """What `experiment.json` keeps of it beside its `stage.json`."""
        return {
            "key": self.key,
            "after": list(self.after),
            "resources": dataclasses.asdict(self.resources),
        }

    @classmethod
    def read_back(cls, registration: dict[str, Any], spec: dict[str, Any]) -> Stage:
        return cls(
            key=registration["key"],
            kind=spec["stage"],
            seed=spec["seed"],
            commands=tuple(
                Command(name=c["name"], argv=tuple(c["argv"]), done=c["done"])
                for c in spec["commands"]
            ),
            after=tuple(registration["after"]),
            resources=ResourcesConfig(**registration["resources"]),
            env=dict(spec["env"]),
            image_id=spec.get("image_id", ""),
        )
