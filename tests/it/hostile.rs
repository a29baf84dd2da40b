//! Hostile policies. Each is refused with one clear line, within a command's time limit and two gigabytes of memory.

use crate::kit::dir::Dir;
use crate::kit::portcullis::{Finished, command_bounded, write_policy};
use crate::kit::{ISSUER, Portcullis, Request, Upstream, eventually, token};
use std::fmt::Write;
use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::mpsc;

/// Returns the faults that `check` and `run` print for a policy. Both must print the same faults.
#[track_caller]
fn refused(dir: &Dir, policy: &str) -> Vec<String> {
    let check = command_bounded(dir, &["check", "--config", policy], &[]);
    let start = command_bounded(dir, &["run", "--config", policy], &[]);
    assert_eq!((check.code, start.code), (Some(1), Some(1)), "{check:?}\n{start:?}");
    // Keep only the faults, without their explanations.
    let lines = |text: &str| -> Vec<String> {
        let faults = text.lines().filter(|line| !line.contains(": warning: "));
        faults.map(|line| line.split(" [portcullis help ").next().unwrap_or(line).to_owned()).collect()
    };
    let (mut said, mut started) = (lines(&check.stdout), lines(&start.stderr));
    let verdict = said.pop().unwrap_or_default();
    assert!(verdict.contains(": refused: "), "{check:?}");
    assert!(started.pop().is_some_and(|line| line.ends_with("the policy is not served")), "{start:?}");
    assert_eq!(said, started);
    assert!(said.iter().all(|line| line.len() < 2000), "{said:?}");
    said
}

/// Returns the only fault of a policy with these bytes.
#[track_caller]
fn one_fault(content: impl AsRef<[u8]>) -> String {
    let dir = Dir::new();
    dir.write("gateway.toml", content);
    let said = refused(&dir, "gateway.toml");
    let [fault] = said.as_slice() else { panic!("one fault: {said:#?}") };
    fault.clone()
}

fn checked(content: impl AsRef<[u8]>) -> Finished {
    let dir = Dir::new();
    dir.write("gateway.toml", content);
    command_bounded(&dir, &["check"], &[])
}

const ECHO: &str = "[upstream.echo]\nbuiltin = \"echo\"\n";

fn route(path: &str) -> String {
    format!("[[route]]\npath = \"{path}\"\nupstream = \"echo\"\naccess = \"public\"\n")
}

#[test]
fn a_path_that_is_not_a_file_is_refused_by_its_kind() {
    let dir = Dir::new();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("folder")).unwrap();
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let _socket = UnixListener::bind(at("socket")).unwrap();
    symlink("loop", at("loop")).unwrap();
    symlink("pipe", at("link")).unwrap();
    for (policy, says) in [
        ("folder", "a directory, not a file"),
        ("pipe", "a pipe, not a file"),
        ("link", "a pipe, not a file"),
        ("socket", "a socket, not a file"),
        ("/dev/zero", "a device, not a file"),
        ("/dev/tty", "a device, not a file"),
        ("loop", "symbolic link"),
        ("absent", "No such file"),
        ("gateway.toml/x", "No such file"),
    ] {
        let said = refused(&dir, policy);
        assert!(said.len() == 1 && said[0].contains(says), "{policy}: {said:?}");
        assert!(said[0].starts_with(&format!("{policy}: ")), "{policy}: {said:?}");
    }
}

#[test]
fn a_file_that_may_not_be_read_is_refused() {
    let dir = Dir::new();
    dir.write("gateway.toml", format!("{ECHO}{}", route("/")));
    let path = dir.path().join("gateway.toml");
    std::fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    if File::open(&path).is_ok() {
        // The user of this test may read every file, as root may.
        return;
    }
    let said = refused(&dir, "gateway.toml");
    assert!(said.len() == 1 && said[0].contains("Permission denied"), "{said:?}");
}

#[test]
fn the_other_files_of_a_policy_are_not_waited_for_either() {
    let dir = Dir::new();
    for name in ["jwks.json", "secret", "ca.pem"] {
        assert!(Command::new("mkfifo").arg(dir.path().join(name)).status().unwrap().success());
    }
    let issuer = |key: &str| {
        format!("[[issuer]]\nissuer = \"https://i/\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]\n{key}\n")
    };
    for (tables, name) in [
        (issuer("jwks = \"jwks.json\""), "jwks.json"),
        (issuer("secret = \"file:secret\""), "secret"),
        ("[upstream.tls]\nservers = [\"https://h\"]\nca = \"ca.pem\"\n".to_owned(), "ca.pem"),
    ] {
        dir.write("gateway.toml", format!("{tables}{ECHO}{}", route("/")));
        let said = refused(&dir, "gateway.toml");
        let fault = said.iter().find(|line| line.contains(name)).expect(name);
        assert!(fault.contains("a pipe, not a file"), "{said:?}");
    }
}

