#!/usr/bin/env python3
"""Opens a page in headless Chromium and waits until its text matches each pattern in turn, printing a line for each.

With --pictures PREFIX it leaves PREFIX-light.png and PREFIX-dark.png of the page as it is at the end.
"""

import argparse
import base64
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

PORT = 9515
BASE = f"http://127.0.0.1:{PORT}"
# A test host has no way out, and a browser should not look for one.
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1200,1000"]


def call(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(BASE + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["value"]


def wait_for(condition, what, seconds):
    limit = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > limit:
            sys.exit(f"browse: not within {seconds} s: {what}")
        time.sleep(0.1)
    return found


def ready():
    try:
        return call("GET", "/status")["ready"]
    except OSError:
        return False


def picture(session, scheme, path):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    call("POST", f"{session}/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}})
    with open(path, "wb") as file:
        file.write(base64.b64decode(call("GET", f"{session}/screenshot")))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("patterns", nargs="+", help="regular expressions; '.' matches line ends too")
    parser.add_argument("--seconds", type=float, default=60, help="for each pattern")
    parser.add_argument("--pictures", metavar="PREFIX")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="weft-browse-") as profile:
        driver = subprocess.Popen(["chromedriver", f"--port={PORT}", "--silent"], stdout=subprocess.DEVNULL)
        try:
            wait_for(ready, "chromedriver", 20)
            options = {"args": [*FLAGS, f"--user-data-dir={profile}"]}
            made = call("POST", "/session", {"capabilities": {"alwaysMatch": {
                "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}})
            session = f"/session/{made['sessionId']}"
            try:
                call("POST", f"{session}/url", {"url": asked.url})

                def text():
                    return call("POST", f"{session}/execute/sync", {"script": "return document.body.innerText", "args": []})

                for pattern in asked.patterns:
                    wait_for(lambda pattern=pattern: re.search(pattern, text(), re.DOTALL),
                             f"{pattern!r} in:\n{text()}", asked.seconds)
                    print("matched", pattern, flush=True)
                for scheme in ("light", "dark") if asked.pictures else ():
                    picture(session, scheme, f"{asked.pictures}-{scheme}.png")
                print("text", json.dumps(text()))
                for entry in call("POST", f"{session}/se/log", {"type": "browser"}):
                    print("console", json.dumps(entry))
            finally:
                call("DELETE", session)
        finally:
            driver.terminate()
            driver.wait()


if __name__ == "__main__":
    main()
