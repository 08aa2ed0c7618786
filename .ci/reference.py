"""Write the pages of docs/reference/ that come from the code, or, with `--check`, fail if one is stale."""

import sys
from pathlib import Path

from reference_pages import commands, configuration, grpc_api, http_api, ocsf, selectors

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
PAGES = {
    "command-line.md": commands.page,
    "configuration.md": configuration.page,
    "grpc.md": grpc_api.page,
    "http.md": http_api.page,
    "ocsf.md": ocsf.page,
    "selectors.md": selectors.page,
}


def main() -> None:
    made = {FOLDER / name: page() for name, page in PAGES.items()}
    stale = [path for path, text in made.items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" not in sys.argv:
        for path in stale:
            path.write_text(made[path], "utf-8")
    elif stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        raise SystemExit(f"not what the code says: {names}: run `make reference`")
    else:
        print("docs/reference is up to date")


if __name__ == "__main__":
    main()