#[test]
fn text_that_is_no_policy_is_refused_at_its_place() {
    let utf16: Vec<u8> = "[server]".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let deep = |open: &str, close: &str| format!("a = {}{}", open.repeat(100_000), close.repeat(100_000));
    for (content, says) in [
        (b"".to_vec(), "no [[route]]"),
        (b"[server]\nhttp = \"\xff\"\n".to_vec(), "gateway.toml:2:9: fault: not UTF-8 at byte 17"),
        (b"\xff\xfe".iter().copied().chain(utf16).collect(), "gateway.toml:1:1: fault: not UTF-8"),
        (b"[server]\nhttp = \"a\0b\"\n".to_vec(), "gateway.toml:2:"),
        (vec![0; 1 << 20], "gateway.toml:1:1: "),
        (vec![b'a'; 10 << 20], "gateway.toml:1:"),
        (vec![b'\n'; 10 << 20], "no [[route]]"),
        (deep("[", "]").into(), "gateway.toml:1:21: fault: nested deeper than any key"),
        (deep("{a=", "}").into(), "nested deeper than any key"),
        (format!("[{}]", ["a"; 100_000].join(".")).into(), "gateway.toml:1:"),
        (
            format!("[server]\n{} = 1\n", "k".repeat(1 << 20)).into(),
            "gateway.toml:2:1: fault: a key of 1048576 bytes",
        ),
        (format!("[server]\n\"{}\" = 1\n", "\\n".repeat(1 << 20)).into(), "a key of 1048576 bytes"),
        (format!("[server]\nworkers = {}\n", "9".repeat(1 << 20)).into(), "gateway.toml:2:"),
        (vec![b'#'; 17 << 20], "larger than 16MiB"),
        ("[[route]]\n".repeat(1_600_000).into(), "keys, tables and list elements"),
        (format!("a = [{}]", "1,".repeat(5_000_000)).into(), "keys, tables and list elements"),
    ] {
        let fault = one_fault(&content);
        assert!(fault.starts_with("gateway.toml:") && fault.contains(says), "{says}: {fault}");
    }
}

#[test]
fn a_file_that_is_far_too_large_is_not_read_to_know_it() {
    let dir = Dir::new();
    File::create(dir.path().join("gateway.toml")).unwrap().set_len(1 << 40).unwrap();
    let said = refused(&dir, "gateway.toml");
    assert_eq!(said, ["gateway.toml: fault: larger than 16MiB; help: use a smaller file"]);
}

#[test]
fn the_spellings_of_other_systems_are_read() {
    let text = format!("{ECHO}{}[server]\nhtps = \"\"\n", route("/"));
    let plain = one_fault(&text);
    assert!(plain.starts_with("gateway.toml:8:1: fault: server.htps: unknown key"), "{plain}");
    assert_eq!(one_fault(text.replace('\n', "\r\n")), plain);
    assert_eq!(one_fault(format!("\u{feff}{text}")), plain);
    let good = format!("\u{feff}{ECHO}{}", route("/")).replace('\n', "\r\n");
    assert_eq!(checked(good).code, Some(0));
}

#[test]
fn of_thousands_of_faults_a_hundred_are_reported() {
    let wrong_route = |index: usize| format!("[[route]]\npath = \"/{index}\"\nupstraem = \"echo\"\n");
    let unnamed = |index: usize| route(&format!("/{index}")).replace("\"echo\"", "\"none\"");
    let all = |one: &dyn Fn(usize) -> String| (0..20_000).map(one).collect::<String>();
    for (name, text, reported) in [
        ("unknown keys of one table", format!("[server]\n{}", all(&|index| format!("k{index} = 1\n"))), 1),
        ("an unknown key of each route", all(&wrong_route), 1),
        (
            "wrong elements of one list",
            format!("[server]\ntrusted_proxies = [{}]", "\"x\",".repeat(20_000)),
            1,
        ),
        ("unknown tables", all(&|index| format!("[t{index}]\n")), 1),
        ("routes to nowhere", all(&unnamed), 19_900),
        ("one route, often", route("/").repeat(20_000), 39_898),
    ] {
        let dir = Dir::new();
        dir.write("gateway.toml", format!("{ECHO}{text}"));
        let said = refused(&dir, "gateway.toml");
        assert_eq!(said.len(), 101, "{name}: {:#?}", &said[..said.len().min(3)]);
        let (last, rest) = said.split_last().unwrap();
        assert!(rest.iter().all(|line| line.starts_with("gateway.toml:")), "{name}: {rest:#?}");
        let more =
            if reported == 1 { "more than 100 faults".to_owned() } else { format!("{reported} more faults") };
        assert!(last.starts_with(&format!("gateway.toml: {more}; ")), "{name}: {last}");
    }
}

