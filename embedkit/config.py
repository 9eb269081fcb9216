"""Settings: defaults, then ``embedkit.toml``, then ``EMBEDKIT_…`` in the environment, then arguments.

A nested setting in the environment joins its names by two underscores:
``EMBEDKIT_INGEST__BATCH_SIZE=64``. A variable that is empty counts as not set.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from embedkit.errors import ConfigError
from embedkit.types import Metric
from embedkit.urls import redact

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "BackendSettings",
    "CollectionSettings",
    "FetchSettings",
    "IngestSettings",
    "Settings",
    "load_settings",
]

DEFAULT_FILE = "embedkit.toml"
DEFAULT_VIEWS = {"image": "effnet-lite0", "title": "minilm"}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BackendSettings(_Section):
    """How to reach the backend, beyond its URL. Secrets are better kept in the environment."""

    timeout: float = Field(30.0, gt=0, description="seconds to wait for an answer")
    user: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None
    tls: bool = False
    tls_ca: str | None = Field(None, description="PEM file of the authority that signed the server")
    tls_cert: str | None = Field(None, description="PEM file of the client certificate (mutual TLS)")
    tls_key: str | None = Field(None, description="PEM file of the client key (mutual TLS)")
    tls_server_name: str | None = None
    partitions: int = Field(1, ge=1, le=1_024, description="of a new collection, for Vearch")
    replicas: int = Field(1, ge=1, le=16, description="of each partition, for Vearch")


class FetchSettings(_Section):
    """Limits on remote pictures."""

    concurrency: int = Field(64, ge=1, le=1024, description="pictures on their way at once")
    per_host: int = Field(16, ge=1, le=1024, description="of these, from one host")
    timeout: float = Field(30.0, gt=0, description="seconds for one picture")
    retries: int = Field(4, ge=0, le=20)
    max_bytes: int = Field(50_000_000, ge=1_000, description="largest file that is read")


class IngestSettings(_Section):
    """How hard an ingest works."""

    batch_size: int = Field(32, ge=1, le=1024, description="pictures encoded and committed together")
    decode_threads: int = Field(0, ge=0, le=256, description="0: as many as cores")
    max_attributes_bytes: int = Field(60_000, ge=100, le=65_000, description="largest JSON of a product")


class CollectionSettings(_Section):
    """What one collection does differently: ``[collections.shoes]``."""

    views: dict[str, str] | None = Field(None, description="view = encoder")
    metric: Metric | None = None
    index: str | None = None
    map: dict[str, str] | None = Field(None, description="field = column of the catalog")
    keywords: list[str] | None = Field(None, description="attributes whose words are searched beside the title's")


class _TomlFile(TomlConfigSettingsSource):
    """A TOML file, also one that begins with the mark by which editors of Windows tell UTF-8."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        return tomllib.loads(file_path.read_text(encoding="utf-8-sig"))


