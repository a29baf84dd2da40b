//! The local authority's signing keys: commands create, replace and revoke them while gateways run.

use crate::kit::dir::Dir;
use crate::kit::forge::now;
use crate::kit::portcullis::{Finished, command, write_policy};
use crate::kit::{ISSUER, PATIENCE, Portcullis, Request, eventually};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

const POLICY: &str = "
[authority]
issuer   = \"https://id.test/\"
audience = [\"orders\"]

[upstream.echo]
builtin = \"echo\"

[[route]]
path     = \"/x\"
upstream = \"echo\"
";

#[track_caller]
fn good(dir: &Dir, arguments: &[&str]) -> Finished {
    let finished = command(dir, arguments);
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    finished
}

/// Returns the keys that `key list` prints.
#[track_caller]
fn list(dir: &Dir) -> Vec<Value> {
    let listed = good(dir, &["key", "list", "--format", "json"]).stdout;
    serde_json::from_str::<Value>(&listed).unwrap()["signing"].as_array().unwrap().clone()
}

/// Returns the id of the only key in this state.
#[track_caller]
pub(crate) fn key_in(dir: &Dir, state: &str) -> String {
    let listed = list(dir);
    let found: Vec<_> = listed.iter().filter(|key| key["state"] == state).collect();
    assert_eq!(found.len(), 1, "{state}: {listed:?}");
    found[0]["kid"].as_str().unwrap().to_owned()
}

#[track_caller]
fn mint(dir: &Dir) -> String {
    good(dir, &["token", "mint"]).stdout.trim().to_owned()
}

fn kid_of(token: &str) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

fn status(gateway: &Portcullis, token: &str) -> u16 {
    Request::get("/x").bearer(token).to(gateway.http()).status
}

/// Waits until a gateway answers a token with this status. On an idle machine this takes less than two seconds.
#[track_caller]
fn soon(gateway: &Portcullis, token: &str, wanted: u16, meanwhile: impl Fn()) {
    eventually("the gateway has followed", || {
        meanwhile();
        status(gateway, token) == wanted
    });
}

fn in_dir(policy: &str) -> Dir {
    let dir = Dir::new();
    write_policy(&dir, policy);
    dir
}

#[test]
fn a_rotation_costs_no_token_its_life() {
    let gateway = Portcullis::with(POLICY).start();
    let dir = gateway.dir().clone();
    let (first, old) = (key_in(&dir, "signing"), mint(&dir));
    assert_eq!(kid_of(&old), first);
    let old_passes = || assert_eq!(status(&gateway, &old), 200, "its token is refused in the middle of it");
    old_passes();
    let began = Instant::now();
    let second = good(&dir, &["key", "rotate", "--now"]).stdout.trim().to_owned();
    eventually("the command's key signs", || kid_of(&mint(&dir)) == second);
    let new = mint(&dir);
    soon(&gateway, &new, 200, old_passes);
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    old_passes();
    assert_eq!((key_in(&dir, "retiring"), key_in(&dir, "signing")), (first, second.clone()));
    gateway.wait_log("the key is published", |line| {
        line["message"] == "a signing key is published" && line["kid"] == *second
    });
    gateway.wait_log("the key signs", |line| {
        line["message"] == "a signing key has started to sign" && line["kid"] == *second
    });
    let metrics = Request::get("/metrics").to(gateway.admin()).text();
    for (state, count) in [("next", 0), ("signing", 1), ("retiring", 1), ("revoked", 0)] {
        let sample = format!("portcullis_signing_keys{{state=\"{state}\"}} {count}\n");
        assert!(metrics.contains(&sample), "{sample}: {metrics}");
    }
    assert!(metrics.contains("portcullis_signing_key_faults_total 0\n"), "{metrics}");
}

#[test]
fn a_key_without_sign_now_is_published_before_it_signs() {
    let dir = in_dir(POLICY);
    let first = good(&dir, &["key", "generate"]).stdout.trim().to_owned();
    let rotated = good(&dir, &["key", "rotate", "--format", "json"]).stdout;
    let rotated: Value = serde_json::from_str(&rotated).unwrap();
    assert_eq!(rotated["made"], true);
    assert_eq!(key_in(&dir, "next"), rotated["kid"]);
    assert_eq!((key_in(&dir, "signing"), kid_of(&mint(&dir))), (first.clone(), first.clone()));
    let listed = list(&dir);
    assert_eq!(listed[1]["signs_from"], rotated["signs_from"]);
    assert!(listed[0]["accepted_until"].as_str() > rotated["signs_from"].as_str(), "{listed:?}");
    assert_eq!(listed[1]["accepted_until"], Value::Null);
    let again: Value =
        serde_json::from_str(&good(&dir, &["key", "rotate", "--format", "json"]).stdout).unwrap();
    assert_eq!((&again["kid"], &again["made"]), (&rotated["kid"], &Value::Bool(false)));
}

#[test]
fn tokens_of_a_revoked_key_are_refused_although_they_were_verified_before() {
    let gateway = Portcullis::with(POLICY).start();
    let dir = gateway.dir().clone();
    let (first, leaked) = (key_in(&dir, "signing"), mint(&dir));
    assert_eq!([status(&gateway, &leaked), status(&gateway, &leaked)], [200, 200], "it is remembered");
    let revoked = good(&dir, &["key", "revoke", &first, "--format", "json"]).stdout;
    let new = serde_json::from_str::<Value>(&revoked).unwrap()["replaced_by"].as_str().unwrap().to_owned();
    soon(&gateway, &leaked, 401, || {});
    Request::get("/x").bearer(&leaked).to(gateway.http()).is_refusal(401, "unknown_key");
    // A new key signs now. A restart does not restore the revoked key.
    eventually("the new key signs", || kid_of(&mint(&dir)) == new);
    soon(&gateway, &mint(&dir), 200, || {});
    assert_eq!((key_in(&dir, "revoked"), key_in(&dir, "signing")), (first.clone(), new));
    gateway.wait_log("the event is logged", |line| {
        line["message"].as_str().is_some_and(|message| message.starts_with("a signing key was revoked"))
            && line["kid"] == *first
    });
    gateway.stop();
    let gateway = Portcullis::with(POLICY).within(dir).start();
    Request::get("/x").bearer(&leaked).to(gateway.http()).is_refusal(401, "unknown_key");
}

#[test]
fn two_gateways_on_one_folder_follow_alike() {
    let one = Portcullis::with(POLICY).start();
    let dir = one.dir().clone();
    let two = Portcullis::with(POLICY).within(dir.clone()).start();
    let (first, old) = (key_in(&dir, "signing"), mint(&dir));
    assert_eq!([status(&one, &old), status(&two, &old)], [200, 200]);
    good(&dir, &["key", "rotate", "--now"]);
    eventually("the new key signs", || kid_of(&mint(&dir)) != first);
    let new = mint(&dir);
    for gateway in [&one, &two] {
        soon(gateway, &new, 200, || assert_eq!(status(gateway, &old), 200));
    }
    good(&dir, &["key", "revoke", &first]);
    for gateway in [&one, &two] {
        soon(gateway, &old, 401, || assert_eq!(status(gateway, &new), 200));
    }
}

#[test]
fn a_key_signs_when_its_moment_comes() {
    let gateway = Portcullis::with(POLICY).start();
    let dir = gateway.dir().clone();
    let first = key_in(&dir, "signing");
    // A scheduled rotation ten minutes ago created this key. Its file name contains the time.
    let rotated: Value =
        serde_json::from_str(&good(&dir, &["key", "rotate", "--format", "json"]).stdout).unwrap();
    let made = dir.path().join(format!("state/{}", file_name(rotated["signs_from"].as_str().unwrap())));
    let date = Command::new("date")
        .args(["-u", "-d", &format!("@{}", now() + 2), "+signing-key.%Y%m%dT%H%M%SZ.pem"])
        .output()
        .unwrap();
    let name = String::from_utf8(date.stdout).unwrap();
    fs::rename(&made, dir.path().join("state").join(name.trim())).unwrap();
    let next = key_in(&dir, "next");
    assert_eq!((next.as_str(), kid_of(&mint(&dir))), (rotated["kid"].as_str().unwrap(), first));
    gateway.wait_log("it signs", |line| {
        line["message"] == "a signing key has started to sign" && line["kid"] == *next
    });
    let token = mint(&dir);
    assert_eq!((kid_of(&token), status(&gateway, &token)), (next, 200));
}

fn file_name(moment: &str) -> String {
    format!("signing-key.{}.pem", moment.replace(['-', ':'], ""))
}

#[test]
fn a_broken_file_is_reported_once_and_the_last_good_keys_stay_in_use() {
    let gateway = Portcullis::with(POLICY).start();
    let dir: Rc<Dir> = gateway.dir().clone();
    let token = mint(&dir);
    let broken = dir.path().join("state/signing-key.20300101T000000Z.pem");
    fs::write(&broken, "broken").unwrap();
    fs::set_permissions(&broken, Permissions::from_mode(0o600)).unwrap();
    let is_fault = |line: &Value| {
        line["message"].as_str().is_some_and(|message| message.starts_with("cannot read some signing keys"))
    };
    let reported = gateway.wait_log("the fault is logged", is_fault);
    assert!(reported["why"].as_str().unwrap().contains("20300101T000000Z"), "{reported}");
    assert_eq!(status(&gateway, &token), 200);
    let refused = command(&dir, &["key", "list"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.text().contains("20300101T000000Z"), "{refused:?}");
    fs::remove_file(&broken).unwrap();
    gateway.wait_log("it is in order", |line| line["message"] == "all signing keys can be read again");
    assert_eq!(gateway.log().iter().filter(|line| is_fault(line)).count(), 1);
    let metrics = Request::get("/metrics").to(gateway.admin()).text();
    assert!(metrics.contains("portcullis_signing_key_faults_total 1\n"), "{metrics}");
    assert_eq!(status(&gateway, &token), 200);
}

#[test]
fn commands_that_are_killed_leave_keys_that_work() {
    let dir = in_dir(POLICY);
    good(&dir, &["key", "generate"]);
    for round in 0..24_u64 {
        let signing = key_in(&dir, "signing");
        let arguments =
            if round % 3 == 0 { vec!["key", "revoke", &*signing] } else { vec!["key", "rotate", "--now"] };
        let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(arguments)
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(round * 700));
        let _ = child.kill();
        child.wait().unwrap();
        key_in(&dir, "signing");
        mint(&dir);
    }
    // The next command removes the files that the killed commands left behind.
    good(&dir, &["key", "rotate", "--now"]);
    let files = fs::read_dir(dir.path().join("state")).unwrap();
    let names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    // The store's files, in which the tokens were recorded, are not key files.
    for name in names.iter().filter(|name| !name.starts_with("portcullis.db")) {
        let (stem, extension) = name.rsplit_once('.').unwrap();
        assert!(["pem", "revoked", "lock"].contains(&extension), "{names:?}");
        assert!(
            extension != "revoked" || !names.contains(&format!("{stem}.pem")),
            "the private half of a revoked key: {names:?}"
        );
    }
}

#[test]
fn commands_say_what_they_did_and_why_they_could_not() {
    let dir = in_dir(&format!("{ISSUER}{}", POLICY.replace("id.test", "local.test")));
    let text = good(&dir, &["key", "list"]).stdout;
    assert!(text.contains("no key yet") && text.contains("https://id.test/"), "{text}");
    assert!(!dir.path().join("state").exists(), "looking makes nothing");
    let revoke = command(&dir, &["key", "revoke", "x"]);
    assert!(revoke.code == Some(1) && revoke.text().contains("key generate"), "{revoke:?}");
    let first = good(&dir, &["key", "generate"]);
    let again = good(&dir, &["key", "generate"]);
    assert_eq!(first.stdout, again.stdout);
    assert!(again.stderr.contains("already"), "{again:?}");
    let text = good(&dir, &["key", "list"]).stdout;
    let line = text.lines().find(|line| line.contains(first.stdout.trim())).unwrap();
    assert!(line.contains("ES256") && line.contains("signing"), "{line}");
    // A key id may begin with a dash.
    for unknown in ["nobody", "-x", "--now"] {
        let refused = command(&dir, &["key", "revoke", unknown]);
        assert!(refused.code == Some(1) && refused.text().contains("unknown key"), "{unknown}: {refused:?}");
    }
    assert_eq!(command(&dir, &["key", "revoke"]).code, Some(2));

    let none = in_dir(&format!(
        "{ISSUER}[upstream.echo]\nbuiltin = \"echo\"\n[[route]]\npath = \"/x\"\nupstream = \"echo\"\n"
    ));
    for arguments in [&["key", "generate"][..], &["key", "rotate"], &["key", "revoke", "x"]] {
        let refused = command(&none, arguments);
        assert!(refused.code == Some(1) && refused.text().contains("[authority]"), "{refused:?}");
    }
    let others: Value =
        serde_json::from_str(&good(&none, &["key", "list", "--format", "json"]).stdout).unwrap();
    assert_eq!(
        (&others["authority"], &others["issuers"][0]["issuer"]),
        (&Value::Null, &"https://id.test/".into())
    );
    assert_eq!(others["issuers"][0]["keys"][0]["algorithm"], "ES256");
}

#[test]
fn a_schedule_that_could_not_be_kept_does_not_load() {
    for (keys, code) in [
        ("rotate_keys = \"59m\"", 1),
        ("rotate_keys = \"1h\"", 0),
        ("rotate_keys = \"0s\"", 0),
        ("rotate_keys = \"1h\"\naccess_expires = \"17h\"", 1),
        ("rotate_keys = \"0s\"\naccess_expires = \"17h\"", 0),
    ] {
        let dir = in_dir(&POLICY.replace("[authority]", &format!("[authority]\n{keys}")));
        let check = command(&dir, &["check"]);
        assert_eq!(check.code, Some(code), "{keys}: {check:?}");
        assert_eq!(check.text().contains("authority.rotate_keys"), code == 1, "{keys}: {check:?}");
    }
}
