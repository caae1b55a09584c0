"""`python -m peerd` is the command `peerd`."""

from __future__ import annotations

from peerd.cli.main import main

if __name__ == "__main__":
    main()
