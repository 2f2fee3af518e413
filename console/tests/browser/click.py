"""Clicks through the console's page in a headless Chromium, by WebDriver (https://www.w3.org/TR/webdriver2/).

Arguments: the program to look at, and a folder for screenshots (may be empty).
"""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

PROGRAM, SHOTS = sys.argv[1], sys.argv[2]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ENTER, TAB, DOWN, ESCAPE, SPACE = "\ue007", "\ue004", "\ue015", "\ue00c", " "
LIMIT = 60


def http(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=LIMIT) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{method} {url}: {error.read().decode()}") from None


def until(what, ask):
    """Asks until the answer is true, and returns it."""
    begun = time.monotonic()
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() - begun < LIMIT, f"did not come: {what}"
        time.sleep(0.05)


class Browser:
    def __init__(self, driver, scheme):
        self.driver = driver
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,1500", "--hide-scrollbars"]
        capabilities = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments, "binary": "/usr/bin/chromium"},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        session = http("POST", f"{driver}/session", {"capabilities": {"alwaysMatch": capabilities}})
        self.at = f"{driver}/session/{session['sessionId']}"
        self.command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def command(self, name, parameters):
        return http("POST", f"{self.at}/goog/cdp/execute", {"cmd": name, "params": parameters})

    def open(self, url):
        http("POST", f"{self.at}/url", {"url": url})

    def run(self, script, *arguments):
        return http("POST", f"{self.at}/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector):
        found = http("POST", f"{self.at}/elements", {"using": "css selector", "value": selector})
        return found[0][ELEMENT] if found else None

    def click(self, selector):
        element = until(selector, lambda: self.find(selector))
        http("POST", f"{self.at}/element/{element}/click", {})

    def type(self, selector, text):
        element = until(selector, lambda: self.find(selector))
        http("POST", f"{self.at}/element/{element}/value", {"text": text})

    def press(self, *keys):
        """Presses keys wherever the focus is."""
        steps = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        body = {"actions": [{"type": "key", "id": "keys", "actions": steps}]}
        http("POST", f"{self.at}/actions", body)

    def text(self, selector):
        return self.run("const it = document.querySelector(arguments[0]); return it ? it.innerText : ''", selector)

    def has(self, selector, text):
        until(f"{text!r} in {selector}", lambda: text in self.text(selector))

    def shoot(self, name):
        if not SHOTS:
            return
        height = self.run("return document.documentElement.scrollHeight")
        self.command("Emulation.setDeviceMetricsOverride", {"width": 1200, "height": height, "deviceScaleFactor": 1, "mobile": False})
        time.sleep(0.3)
        with open(os.path.join(SHOTS, f"{name}.png"), "wb") as file:
            file.write(base64.b64decode(http("GET", f"{self.at}/screenshot")))
        self.command("Emulation.clearDeviceMetricsOverride", {})

    def complaints(self):
        """What the browser says in its console: errors of scripts, and what the policy has refused."""
        lines = http("POST", f"{self.at}/se/log", {"type": "browser"})
        said = [line["message"] for line in lines if line["level"] in ("SEVERE", "WARNING")]
        # That is about this test, which reads the heat map's pixels.
        return [line for line in said if "willReadFrequently" not in line]

    def end(self):
        http("DELETE", self.at)


def check(scheme, driver, url):
    browser = Browser(driver, scheme)
    browser.open(url)
    browser.has("#program", "stuck")
    browser.has("#status", "live")

    # The deadlock, with its locks and their owners.
    browser.has("#alerts", "Deadlock: 2 green threads wait for each other")
    for part in ("transfer-a", "transfer-b", "a mutex (0x", "deadlock"):
        browser.has("#alerts", part)
    browser.has("#legend", "wait")
    browser.has("#figures", "workers")
    browser.has("#locks", "refresh")
    until("curves", lambda: browser.run("return document.querySelectorAll('#charts .line[d]').length") == 6)

    browser.has("#heat-said", "99 % within")
    until("two workers", lambda: browser.run("return document.querySelectorAll('#workers meter').length") == 2)
    painted = "const it = document.getElementById('heat'); return it.getContext('2d').getImageData(0, 0, it.width, it.height).data.some((x) => x > 0)"
    until("a heat map", lambda: browser.run(painted))

    # A group opens by the keyboard, and stays open over the next looks.
    browser.run("document.querySelector('#groups summary').focus()")
    browser.press(ENTER)
    until("an open group", lambda: browser.find("#groups details[open] .calls li"))
    first = browser.text("#groups details[open] summary .where")
    for _ in range(2):
        looks = browser.run("return document.querySelector('#charts .line').getAttribute('d')")
        until("a next look", lambda: browser.run("return document.querySelector('#charts .line').getAttribute('d')") != looks)
    assert browser.text("#groups details[open] summary .where") == first
    has_focus = browser.run("return document.activeElement.tagName")
    assert has_focus == "SUMMARY", f"the focus has gone to {has_focus}"

    # The filter. A name with HTML in it is text.
    browser.type("#filter", "report")
    until("one group", lambda: browser.run("return document.querySelectorAll('#groups details').length") == 1)
    assert browser.run("return document.querySelectorAll('report').length") == 0
    browser.run("const it = document.getElementById('filter'); it.value = ''; it.dispatchEvent(new Event('input'))")

    # The flame graph: drawn, walked through by arrow keys, opened and closed.
    browser.click("#flame-form button[type=submit]")
    until("a flame graph", lambda: browser.find("#flame svg g[role=treeitem]"))
    browser.run("document.querySelector('#flame svg g').focus()")
    browser.press(DOWN)
    said = browser.text("#flame-said")
    assert "ms" in said, said
    shown = "return [...document.querySelectorAll('#flame g')].filter((it) => it.style.display !== 'none').length"
    whole = browser.run(shown)
    browser.press(ENTER)
    assert browser.run(shown) < whole
    browser.shoot(f"page-{scheme}")
    browser.press(ESCAPE)
    assert browser.run(shown) == whole
    browser.run("const it = document.getElementById('flame-kind'); it.value = 'running'; it.dispatchEvent(new Event('change'))")
    browser.run("document.getElementById('flame-seconds').value = '1'; document.querySelector('#flame').replaceChildren()")
    browser.click("#flame-form button[type=submit]")
    until("a flame graph of running threads", lambda: browser.find("#flame svg g[role=treeitem]"))

    # A recording begins and ends.
    browser.click("#trace-start")
    browser.has("#trace-said", "It records")
    browser.click("#trace-stop")
    browser.has("#trace-said", "it records no more")

    # Pause: the page asks no more.
    browser.click("#pause")
    browser.has("#status", "paused")
    before = browser.text("#figures")
    time.sleep(2.5)
    assert browser.text("#figures") == before
    browser.click("#pause")
    browser.has("#status", "live")

    wide = browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert wide, "the page is wider than the window"
    complaints = browser.complaints()
    assert not complaints, complaints
    browser.end()


def check_token(driver, url, token):
    browser = Browser(driver, "light")
    browser.open(url)
    browser.has("#status", "asks for its token")
    browser.shoot("token")
    browser.type("#token", "wrong")
    browser.type("#token", ENTER)
    browser.has("#refused", "not accepted")
    browser.type("#token", token)
    browser.type("#token", ENTER)
    browser.has("#status", "live")
    browser.has("#program", "stuck")
    browser.end()


def start(*arguments):
    """Starts the program, and returns it with the console's address."""
    program = subprocess.Popen([PROGRAM, "127.0.0.1:0", *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True)
    return program, program.stdout.readline().strip()


def main():
    if SHOTS:
        os.makedirs(SHOTS, exist_ok=True)
    started = []
    try:
        driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(driver)
        line = next(line for line in driver.stdout if "successfully" in line)
        driver = f"http://127.0.0.1:{line.rsplit(' ', 1)[1].strip().rstrip('.')}"
        program, url = start()
        started.append(program)
        for scheme in ("light", "dark"):
            check(scheme, driver, url)
        token = "a-token-of-32-characters-or-more"
        program, url = start(token)
        started.append(program)
        check_token(driver, url, token)
    finally:
        for process in reversed(started):
            # With the browsers that the driver has started.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    print("the page does what it should")


main()
