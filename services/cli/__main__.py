"""`python -m services.cli`."""

import gc

gc.disable()

from services.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
