//! Commands that add, change, import and remove accounts, with and without a running gateway. Also tests the throttle.

use crate::kit::account::{self, AUTHORITY, PASSWORD, Pair, login, try_login, try_refresh};
use crate::kit::dir::Dir;
use crate::kit::portcullis::{Finished, command, command_with, write_policy};
use crate::kit::{Answer, Portcullis, Request, eventually};
use serde_json::{Value, json};

const ROUTES: &str = "
[upstream.echo]
builtin = \"echo\"

[[route]]
path     = \"/clerks\"
upstream = \"echo\"
roles    = [\"clerk\"]
";

/// Hashes of "correct horse", from Werkzeug 3.1.9 and bcrypt 5.0.0.
const SCRYPT: &str = "scrypt:1024:8:1$NgWNcg2kRs5yhlov$178ac503048a6d336c89a4b266dbe90d2a8c54236cfdd61d644a36bd7e0f5169bf6207dfcfd0ef26da37da283f40f071b549bf2615aa5ac603a7649b984632fc";
const PBKDF2: &str =
    "pbkdf2:sha256:1000$hRMXRcSBeXpwaPp5$cfd92726e27b2076b0ee7d2c9eb7025d597cbcbd7c758a2b6b2083a1c5843881";
const BCRYPT: &str = "$2b$05$2rOa3rSbahuIvVVdyMgSwu4YB719RufZPWD8mhPulnNvclEZJBzMa";
const IMPORTED: &str = "correct horse";

fn dir() -> Dir {
    let dir = Dir::new();
    write_policy(&dir, &format!("{AUTHORITY}{ROUTES}"));
    dir
}

fn gateway() -> Portcullis {
    Portcullis::with(&format!("{AUTHORITY}{ROUTES}")).start()
}

#[track_caller]
fn good(dir: &Dir, arguments: &[&str]) -> Finished {
    ends(command(dir, arguments), 0)
}

#[track_caller]
fn ends(finished: Finished, code: i32) -> Finished {
    assert_eq!(finished.code, Some(code), "{finished:?}");
    for secret in ["$argon2id$v", "scrypt:1024", "$2b$05$2rOa", PASSWORD, IMPORTED] {
        assert!(!finished.stdout.contains(secret), "{finished:?}");
        assert!(!finished.stderr.contains(secret), "{finished:?}");
    }
    finished
}

#[track_caller]
fn refused(dir: &Dir, arguments: &[&str], says: &str) {
    let finished = ends(command_with(dir, arguments, &format!("{PASSWORD}\n")), 1);
    assert!(finished.stderr.contains(says), "{says}: {finished:?}");
}

/// Returns all accounts.
#[track_caller]
fn list(dir: &Dir) -> Vec<Value> {
    let listed = good(dir, &["user", "list", "--format", "json"]).stdout;
    serde_json::from_str(&listed).unwrap_or_else(|error| panic!("{error}: {listed}"))
}

#[track_caller]
fn names(dir: &Dir) -> Vec<String> {
    list(dir).iter().map(|account| account["name"].as_str().unwrap().to_owned()).collect()
}

/// Imports a file with this content.
#[track_caller]
fn import(dir: &Dir, name: &str, content: &str, more: &[&str]) -> Finished {
    dir.write(name, content);
    let path = dir.path().join(name);
    let path = path.to_str().unwrap();
    command(dir, &[&["user", "import", path, "--format", "json"], more].concat())
}

#[track_caller]
fn summary(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

fn status(gateway: &Portcullis, token: &str) -> u16 {
    Request::get("/clerks").bearer(token).to(gateway.http()).status
}

#[test]
fn accounts_are_added_listed_and_removed() {
    let dir = dir();
    assert_eq!(list(&dir), Vec::<Value>::new());
    let arguments = [
        "user",
        "add",
        "Ada",
        "--id",
        "17",
        "--role",
        "clerk",
        "--role",
        "admin",
        "--scope",
        "orders:read",
        "--attribute",
        "tenant=acme",
        "--password-stdin",
    ];
    ends(command_with(&dir, &arguments, PASSWORD), 0);
    account::add(&dir, "bob", &[]);
    let listed = list(&dir);
    let [ada, bob] = &*listed else { panic!("{listed:?}") };
    for (key, value) in [
        ("id", json!("17")),
        ("name", json!("ada")),
        ("roles", json!(["clerk", "admin"])),
        ("scopes", json!(["orders:read"])),
        ("attributes", json!({ "tenant": "acme" })),
        ("disabled", json!(false)),
        ("password", json!("argon2id:19456:2")),
    ] {
        assert_eq!(ada[key], value, "{key}");
    }
    assert_eq!(bob["id"], "bob");
    let text = good(&dir, &["user", "list"]).stdout;
    assert!(text.contains("clerk, admin") && text.lines().count() == 3, "{text}");

    // Without a terminal for the confirmation, no account is removed.
    ends(command(&dir, &["user", "remove", "ada"]), 2);
    assert_eq!(names(&dir), ["ada", "bob"]);
    good(&dir, &["user", "remove", "ADA", "--yes"]);
    assert_eq!(names(&dir), ["bob"]);
    refused(&dir, &["user", "remove", "ada", "--yes"], "no account \"ada\"");
    // The name can be used again. The id cannot, because other systems may still identify the old account by it.
    refused(&dir, &["user", "add", "ada", "--id", "17", "--password-stdin"], "--id");
    ends(command_with(&dir, &["user", "add", "ada", "--id", "18", "--password-stdin"], PASSWORD), 0);
}

#[test]
fn a_name_is_taken_however_it_is_spelled() {
    let dir = dir();
    account::add(&dir, "J\u{fc}rgen", &[]);
    assert_eq!(names(&dir), ["j\u{fc}rgen"]);
    for spelling in ["j\u{fc}rgen", "JU\u{308}RGEN", "\u{ff2a}\u{fc}rgen"] {
        refused(&dir, &["user", "add", spelling, "--password-stdin"], "exists");
    }
    refused(&dir, &["user", "add", "bob", "--id", "j\u{fc}rgen", "--password-stdin"], "has the id");
}

#[test]
fn impossible_fields_of_an_account_are_refused_by_name() {
    let dir = dir();
    let add = |more: &[&str], says: &str| {
        refused(&dir, &[&["user", "add", "--password-stdin"], more].concat(), says);
    };
    add(&["a b"], "U+0020");
    add(&["a\u{202e}b"], "U+202E");
    add(&["a\u{200b}"], "U+200B");
    add(&[""], "at least one character");
    add(&[&"a".repeat(129)], "129 bytes");
    add(&["ada", "--role", "a,b"], "cannot contain a comma");
    add(&["ada", "--role", ""], "empty role");
    add(&["ada", "--scope", "a\"b"], "visible ASCII");
    add(&["ada", "--id", "a\nb"], "U+000A");
    // An SQL injection attempt is just a name.
    ends(command_with(&dir, &["user", "add", "x';drop--", "--password-stdin"], PASSWORD), 0);
    assert_eq!(names(&dir), ["x';drop--"]);
}

#[test]
fn a_password_comes_from_standard_input_and_never_from_an_argument() {
    let dir = dir();
    ends(command(&dir, &["user", "add", "ada", "--password", "long enough"]), 2);
    // The process has no terminal to prompt on.
    let asked = ends(command(&dir, &["user", "add", "ada"]), 2);
    assert!(asked.stderr.contains("--password-stdin"), "{asked:?}");
    for (password, says) in [
        ("", "empty"),
        ("\n", "empty"),
        ("1234567\n", "7 characters"),
        ("two\nlines of it\n", "U+000A"),
        (&"a".repeat(2000), "at most 1024"),
    ] {
        let finished = ends(command_with(&dir, &["user", "add", "ada", "--password-stdin"], password), 1);
        assert!(finished.stderr.contains(says), "{finished:?}");
    }
    let own_name = command_with(&dir, &["user", "add", "margarethe", "--password-stdin"], "Margarethe\n");
    assert!(ends(own_name, 1).stderr.contains("user name"));
    assert_eq!(names(&dir), Vec::<String>::new());
}

#[test]
fn without_an_authority_there_are_no_accounts() {
    let dir = Dir::new();
    write_policy(&dir, ROUTES.replace("roles    = [\"clerk\"]", "access   = \"public\"").as_str());
    let finished = ends(command(&dir, &["user", "list"]), 1);
    assert!(finished.stderr.contains("[authority]"), "{finished:?}");
}

#[test]
fn other_roles_are_in_force_on_a_running_gateway() {
    let gateway = gateway();
    account::add(gateway.dir(), "ada", &["clerk"]);
    let pair = login(gateway.http(), "ada");
    assert_eq!(status(&gateway, &pair.access), 200);
    good(gateway.dir(), &["user", "set-roles", "ada", "guest"]);
    eventually("the token with the old roles is refused", || status(&gateway, &pair.access) == 401);
    let renewed = Pair::of(&try_refresh(gateway.http(), &pair.refresh));
    assert_eq!(status(&gateway, &renewed.access), 403);
    good(gateway.dir(), &["user", "set-roles", "ada", "guest", "clerk"]);
    assert_eq!(status(&gateway, &login(gateway.http(), "ada").access), 200);
    ends(command(gateway.dir(), &["user", "set-roles", "ada"]), 2);
    good(gateway.dir(), &["user", "set-roles", "ada", "--none"]);
    assert_eq!(list(gateway.dir())[0]["roles"], json!([]));
}

#[test]
fn another_password_ends_the_sessions_and_the_old_one_is_wrong() {
    let gateway = gateway();
    account::add(gateway.dir(), "ada", &["clerk"]);
    let pair = login(gateway.http(), "ada");
    let set = ["user", "set-password", "ada", "--password-stdin"];
    ends(command_with(gateway.dir(), &set, "another passphrase"), 0);
    eventually("the token of before is refused", || status(&gateway, &pair.access) == 401);
    assert_eq!(try_refresh(gateway.http(), &pair.refresh).status, 401);
    assert_eq!(try_login(gateway.http(), "ada", PASSWORD).status, 401);
    assert_eq!(try_login(gateway.http(), "ada", "another passphrase").status, 200);
    let nobody = ["user", "set-password", "bob", "--password-stdin"];
    refused(gateway.dir(), &nobody, "no account \"bob\"");
}

#[test]
fn nobody_logs_in_to_a_disabled_account_until_it_is_enabled() {
    let gateway = gateway();
    account::add(gateway.dir(), "ada", &["clerk"]);
    let pair = login(gateway.http(), "ada");
    good(gateway.dir(), &["user", "disable", "ada"]);
    eventually("the token is refused", || status(&gateway, &pair.access) == 401);
    try_login(gateway.http(), "ada", PASSWORD).is_refusal(401, "account_disabled");
    // Without the right password, a client does not learn that the account exists.
    try_login(gateway.http(), "ada", "wrong").is_refusal(401, "bad_credentials");
    good(gateway.dir(), &["user", "enable", "ada"]);
    assert_eq!(try_login(gateway.http(), "ada", PASSWORD).status, 200);
    assert_eq!(status(&gateway, &pair.access), 401);
}

#[test]
fn the_users_of_a_flask_application_log_in_as_before_and_their_hashes_are_replaced() {
    let gateway = gateway();
    let file = format!(
        "id,email,password_hash,active,roles,created_on\n\
         1,Ada@example.com,{SCRYPT},1,\"clerk,admin\",2019\n\
         2,bob@example.com,{PBKDF2},t,,2020\n\
         3,carol@example.com,{BCRYPT},true,clerk,2021\n\
         4,dave@example.com,{BCRYPT},0,clerk,2021\n"
    );
    let imported = ends(import(gateway.dir(), "users.csv", &file, &["--map", "username=email"]), 0);
    assert_eq!(summary(&imported)["added"], 4);
    assert!(imported.stderr.contains("ignored columns: created_on"), "{imported:?}");
    for (name, id) in [("ada@example.com", "1"), ("bob@example.com", "2"), ("carol@example.com", "3")] {
        assert_eq!(try_login(gateway.http(), name, "correct horsf").status, 401);
        let pair = Pair::of(&try_login(gateway.http(), name, IMPORTED));
        assert_eq!(pair.claims()["sub"], id);
    }
    assert_eq!(try_login(gateway.http(), "dave@example.com", IMPORTED).code(), "account_disabled");
    let listed = list(gateway.dir());
    let schemes: Vec<_> = listed.iter().map(|account| account["password"].as_str().unwrap()).collect();
    assert_eq!(schemes, ["argon2id:19456:2", "argon2id:19456:2", "argon2id:19456:2", "bcrypt:5"]);
    assert_eq!(listed[0]["roles"], json!(["clerk", "admin"]));
    // The imported hash is in use.
    assert_eq!(try_login(gateway.http(), "ada@example.com", IMPORTED).status, 200);
}

#[test]
fn every_faulty_line_is_reported_and_the_others_are_imported() {
    let dir = dir();
    let file = format!(
        "name;password_hash;roles\n\
         ada;{BCRYPT};clerk,admin\n\
         a b;{BCRYPT};\n\
         bob;hunter22;\n\
         carol;$2b$31$2rOa3rSbahuIvVVdyMgSwu4YB719RufZPWD8mhPulnNvclEZJBzMa;\n\
         \"dave\";\"\";\"two\nlines\"\n\
         erin;{BCRYPT}\n\
         frank;;\n\
         ADA;{BCRYPT};\n"
    );
    let imported = ends(import(&dir, "users.csv", &format!("\u{feff}{file}"), &[]), 1);
    for says in [
        "line 3: name: U+0020",
        "line 4: unknown kind",
        "line 5: password hash too costly",
        "line 6: role \"two\\nlines\"",
        "line 8: 2 values for 3 columns",
    ] {
        assert!(imported.stderr.contains(says), "{says}: {}", imported.stderr);
    }
    assert_eq!(
        summary(&imported),
        json!({ "dry_run": false, "added": 2, "updated": 0, "unchanged": 0, "skipped": 1, "faulty": 5,
                "without_password": 1 })
    );
    assert_eq!(names(&dir), ["ada", "frank"]);
    assert!(imported.stderr.lines().all(|line| !line.contains("hunter22")));
    for (content, says) in
        [("id,email\n1,a\n", "--map name=COLUMN"), ("name,name\na,b\n", "twice"), ("", "no column")]
    {
        let finished = ends(import(&dir, "other.csv", content, &[]), 1);
        assert!(finished.stderr.contains(says), "{finished:?}");
    }
    ends(command(&dir, &["user", "import", "users.txt"]), 2);
    ends(command(&dir, &["user", "import", "absent.csv"]), 1);
}

#[test]
fn json_lines_are_imported_from_standard_input_with_passwords_in_plain() {
    let gateway = gateway();
    let lines = format!(
        "{{\"name\":\"ada\",\"id\":1,\"password\":\"{PASSWORD}\",\"attributes\":{{\"level\":3}},\"roles\":[\"clerk\"]}}\n\
         \n\
         {{\"name\":\"bob\"\n\
         {{\"name\":\"carol\",\"password\":\"short\"}}\n\
         [1]\n\
         {{\"name\":\"dave\",\"id\":1}}\n"
    );
    let arguments = ["user", "import", "-", "--input", "jsonl"];
    let imported = ends(command_with(gateway.dir(), &arguments, &lines), 1);
    assert!(imported.stdout.contains("1 added, 4 faulty"), "{imported:?}");
    for says in [
        "line 3: not valid JSON",
        "line 4: the password has 5",
        "line 5: not a JSON object",
        "line 6: another",
    ] {
        assert!(imported.stderr.contains(says), "{says}: {}", imported.stderr);
    }
    assert_eq!(list(gateway.dir())[0]["attributes"], json!({ "level": 3 }));
    let pair = login(gateway.http(), "ada");
    assert_eq!(pair.claims()["sub"], "1");
}

#[test]
fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let dir = dir();
    account::add(&dir, "ada", &["clerk"]);
    let file = "name,roles,id\nada,admin,\nbob,clerk,\nBOB,admin,\ncarol,,ada\n";
    let dry = ends(import(&dir, "users.csv", file, &["--dry-run", "--update"]), 1);
    let reported = summary(&dry);
    assert_eq!((&reported["added"], &reported["updated"]), (&json!(1), &json!(1)), "{reported}");
    assert_eq!((&reported["skipped"], &reported["faulty"]), (&json!(1), &json!(1)), "{reported}");
    assert_eq!(names(&dir), ["ada"]);
    assert_eq!(list(&dir)[0]["roles"], json!(["clerk"]));
}

#[test]
fn an_update_changes_what_the_file_says_and_never_a_password() {
    let gateway = gateway();
    let dir = gateway.dir();
    account::add(dir, "ada", &["clerk"]);
    let pair = login(gateway.http(), "ada");
    let same = format!("name,roles,password_hash\nada,clerk,{BCRYPT}\n");
    // Existing accounts are skipped without `--update`.
    let other = same.replace("clerk", "admin");
    assert_eq!(summary(&ends(import(dir, "a.csv", &other, &[]), 0))["skipped"], 1);
    assert_eq!(summary(&ends(import(dir, "a.csv", &same, &["--update"]), 0))["unchanged"], 1);
    assert_eq!(status(&gateway, &pair.access), 200);
    assert_eq!(summary(&ends(import(dir, "a.csv", &other, &["--update"]), 0))["updated"], 1);
    assert_eq!(list(dir)[0]["roles"], json!(["admin"]));
    eventually("the token with the old roles is refused", || status(&gateway, &pair.access) == 401);
    assert_eq!(try_login(gateway.http(), "ada", PASSWORD).status, 200);
    let other_id = ends(import(dir, "a.csv", "name,id\nada,9\n", &["--update"]), 1);
    assert!(other_id.stderr.contains("cannot change"), "{other_id:?}");
    // With `--update`, an account without a password gets one.
    ends(import(dir, "b.csv", "name\nbob\n", &[]), 0);
    assert_eq!(try_login(gateway.http(), "bob", IMPORTED).status, 401);
    let with = format!("name,password_hash\nbob,{BCRYPT}\n");
    assert_eq!(summary(&ends(import(dir, "b.csv", &with, &["--update"]), 0))["updated"], 1);
    assert_eq!(try_login(gateway.http(), "bob", IMPORTED).status, 200);
}

#[test]
fn a_large_file_is_imported_in_batches_and_reports_as_it_goes() {
    let dir = dir();
    let mut file = "name,password_hash,roles\n".to_owned();
    for n in 0..10_100 {
        file.push_str(&format!("user{n:05},{BCRYPT},clerk\n"));
    }
    let imported = ends(import(&dir, "users.csv", &file, &[]), 0);
    assert_eq!(summary(&imported)["added"], 10_100);
    assert!(imported.stderr.contains("10000 lines"), "{imported:?}");
    let listed = names(&dir);
    assert_eq!(listed.len(), 10_100);
    assert!(listed.is_sorted());
}

#[test]
fn guessing_is_slowed_for_accounts_that_exist_and_for_those_that_do_not_alike() {
    // Test only the throttle. The default limit of an address would refuse some attempts of this client.
    let gateway = Portcullis::with(&format!("{AUTHORITY}limits = {{ login = [] }}\n{ROUTES}")).start();
    account::add(gateway.dir(), "ada", &["clerk"]);
    // On a slow machine, an attempt may take longer than the first wait of one second. The waits double, so a later
    // attempt still meets one.
    let guesses = |name: &str| -> Vec<_> {
        let mut answers = Vec::new();
        while answers.len() < 12 && answers.last().is_none_or(|last: &Answer| last.status == 401) {
            answers.push(try_login(gateway.http(), name, "a wrong one"));
        }
        answers
    };
    let (of_ada, of_nobody) = (guesses("ada"), guesses("nobody"));
    for answers in [&of_ada, &of_nobody] {
        let (last, before) = answers.split_last().unwrap();
        assert!(before.len() >= 5, "five attempts are free");
        assert!(before.iter().all(|answer| answer.code() == "bad_credentials"));
        assert_eq!((last.status, &*last.code()), (429, "too_many_attempts"));
        let wait: u64 = last.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=1 << (before.len() - 5)).contains(&wait), "{wait} s after {}", before.len());
    }
    // The correct password must wait too, because the answer would otherwise reveal it.
    eventually("it may be tried again", || try_login(gateway.http(), "ada", PASSWORD).status == 200);
    // The address is now known to the account, and the login has cleared its earlier wrong attempts.
    assert!(guesses("ada").iter().filter(|answer| answer.status == 401).count() >= 5);
}
