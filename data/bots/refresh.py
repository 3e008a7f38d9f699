"""Turns crawler-user-agents.json into the list that silktail compiles in: group, tab, regex."""

import json
import sys

TOOLS = ("curl", "[ww]get", "wget", "aria2", "httpie")

with open(sys.argv[1], encoding="utf-8") as file:
    entries = json.load(file)
for entry in entries:
    pattern = entry["pattern"]
    if pattern.lower().lstrip("^").startswith(TOOLS):
        group = "tool"
    elif "http-library" in entry.get("tags", []):
        group = "library"
    else:
        group = "crawler"
    print(f"{group}\t{pattern}")