class Settings(BaseSettings):
    """Every setting. `home` holds what embedkit writes; `backend` and `store` default into it."""

    model_config = SettingsConfigDict(
        env_prefix="EMBEDKIT_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        toml_file=DEFAULT_FILE,
    )

    home: Path = Path(".embedkit")
    backend: str = Field("", description="faiss:///dir, milvus:///file.db, milvus://host:19530, vearch://host:9001/db")
    store: str = Field("", description="sqlite:///file.db, postgresql://user@host/db")
    runtime: str = Field("auto", pattern="^(auto|onnx|openvino|torch)$")
    cache_dir: Path | None = None
    views: dict[str, str] = Field(default_factory=lambda: dict(DEFAULT_VIEWS), min_length=1)
    metric: Metric | None = Field(None, description="cosine unless set, of binary codes hamming")
    index: str = "flat"
    map: dict[str, str] = Field(default_factory=dict)
    keywords: list[str] | None = Field(None, description="attributes whose words are searched beside the title's")
    backend_options: BackendSettings = BackendSettings()
    fetch: FetchSettings = FetchSettings()
    ingest: IngestSettings = IngestSettings()
    collections: dict[str, CollectionSettings] = Field(default_factory=dict)

    def model_post_init(self, context: Any, /) -> None:
        del context
        home = self.home.as_posix()
        if not self.backend:
            object.__setattr__(self, "backend", f"milvus:///{home}/milvus.db")
        if not self.store:
            object.__setattr__(self, "store", f"sqlite:///{home}/embedkit.db")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _TomlFile(settings_cls)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, redact(value) if name in ("backend", "store") else value

    def for_collection(self, name: str) -> CollectionSettings:
        """The settings of one collection, with the general ones where it says nothing."""
        own = self.collections.get(name, CollectionSettings())
        return CollectionSettings(
            views=own.views or self.views,
            metric=own.metric or self.metric,
            index=own.index or self.index,
            map={**self.map, **(own.map or {})},
            keywords=self.keywords if own.keywords is None else own.keywords,
        )

    def asked_index(self, name: str) -> str | None:
        """The index that a setting asks for; None if none says anything."""
        own = self.collections.get(name, CollectionSettings()).index
        return own or (self.index if "index" in self.model_fields_set else None)

    def as_dict(self, *, redacted: bool = True) -> dict[str, object]:
        """Plain values. Secrets show as ``**********``, and URLs lose their passwords, unless `redacted` is false."""
        values: dict[str, object] = self.model_dump(mode="json")
        if redacted:
            values["backend"], values["store"] = redact(self.backend), redact(self.store)
        else:
            options = self.backend_options
            values["backend_options"] = {
                **options.model_dump(mode="json"),
                "password": options.password.get_secret_value() if options.password else None,
                "token": options.token.get_secret_value() if options.token else None,
            }
        return values


def load_settings(
    file: str | Path | None = None, *, backend: str | None = None, home: str | Path | None = None
) -> Settings:
    """Read the settings. Without `file`, ``embedkit.toml`` of the working directory is read if it is there.

    Raises ConfigError naming the file and the setting.
    """
    path = Path(file) if file is not None else Path(DEFAULT_FILE)
    if file is not None and not path.is_file():
        raise ConfigError(f"There is no config file {str(path)!r}; write one with: embedkit init --config {path}")
    _check_variables()
    given: dict[str, Any] = {}
    if backend is not None:
        given["backend"] = backend
    if home is not None:
        given["home"] = Path(home)
    reader = type("Settings", (Settings,), {"model_config": {**Settings.model_config, "toml_file": path}})
    try:
        settings: Settings = reader(**given)
    except ValidationError as error:
        raise ConfigError(_explain(error, path)) from None
    except SettingsError as error:  # of a variable that holds a whole section
        name = f"EMBEDKIT_{str(error).partition(chr(34))[2].partition(chr(34))[0].upper()}"
        raise ConfigError(
            f"The environment variable {name} is no JSON object; write one, or set {name}__SETTING instead"
        ) from None
    except (ValueError, OSError) as error:
        raise ConfigError(f"The config file {str(path)!r} cannot be read: {error}") from error
    return settings


def _check_variables() -> None:
    """Raise ConfigError for a variable that looks like a misspelt setting; others may belong to somebody else."""
    known = [f"EMBEDKIT_{name.upper()}" for name in Settings.model_fields]
    for variable in os.environ:
        name = variable.upper().partition("__")[0]
        if name.startswith("EMBEDKIT_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
            if near:
                raise ConfigError(f"The environment variable {variable} is no setting; did you mean {near[0]}?")


def _explain(error: ValidationError, path: Path) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    variable = "EMBEDKIT_" + where.replace(".", "__").upper()
    place = f"the environment variable {variable}" if variable in os.environ else f"{str(path)!r}"
    if first["type"] == "extra_forbidden":
        known = _known_names(first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(known))}"
        return f"There is no setting {where!r} (in {place}); {hint}"
    return f"The setting {where!r} (in {place}) is not valid: {first['msg']}"


_SECTIONS: dict[str, type[BaseModel]] = {
    "backend_options": BackendSettings,
    "fetch": FetchSettings,
    "ingest": IngestSettings,
    "collections": CollectionSettings,
}


def _known_names(steps: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for step in steps:
        sub = _SECTIONS.get(str(step))
        if sub is not None:
            model = sub
    return list(model.model_fields)
