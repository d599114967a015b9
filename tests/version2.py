"""A second version of a built model, for tests of the procedures: the same engines under another name, with another digest."""

import shutil
from pathlib import Path

from serving.manifest import Manifest, engine_name
from serving.settings import CHECKOUT

VERSION = "2"
BUILT = CHECKOUT / "model_repository"


def beside(folder, model="litemedsam", source=BUILT):
    """A model repository in `folder` with everything of `source`, and `model@2`. Artefacts are linked, not copied."""
    repository = Path(folder) / "repository"
    repository.mkdir()
    for path in source.iterdir():
        if path.name != f"{model}@{VERSION}.json" and not path.name.startswith("."):
            (repository / path.name).symlink_to(path)
    made = Manifest.model_validate_json((source / f"{model}.json").read_text())
    name = f"{model}@{VERSION}"
    engines = {part: tuple(_copied(repository, source, each, name, part) for each in its) for part, its in made.engines.items()}
    made.model_copy(update={"model": name, "digest": f"{made.digest[:-1]}x", "engines": engines}).write(repository)
    return repository


def _copied(repository, source, record, name, part):
    """The engine's folder again, its configurations under the new name, its artefacts linked."""
    own = engine_name(name, part)
    target = repository / own
    if not target.exists():
        shutil.copytree(source / record.name, target, copy_function=_link)
        for path in target.rglob("*.pbtxt"):
            text = path.read_text()
            path.unlink()
            path.write_text(text.replace(f'name: "{record.name}"', f'name: "{own}"', 1))
    return record.model_copy(update={"name": own})


def _link(source, target):
    Path(target).symlink_to(Path(source).resolve())