#[test]
fn of_thousands_of_names_a_few_are_listed() {
    let upstreams: String = (0..20_000).fold(String::new(), |mut text, index| {
        let _ = writeln!(text, "[upstream.u{index}]\nbuiltin = \"echo\"");
        text
    });
    let fault = one_fault(format!("{upstreams}{}", route("/")));
    assert!(fault.contains("no upstream named \"echo\"") && fault.ends_with("and 19980 more"), "{fault}");
}

#[test]
fn the_tables_of_a_policy_are_bounded() {
    let mut claims = String::new();
    let mut limits = String::new();
    for index in 0..1001 {
        let _ = writeln!(claims, "c{index} = 1");
        let _ = writeln!(limits, "[rate_limit.l{index}]\nrate = \"1/s\"");
    }
    let guarded = route("/").replace("access = \"public\"\n", "");
    let issuer = "[authority]\nissuer = \"https://a/\"\naudience = [\"a\"]\n";
    let verbs = (0..101).fold(String::new(), |all, index| {
        all + &route(&format!("/{index}")) + &format!("methods = [\"M{index}\"]\n")
    });
    let methods = (0..65).map(|index| format!("\"M{index}\",")).collect::<String>();
    for (text, says) in [
        (format!("{issuer}{ECHO}{guarded}[route.claims]\n{claims}"), "1001 different claims"),
        (format!("{limits}{ECHO}{}", route("/")), "1001 rate limits"),
        (format!("{ECHO}{}methods = [{methods}]\n", route("/")), "a list of 65 methods"),
        (format!("{ECHO}{verbs}"), "101 different methods"),
    ] {
        let fault = one_fault(text);
        assert!(fault.contains(says) && fault.contains("at most"), "{fault}");
    }
}

#[test]
fn an_environment_of_thousands_is_refused_in_bounded_lines() {
    let dir = Dir::new();
    write_policy(&dir, &format!("{ECHO}{}", route("/")));
    let check = |environment: &[(String, String)]| {
        let check = command_bounded(&dir, &["check"], environment);
        assert_eq!(check.code, Some(1), "{check:?}");
        let faults = check.stdout.lines().filter(|line| !line.contains(": warning: "));
        faults.map(str::to_owned).collect::<Vec<_>>()
    };
    let many: Vec<_> = (0..5000).map(|n| (format!("PORTCULLIS_UPSTREAM__U{n}__X"), "1".to_owned())).collect();
    let said = check(&many).join("\n");
    assert!(said.contains("one of 5000 variables that begin with PORTCULLIS_"), "{said}");
    assert!(said.lines().count() < 210, "{said}");

    let list = "a list that is not a TOML value";
    for (huge, found) in [
        ("[".repeat(100_000), list),
        ("[1,".repeat(30_000), list),
        ("{a=".repeat(30_000), "log.level: "),
        ("x".repeat(100_000), "log.level: "),
    ] {
        let said = check(&[("PORTCULLIS_LOG__LEVEL".to_owned(), huge)]);
        assert_eq!(said.len(), 2, "{said:?}");
        let begins = format!("environment variable PORTCULLIS_LOG__LEVEL: fault: {found}");
        assert!(said[0].starts_with(&begins) && said[0].len() < 1000, "{said:?}");
    }
}

#[test]
fn a_file_that_never_rests_is_refused_and_one_that_does_is_read() {
    let dir = Dir::new();
    // The file is so long that two reads cannot happen between two writes.
    let last = "0".repeat(20);
    dir.write("gateway.toml", format!("{ECHO}{}{}#{last}", route("/"), "#\n".repeat(4 << 20)));
    let file = OpenOptions::new().write(true).open(dir.path().join("gateway.toml")).unwrap();
    let end = file.metadata().unwrap().len() - last.len() as u64;
    let (stop, stopped) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // No two readings agree by chance, because no number is written twice.
            for number in 1_u64.. {
                file.write_all_at(format!("{number:020}").as_bytes(), end).unwrap();
                if stopped.try_recv() == Err(mpsc::TryRecvError::Disconnected) {
                    break;
                }
            }
        });
        // `_stop` is dropped at the end of this block, even after a panic, so that the writer stops.
        let _stop = stop;
        // On a busy machine, the writer may pause for as long as two reads take.
        eventually("a reading meets the writer", || {
            let check = command_bounded(&dir, &["check"], &[]);
            let is_reported = check.stdout.contains("gateway.toml: fault: changes while it is read");
            assert_eq!(check.code, Some(i32::from(is_reported)), "{check:?}");
            is_reported
        });
    });
    assert_eq!(command_bounded(&dir, &["check"], &[]).code, Some(0));
}

