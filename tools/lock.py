"""Lock the dependencies of pyproject.toml, with hashes, into the three requirements files."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import environment


def main() -> int:
    """Rewrite requirements-app.txt, requirements.txt and requirements-dev.txt."""
    env = environment.index_environment()
    uv = environment.tool_venv("uv", environment.UV_LOCK, env) / "uv"
    compile_lock = (
        *(uv, "pip", "compile", "--quiet", "--upgrade", "--universal", "--python-version", "3.11"),
        *("--generate-hashes", "--no-header", "--no-annotate", "pyproject.toml"),
    )
    app, deploy, dev = (environment.LOCKS[level] for level in environment.LEVELS)
    environment.run(*compile_lock, "-o", app, env=env)
    environment.run(*compile_lock, "--extra", "deploy", "-c", app, "-o", deploy, env=env)
    environment.run(
        *compile_lock, "--extra", "deploy", "--extra", "dev", "-c", deploy, "-o", dev, env=env
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
