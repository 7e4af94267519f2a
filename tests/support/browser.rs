//! Chromium, driven by its DevTools protocol through two pipes.
//!
//! Clicks and keys are those of a person: at a place of the screen, to what has the focus.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

/// How long anything may take. Nothing waits for so long, unless it fails.
const PATIENCE: Duration = Duration::from_secs(180);

pub struct Browser {
    child: Child,
    commands: File,
    messages: Receiver<Value>,
    events: VecDeque<Value>,
    session: String,
    number: u64,
    _folder: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // With all that it has started.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

impl Browser {
    /// Starts Chromium, or returns `None` if there is none.
    pub fn start() -> Option<Self> {
        if !Command::new("chromium").arg("--version").output().is_ok_and(|output| output.status.success()) {
            assert!(std::env::var_os("CI").is_none(), "there is no chromium");
            println!("skipped: there is no chromium");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (to, from) = (path("to"), path("from"));
        assert!(Command::new("mkfifo").args([&to, &from]).status().unwrap().success());
        let options = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking \
                       --disable-component-update --no-first-run --no-proxy-server --remote-debugging-pipe \
                       --autoplay-policy=no-user-gesture-required";
        // Chromium reads from 3 and writes to 4, which only a shell can set without unsafe code.
        let script =
            format!("exec chromium {options} --user-data-dir='{}' 3<'{to}' 4>'{from}'", path("profile"));
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn().unwrap();
        // In the order of the shell: opening a pipe waits for its other end.
        let commands = File::options().write(true).open(&to).unwrap();
        let mut output = BufReader::new(File::open(&from).unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|len| len > 0) {
                let parsed = serde_json::from_slice(&message[..message.len() - 1]);
                if parsed.is_ok_and(|message: Value| sender.send(message).is_err()) {
                    return;
                }
                message.clear();
            }
        });
        let (events, session) = (VecDeque::new(), String::new());
        let mut browser = Self { child, commands, messages, events, session, number: 0, _folder: folder };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session =
            browser.call("Target.attachToTarget", target)["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Calls a method of the protocol, and returns its result.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).unwrap();
        loop {
            let message = self.messages.recv_timeout(PATIENCE);
            let mut message = message.unwrap_or_else(|_| panic!("{method} takes too long"));
            if message["id"] == self.number {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push_back(message);
        }
    }

    /// Opens a page, and waits until it is loaded.
    pub fn open(&mut self, url: &str) {
        self.events.clear();
        self.call("Page.navigate", json!({ "url": url }));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            self.events.push_back(self.messages.recv_timeout(PATIENCE).expect("the page is loaded"));
        }
    }

    /// Evaluates an expression in the page, and returns its value, or that of its promise.
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut result = self.call("Runtime.evaluate", parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].take()
    }

    /// Waits until a condition holds in the page.
    pub fn until(&mut self, condition: &str) {
        let waiting = format!(
            "new Promise((resolve) => {{
                const began = performance.now();
                const look = () => {{
                    if ({condition}) resolve(true);
                    else if (performance.now() - began > 120000) resolve(false);
                    else setTimeout(look, 10);
                }};
                look();
            }})"
        );
        if self.value(&waiting) != true {
            let text = self.value("document.body.innerText");
            panic!("{condition} does not come true:\n{}", text.as_str().unwrap());
        }
    }

    /// Returns the text of the element that a selector finds first.
    pub fn text(&mut self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({}).textContent", json!(selector)));
        text.as_str().unwrap().to_owned()
    }

    /// Clicks in the middle of the first line of an element, which must be there and not be covered.
    pub fn click(&mut self, selector: &str) {
        let selector = json!(selector);
        self.until(&format!("document.querySelector({selector})?.disabled === false"));
        let place = self.value(&format!(
            "(async () => {{
                const element = document.querySelector({selector});
                element.scrollIntoView({{ block: 'center', behavior: 'instant' }});
                // A list that arrives now moves what is below it.
                let box, before;
                do {{
                    before = element.getClientRects()[0];
                    for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
                    box = element.getClientRects()[0];
                }} while (box.x !== before.x || box.y !== before.y);
                const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
                const there = document.elementFromPoint(x, y);
                return {{ x, y, there: element.contains(there) || there?.contains(element) && there.closest('label, button') !== null }};
            }})()"
        ));
        assert_eq!(place["there"], true, "{selector} is covered");
        for kind in ["mousePressed", "mouseReleased"] {
            let event =
                json!({ "type": kind, "x": place["x"], "y": place["y"], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Types a text into a field, in place of what it has.
    pub fn fill(&mut self, selector: &str, text: &str) {
        self.value(&format!("document.querySelector({}).select()", json!(selector)));
        self.value(&format!("document.querySelector({}).focus()", json!(selector)));
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Presses a key.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            "Escape" => (27, ""),
            _ => panic!("an unknown key"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Checks that the page has reported nothing: no exception, no violation of its policy, nothing that was not found.
    pub fn assert_quiet(&mut self) {
        self.value("1"); // what was reported before is here then
        let loud = [
            "Log.entryAdded",
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Page.javascriptDialogOpening",
        ];
        // A mistake of the user is answered with 400, which the browser notes too.
        let is_mistake = |event: &Value| {
            let text = event["params"]["entry"]["text"].as_str().unwrap_or_default();
            text.contains("status of 400")
        };
        let is_loud =
            |event: &&Value| loud.iter().any(|method| event["method"] == *method) && !is_mistake(event);
        let events: Vec<_> = self.events.iter().filter(is_loud).collect();
        assert!(events.is_empty(), "{events:?}");
    }
}
