//! A real browser: headless Chromium, spoken to through chromedriver in the WebDriver protocol (W3C), which is JSON over
//! HTTP. What is seen of the gateway here is what a person's browser lets happen.

use super::PATIENCE;
use super::client::Request;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

/// How WebDriver names an element in its answers.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys without a character, as WebDriver writes them (section 17.4.2).
pub mod key {
    /// Tab.
    pub const TAB: &str = "\u{e004}";
    /// Enter.
    pub const ENTER: &str = "\u{e007}";
}

/// Whether pages may run scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scripts {
    /// They may.
    On,
    /// A person turned them off.
    Off,
}

/// A browser with a profile of its own, in which all hosts that end in `.test` are this machine. Its process ends with it.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
}

impl Browser {
    /// Starts one. Both `chromium` and `chromedriver` must be installed: `./test` sees to that.
    #[track_caller]
    pub fn start(scripts: Scripts) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed (Debian: chromium-driver)");
        let (send, port) = mpsc::channel();
        let output = driver.stdout.take().unwrap();
        // Reads on to the end, so that the driver never waits for somebody to read.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((_, port)) = line.split_once("started successfully on port ") {
                    let _ = send.send(port.trim_end_matches('.').parse::<u16>());
                }
            }
        });
        let port = port.recv_timeout(PATIENCE).expect("chromedriver says its port").expect("a port");
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

    /// Goes to an address, as if it was typed, and waits until the page is loaded.
    #[track_caller]
    pub fn go(&self, address: &str) {
        self.tell("url", &json!({ "url": address }));
    }

    /// The address of the page that is shown.
    #[track_caller]
    pub fn address(&self) -> String {
        self.read("url")
    }

    /// The title of the page that is shown.
    #[track_caller]
    pub fn title(&self) -> String {
        self.read("title")
    }

    /// The page that is shown, as markup.
    #[track_caller]
    pub fn source(&self) -> String {
        self.read("source")
    }

    #[track_caller]
    fn element(&self, css: &str) -> String {
        let found = self.tell("element", &json!({ "using": "css selector", "value": css }));
        found[ELEMENT].as_str().expect("an element").to_owned()
    }

    /// Whether there is such an element.
    #[track_caller]
    pub fn shows(&self, css: &str) -> bool {
        let found = self.tell("elements", &json!({ "using": "css selector", "value": css }));
        found.as_array().is_some_and(|list| !list.is_empty())
    }

    /// What an element says to a person.
    #[track_caller]
    pub fn text(&self, css: &str) -> String {
        self.read(&format!("element/{}/text", self.element(css)))
    }

    /// A computed property of an element: `role`, `label` (WebDriver sections 12.4.9 and 12.4.10).
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

    /// Types where the keyboard is.
    #[track_caller]
    pub fn press(&self, keys: &str) {
        let press = |key: char| {
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        };
        let actions: Vec<Value> = keys.chars().flat_map(press).collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.tell("actions", &json!({ "actions": [keyboard] }));
    }

    /// What a script of the page's own says; `arguments[0]` is to be called with it where the script waits.
    #[track_caller]
    pub fn script(&self, script: &str) -> Value {
        self.tell("execute/async", &json!({ "script": script, "args": [] }))
    }

    /// The cookies of the page that is shown, `HttpOnly` ones too.
    #[track_caller]
    pub fn cookies(&self) -> Vec<Value> {
        let value = self.ask("GET", &self.path("cookie"), &Value::Null);
        value.as_array().expect("a list").clone()
    }

    /// A cookie of the page that is shown.
    #[track_caller]
    pub fn cookie(&self, name: &str) -> Option<Value> {
        self.cookies().into_iter().find(|cookie| cookie["name"] == name)
    }

    /// Forgets a cookie of the page that is shown, as a browser does whose time has come.
    #[track_caller]
    pub fn forget(&self, name: &str) {
        self.ask("DELETE", &self.path(&format!("cookie/{name}")), &Value::Null);
    }

    /// A command of the DevTools protocol, for what WebDriver does not have.
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