#[test]
fn ten_thousand_routes_are_served_each_as_it_says() {
    let upstream = Upstream::start();
    let mut policy = format!("{ISSUER}[upstream.app]\nservers = [\"{upstream}\"]\n");
    for index in 0..1000 {
        let _ = writeln!(policy, "[rate_limit.l{index}]\nrate = \"1/h\"");
    }
    for index in 0..10_000 {
        let guard = match index % 10 {
            9 => format!("roles = [\"r{index}\"]\nclaims = {{ tenant = \"{{tenant}}\" }}"),
            _ => "access = \"public\"".to_owned(),
        };
        let _ = writeln!(
            policy,
            "[[route]]\nhost = \"h{index}.example\"\npath = \"/{index}/{{tenant}}\"\nupstream = \"app\"\n{guard}\n\
             rate_limits = [\"l{}\"]",
            index % 1000
        );
    }
    let gateway = Portcullis::with(&policy).start();
    let ask = |host: usize, path: usize, role: usize| {
        let token = token("ann").role(&format!("r{role}")).claim("tenant", "acme".into()).sign();
        let request = Request::get(&format!("/{path}/acme")).host(&format!("h{host}.example"));
        request.bearer(token).to(gateway.http()).status
    };
    assert_eq!(ask(0, 0, 0), 200);
    assert_eq!(ask(9_999, 9_999, 9_999), 200);
    assert_eq!(ask(9_989, 9_989, 9_999), 403);
    assert_eq!(ask(9_989, 9_999, 9_999), 404);
    // The limit of route 9,999 also applies to route 999.
    assert_eq!(ask(999, 999, 999), 429);
    // The policy has ten thousand routes, and requests have used four of them.
    let metrics = Request::get("/metrics").to(gateway.admin());
    assert!(metrics.is(200).body.len() < 6 << 20, "{}", metrics.body.len());
    assert_eq!(metrics.text().matches("portcullis_request_duration_seconds_count{").count(), 4);
    assert!(gateway.peak_memory() < 600 << 20, "{}", gateway.peak_memory());
}

#[test]
fn serving_continues_when_another_kind_of_file_replaces_the_policy() {
    let policy = format!("{ISSUER}{ECHO}{}", route("/served"));
    let gateway = Portcullis::with(&policy).start();
    let dir = gateway.dir();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("folder")).unwrap();
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    dir.write("bytes", [0xff, 0xfe, b'=', b'1']);
    dir.write("large", vec![b'#'; 17 << 20]);
    dir.write("deep", "a = [".repeat(10_000));
    dir.write("routes", format!("{ECHO}{}", route("/x").repeat(90_000)));
    for (target, says) in [
        ("folder", "a directory, not a file"),
        ("pipe", "a pipe, not a file"),
        ("/dev/zero", "a device, not a file"),
        ("absent", "No such file"),
        ("bytes", "not UTF-8"),
        ("large", "16MiB"),
        ("deep", "nested"),
        ("routes", "more_findings"),
    ] {
        symlink(target, at("link")).unwrap();
        std::fs::rename(at("link"), at("gateway.toml")).unwrap();
        let answer = Request::new("POST", "/reload").host("localhost").to(gateway.admin());
        assert_eq!(answer.status, 422, "{target}: {answer:#?}");
        let reported = answer.json()["diagnostics"].to_string();
        assert!(reported.contains(says), "{target}: {}", &reported[..reported.len().min(2000)]);
        Request::get("/served").to(gateway.http()).is(200);
    }
    assert!(gateway.peak_memory() < 1 << 30, "{} bytes", gateway.peak_memory());
    std::fs::remove_file(at("gateway.toml")).unwrap();
    write_policy(dir, &format!("{ISSUER}{ECHO}{}", route("/next")));
    Request::new("POST", "/reload").host("localhost").to(gateway.admin()).is(200);
    Request::get("/next").to(gateway.http()).is(200);
}
