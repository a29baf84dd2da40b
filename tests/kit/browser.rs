//! A real browser: headless Chromium, controlled by chromedriver with the WebDriver protocol (W3C).

use super::PATIENCE;
use super::client::Request;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

/// The key of an element's id in WebDriver's answers.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys that produce no character, in WebDriver's encoding (section 17.4.2).
pub mod key {
    /// Tab.
    pub const TAB: &str = "\u{e004}";
    /// Enter.
    pub const ENTER: &str = "\u{e007}";
}

/// Whether pages may run scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scripts {
    /// Pages may run scripts.
    On,
    /// A person turned scripts off.
    Off,
}

/// Starts the driver. Returns its process and its port, or `None` if it ends at once.
fn driver() -> Option<(Child, u16)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromedriver is installed (Debian: chromium-driver)");
    let (send, port) = mpsc::channel();
    let output = driver.stdout.take().unwrap();
    // Reads to the end of the output, so that the driver never blocks on a full pipe.
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                let _ = send.send(port.trim_end_matches('.').parse::<u16>());
            }
        }
    });
    match port.recv_timeout(PATIENCE) {
        Ok(port) => Some((driver, port.expect("a port"))),
        Err(_) => {
            let _ = driver.kill();
            let _ = driver.wait();
            None
        }
    }
}

/// A browser with a new profile, in which all hosts that end in `.test` resolve to this machine. Its process ends when
/// the value is dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
}

impl Browser {
    /// Starts a browser. `chromium` and `chromedriver` must be installed; `./test` installs both.
    #[track_caller]
    pub fn start(scripts: Scripts) -> Self {
        // The driver ends if the IPv6 port with the number of its free IPv4 port is in use.
        let (driver, port) = (0..5).find_map(|_| driver()).expect("chromedriver starts");
        let mut browser =
            Self { driver, address: SocketAddr::from(([127, 0, 0, 1], port)), session: String::new() };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--ignore-certificate-errors",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--window-size=1000,800",
            "--host-resolver-rules=MAP *.test 127.0.0.1",
        ];
        let scripts = if scripts == Scripts::On { 1 } else { 2 };
        let options = json!({
            "args": arguments,
            "prefs": { "profile.managed_default_content_settings.javascript": scripts },
        });
        let capabilities = json!({ "acceptInsecureCerts": true, "goog:chromeOptions": options });
        let value =
            browser.ask("POST", "/session", &json!({ "capabilities": { "alwaysMatch": capabilities } }));
        value["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        browser
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_ask(method, path, body).unwrap_or_else(|error| panic!("{method} {path} {body}: {error}"))
    }

    fn try_ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
        let request = match method {
            "POST" => Request::post(path, body.to_string()).header("content-type", "application/json"),
            method => Request::new(method, path),
        };
        let answer = request.host(&self.address.to_string()).to(self.address);
        let value = answer.json()["value"].clone();
        if answer.status == 200 { Ok(value) } else { Err(value["message"].clone()) }
    }

    fn path(&self, command: &str) -> String {
        format!("/session/{}/{command}", self.session)
    }

    #[track_caller]
    fn read(&self, command: &str) -> String {
        let value = self.ask("GET", &self.path(command), &Value::Null);
        value.as_str().unwrap_or_else(|| panic!("{command}: {value}")).to_owned()
    }

    #[track_caller]
    fn tell(&self, command: &str, body: &Value) -> Value {
        self.ask("POST", &self.path(command), body)
    }

    /// Opens an address as if a person had typed it, and waits until the page is loaded.
    #[track_caller]
    pub fn go(&self, address: &str) {
        self.tell("url", &json!({ "url": address }));
    }

    /// Returns the address of the current page.
    #[track_caller]
    pub fn address(&self) -> String {
        self.read("url")
    }

    /// Returns the title of the current page.
    #[track_caller]
    pub fn title(&self) -> String {
        self.read("title")
    }

    /// Returns the current page as markup.
    #[track_caller]
    pub fn source(&self) -> String {
        self.read("source")
    }

    #[track_caller]
    fn element(&self, css: &str) -> String {
        let found = self.tell("element", &json!({ "using": "css selector", "value": css }));
        found[ELEMENT].as_str().expect("an element").to_owned()
    }

    /// Whether the page has an element that matches.
    #[track_caller]
    pub fn shows(&self, css: &str) -> bool {
        let found = self.tell("elements", &json!({ "using": "css selector", "value": css }));
        found.as_array().is_some_and(|list| !list.is_empty())
    }

    /// Returns the visible text of an element.
    #[track_caller]
    pub fn text(&self, css: &str) -> String {
        self.read(&format!("element/{}/text", self.element(css)))
    }

    /// Returns a computed property of an element: `role` or `label` (WebDriver sections 12.4.9 and 12.4.10).
    #[track_caller]
    pub fn computed(&self, what: &str, css: &str) -> String {
        self.read(&format!("element/{}/computed{what}", self.element(css)))
    }

    /// Clicks on an element.
    #[track_caller]
    pub fn click(&self, css: &str) {
        self.tell(&format!("element/{}/click", self.element(css)), &json!({}));
    }

    /// Types into a field.
    #[track_caller]
    pub fn fill(&self, css: &str, text: &str) {
        self.tell(&format!("element/{}/value", self.element(css)), &json!({ "text": text }));
    }

    /// Presses keys in the element that has the focus.
    #[track_caller]
    pub fn press(&self, keys: &str) {
        let press = |key: char| {
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        };
        let actions: Vec<Value> = keys.chars().flat_map(press).collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.tell("actions", &json!({ "actions": [keyboard] }));
    }

    /// Runs a script in the current page, and returns the value with which the script calls `arguments[0]`.
    #[track_caller]
    pub fn script(&self, script: &str) -> Value {
        self.tell("execute/async", &json!({ "script": script, "args": [] }))
    }

    /// Returns the cookies of the current page, including `HttpOnly` cookies.
    #[track_caller]
    pub fn cookies(&self) -> Vec<Value> {
        let value = self.ask("GET", &self.path("cookie"), &Value::Null);
        value.as_array().expect("a list").clone()
    }

    /// Returns a cookie of the current page.
    #[track_caller]
    pub fn cookie(&self, name: &str) -> Option<Value> {
        self.cookies().into_iter().find(|cookie| cookie["name"] == name)
    }

    /// Deletes a cookie of the current page, as if it had expired.
    #[track_caller]
    pub fn forget(&self, name: &str) {
        self.ask("DELETE", &self.path(&format!("cookie/{name}")), &Value::Null);
    }

    /// Executes a command of the DevTools protocol, for features that WebDriver lacks.
    #[track_caller]
    pub fn command(&self, command: &str, parameters: &Value) -> Value {
        self.tell("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = self.try_ask("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
