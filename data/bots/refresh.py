#!/usr/bin/env python3
"""Makes the bot lists anew from the two published packages: see README.md.

    refresh.py CRAWLER_USER_AGENTS_PACKAGE COUNTER_ROBOTS_PACKAGE

The first is the directory with crawler-user-agents.json, the second the one with data/robot.txt.
"""
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

# crawler-user-agents tags these `http-library`; they are used by hand, or they crawl.
CUA_TOOLS = {"[wW]get", "^curl", "^HTTPie\\/", "BTWebClient", "Download Ninja", "http_get"}
CUA_CRAWLERS = {
    "phpcrawl", "HTTrack", "SimpleCrawler", "crawler4j", "Scrapy", "newspaper\\/", "Amazon CloudFront",
    "Salesforce\\.com", "GoParserBot", "larbin", "rawweb-bot", "python-opengraph", "trafilatura",
}
COUNTER_TOOLS = {
    "aria2\\/\\d", "curl\\/", "Wget", "Download\\+Master", "FDM(\\s|\\+)\\d", "GetRight", "geturl", "gvfs\\/",
    "^FileDown$", "^NetAnts\\/\\d", "Web(\\s|\\+)Downloader", "URL2File", "insomnia",
}
COUNTER_LIBRARIES = {
    "axios\\/\\d", "CakePHP", "ColdFusion", "Fetch(\\s|\\+)API(\\s|\\+)Request", "HttpComponents\\/1.1",
    "http.?client", "httpget", "httpx", "Indy Library", "^java\\/\\d{1,2}.\\d", "Jersey\\/\\d", "lwp", "libcurl",
    "libhttp", "libwww", "okhttp", "Pcore-HTTP", "pear\\.php\\.net", "PHP\\/", "PycURL", "python",
    "ReactorNetty\\/\\d", "RestSharp", "Typhoeus", "urllib", "Microsoft(\\s|\\+)URL(\\s|\\+)Control", "^ruby$",
    "htmlparser", "Dispatch\\/\\d", "WWW-Mechanize",
}

# Patterns that hit people's browsers: what stands in for them (None: nothing), and why.
CHANGED = {
    "Sogou": ("Sogou [A-Za-z ]*[sS]pider|Sogou-Test-Spider", "Sogou's own browsers name themselves so, too"),
    "sogou": (None, "the same; crawler-user-agents has its spiders"),
    "bot": ("(?:^|[^u])bot|(?:^|[^c])ubot", "CUBOT makes telephones"),
    "baidu": (None, "baiduboxapp and baidubrowser are browsers; crawler-user-agents has its spiders"),
    "core": (None, "HMSCore is on every Huawei telephone; too short a word for anything"),
    "daum(oa)?": ("daumoa", "DaumApps is a browser"),
    "docomo": (None, "a Japanese carrier's telephones"),
    "google": (
        "google(?:bot|other|producer|imageproxy|docs|associationservice)",
        "Google Pixel is a telephone; crawler-user-agents has its crawlers",
    ),
    "motor": ("motor(?:[^o]|$)", "motorola makes telephones"),
    "pioneer": ("^pioneer", "Pioneer makes telephones"),
    "titan": ("^titan", "Titan is a telephone"),
    "yahoo": ("yahoo(?:[^.]|$)", "jp.co.yahoo.android.yjtop is a browser"),
    "custo": ("custo(?:[^m]|$)", "custom builds of browsers say so"),
    "arks": ("(?:^|[^a-z])arks", "the end of ordinary words"),
    "ng\\/2\\.": ("(?:^|[^a-z])ng\\/2\\.", "the end of ordinary words"),
}


def changed(pattern):
    return CHANGED[pattern][0] if pattern in CHANGED else pattern


def write(name, rows):
    rows = [row for row in rows if row[1] is not None]
    (HERE / name).write_text("".join("\t".join(row) + "\n" for row in rows))


def main(cua, counter):
    crawlers = json.loads((Path(cua) / "crawler-user-agents.json").read_text())
    rows, instances = [], []
    for crawler in crawlers:
        pattern = crawler["pattern"]
        if pattern in CUA_TOOLS:
            group = "tools"
        elif "http-library" in crawler.get("tags", []) and pattern not in CUA_CRAWLERS:
            group = "libraries"
        else:
            group = "crawlers"
        rows.append((group, changed(pattern)))
        instances += crawler.get("instances", [])
    write("crawler-user-agents.tsv", rows)
    (HERE / "fixtures/instances.txt").write_text("".join(text + "\n" for text in dict.fromkeys(instances)))

    # machine.txt is a part of robot.txt, but for one unescaped spelling.
    rows = []
    for pattern in (Path(counter) / "data/robot.txt").read_text().splitlines():
        if pattern:
            group = "tools" if pattern in COUNTER_TOOLS else "libraries" if pattern in COUNTER_LIBRARIES else "crawlers"
            rows.append((group, changed(pattern)))
    write("counter-robots.tsv", rows)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
