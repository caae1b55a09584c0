"""`python -m tools.bench NAME`: each figure as a ratio, beside what it is compared with."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys

import tools.bench


def names() -> list[str]:
    """Modules here that are benchmarks: those with a `main`."""
    found = [module.name for module in pkgutil.iter_modules(tools.bench.__path__)]
    return sorted(name for name in found if not name.startswith("_") and "_" not in name)


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in names():
        sys.stderr.write(f"usage: python -m tools.bench {{{','.join(names())}}} [options]\n")
        return 2
    module = importlib.import_module(f"tools.bench.{sys.argv[1]}")
    result: int = module.main(sys.argv[2:])
    return result


if __name__ == "__main__":
    sys.exit(main())
