//! Routes that serve the files of a folder.

use crate::kit::client::Connection;
use crate::kit::dir::Dir;
use crate::kit::forge::{issuer_without_leeway, now};
use crate::kit::portcullis::command;
use crate::kit::{Portcullis, Request, Upstream, eventually, token};
use crate::policy;
use serde_json::json;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::rc::Rc;
use std::{fs, path::Path};

const ROUTES: &str = "
[policy]
security_headers = \"add\"

[[route]]
path         = \"/docs/{*rest}\"
files        = \"site\"
strip_prefix = \"/docs\"

[[route]]
path     = \"/open/{*rest}\"
files    = \"site\"
strip_prefix = \"/open\"
access   = \"public\"
compress = \"gzip\"
set_response_headers = { \"Cache-Control\" = \"max-age=60\" }
";

fn site(root: &Path) {
    fs::create_dir_all(root.join("site/sub")).unwrap();
    let write = |path: &str, text: &str| fs::write(root.join(path), text).unwrap();
    write("site/index.html", "<h1>docs</h1>");
    write("site/sub/index.html", "<h1>sub</h1>");
    write("site/a b.css", "body {}");
    write("site/big.txt", &"0123456789".repeat(1000));
    write("site/.env", "SECRET");
    fs::create_dir_all(root.join("site/empty")).unwrap();
    write("outside.txt", "OUTSIDE");
    symlink(root.join("outside.txt"), root.join("site/out.txt")).unwrap();
    symlink(root, root.join("site/up")).unwrap();
    symlink("big.txt", root.join("site/in.txt")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(root.join("site/pipe")).status().unwrap();
    assert!(pipe.success());
}

fn started() -> (Upstream, Portcullis) {
    let upstream = Upstream::start();
    let plain = "[[route]]\npath = \"/api\"\nupstream = \"app\"\n";
    let dir = Rc::new(Dir::new());
    site(dir.path());
    let gateway = Portcullis::with(&policy(&upstream, &format!("{ROUTES}{plain}"))).within(dir).start();
    (upstream, gateway)
}

#[test]
fn files_behind_a_login_have_their_type_and_stay_private() {
    let (upstream, gateway) = started();
    Request::get("/docs/index.html").to(gateway.http()).is_refusal(401, "missing_token");
    let get = |path: &str| Request::get(path).bearer(token("ada")).to(gateway.http());
    let page = get("/docs/");
    page.is(200);
    assert_eq!(page.text(), "<h1>docs</h1>");
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "private, no-cache"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "SAMEORIGIN"),
        ("content-length", "13"),
    ] {
        assert_eq!(page.header(name), Some(value), "{page:#?}");
    }
    let folder = get("/docs/sub?x=1");
    assert_eq!((folder.status, folder.header("location")), (308, Some("/docs/sub/?x=1")), "{folder:#?}");
    assert_eq!(get("/docs/sub/").text(), "<h1>sub</h1>");
    assert_eq!(get("/docs/a%20b.css").text(), "body {}");
    assert_eq!(get("/docs/in.txt").body.len(), 10_000, "a link within the folder");
    for (path, answer) in [("/docs/", &page), ("/docs/in.txt", &get("/docs/in.txt"))] {
        assert_eq!(gateway.access_line(answer)["complete"], true, "{path}");
    }
    for path in [
        "/docs/none",
        "/docs/.env",
        "/docs/%2eenv",
        "/docs/empty",
        "/docs/empty/",
        "/docs/out.txt",
        "/docs/up/outside.txt",
        "/docs/pipe",
        "/docs/big.txt/",
        "/docs/up/site/.env",
    ] {
        let answer = get(path);
        answer.is_refusal(404, "not_found");
        assert!(!answer.text().contains("SECRET") && !answer.text().contains("OUTSIDE"), "{path}");
    }
    for path in ["/docs/../outside.txt", "/docs/..%2foutside.txt", "/docs//index.html", "/docs/sub/..%5c"] {
        assert!(get(path).status >= 400, "{path}");
    }
    let post = Request::post("/docs/", "x").bearer(token("ada")).to(gateway.http());
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")), "{post:#?}");
    upstream.saw_nothing();
}

#[test]
fn ranges_conditions_and_compression() {
    let (_upstream, gateway) = started();
    let get = || Request::get("/open/big.txt");
    let whole = get().to(gateway.http());
    let tag = whole.header("etag").expect("an entity tag").to_owned();
    assert_eq!((whole.body.len(), whole.header("cache-control")), (10_000, Some("max-age=60")), "{whole:#?}");
    let range = || get().header("Range", "bytes=10-14");
    let part = range().to(gateway.http());
    assert_eq!((part.status, &*part.text()), (206, "01234"));
    assert_eq!(part.header("content-range"), Some("bytes 10-14/10000"));
    for (validator, status) in [(&*tag, 206), ("\"other\"", 200), ("Sun, 29 Nov 2026 12:00:00 GMT", 200)] {
        assert_eq!(range().header("If-Range", validator).to(gateway.http()).status, status, "{validator}");
    }
    assert_eq!(get().header("Range", "bytes=0-1,5-6").to(gateway.http()).status, 200);
    assert_eq!(get().header("Range", "bytes=20000-").to(gateway.http()).status, 416);
    assert_eq!(get().header("If-None-Match", &tag).to(gateway.http()).status, 304);
    assert_eq!(get().header("If-Match", "\"other\"").to(gateway.http()).status, 412);
    // RFC 9110 section 5.3: several fields are one list.
    let two = |name: &str, one: &str, other: &str| {
        get().header(name, one).header(name, other).to(gateway.http()).status
    };
    assert_eq!(two("If-None-Match", "\"other\"", &tag), 304);
    assert_eq!(two("If-None-Match", "\"other\"", "\"another\""), 200);
    assert_eq!(two("If-Match", "\"other\"", &tag), 200);
    assert_eq!(two("If-Match", "\"other\"", "\"another\""), 412);
    // These fields have one value. A second one makes them invalid, and an invalid one has no effect.
    let (old, new) = ("Sat, 29 Oct 1994 19:43:31 GMT", "Sat, 29 Oct 2095 19:43:31 GMT");
    assert_eq!(get().header("If-Modified-Since", new).to(gateway.http()).status, 304);
    assert_eq!(two("If-Modified-Since", new, old), 200);
    assert_eq!(get().header("If-Unmodified-Since", old).to(gateway.http()).status, 412);
    assert_eq!(two("If-Unmodified-Since", old, new), 200);
    assert_eq!(two("Range", "bytes=0-1", "bytes=5-6"), 200);
    let other = range().header("If-Range", &tag).header("If-Range", "\"other\"").to(gateway.http());
    assert_eq!(other.status, 200);
    let head = Request::new("HEAD", "/open/big.txt").to(gateway.http());
    assert_eq!((head.status, head.header("content-length")), (200, Some("10000")), "{head:#?}");
    let packed = get().header("Accept-Encoding", "gzip").to(gateway.http());
    assert_eq!(packed.header("content-encoding"), Some("gzip"), "{packed:#?}");
    assert_eq!(packed.header("etag"), Some(&*format!("W/{tag}")));
    assert!(packed.body.len() < 1000 && packed.complete);
    let part = range().header("Accept-Encoding", "gzip").to(gateway.http());
    assert_eq!((part.status, part.header("content-encoding")), (206, None), "{part:#?}");
}

#[test]
fn what_the_policy_names_is_not_served_although_it_comes_later() {
    let upstream = Upstream::start();
    let keys = "[upstream.signed]\nservers = [\"http://127.0.0.1:9\"]\nidentity_secret = \"file:own.secret\"\n\
                [identity]\nsignature = \"X-Auth-Signature\"\n[state]\ndir = \"late\"\n";
    let dir = Rc::new(Dir::new());
    site(dir.path());
    dir.write("own.secret", "k7Qz1k8Wv3Jq0ZpLmX2v5T9rY4uB6nHc");
    dir.set_mode("own.secret", 0o600);
    let gateway =
        Portcullis::with(&policy(&upstream, &format!("{keys}{ROUTES}"))).within(dir.clone()).start();
    let get = |path: &str| Request::get(path).to(gateway.http());
    let at = |path: &str| dir.path().join(path);
    get("/open/big.txt").is(200);
    // The state folder is created, and is a folder of the site.
    fs::create_dir_all(at("site/state/keys")).unwrap();
    fs::create_dir_all(at("site/other/keys")).unwrap();
    dir.write("site/state/keys/key.pem", "SECRET");
    dir.write("site/other/keys/key.pem", "public");
    get("/open/state/keys/key.pem").is(200);
    symlink("site/state", at("late")).unwrap();
    get("/open/state/keys/key.pem").is_refusal(404, "not_found");
    get("/open/other/keys/key.pem").is(200);
    // Other names of files that the policy names.
    for file in ["gateway.toml", "own.secret"] {
        fs::hard_link(at(file), at("site/copy.txt")).unwrap();
        get("/open/copy.txt").is_refusal(404, "not_found");
        fs::remove_file(at("site/copy.txt")).unwrap();
    }
    let link = fs::hard_link(at("outside.txt"), at("site/copy.txt"));
    link.unwrap();
    assert_eq!(get("/open/copy.txt").is(200).text(), "OUTSIDE");
    // A folder that is not mounted any more is an outage, and not a site without pages.
    let folder = at("site").canonicalize().unwrap();
    fs::rename(at("site"), at("moved")).unwrap();
    let lost = get("/open/big.txt");
    lost.is_refusal(502, "upstream_failed");
    let detail = gateway.access_line(&lost)["detail"].to_string();
    assert!(detail.contains(folder.to_str().unwrap()) && detail.contains("mount it again"), "{detail}");
    fs::rename(at("moved"), at("site")).unwrap();
    get("/open/none.txt").is_refusal(404, "not_found");
    // If the gateway cannot know what it must not serve, it serves nothing.
    fs::remove_file(at("late")).unwrap();
    symlink("late", at("late")).unwrap();
    get("/open/big.txt").is_refusal(502, "upstream_failed");
    fs::remove_file(at("late")).unwrap();
    get("/open/big.txt").is(200);
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_neither_cut_off_in_silence_nor_longer_than_announced() {
    const LENGTH: u64 = 32 << 20;
    let (_upstream, gateway) = started();
    let large = gateway.dir().path().join("site/large.bin");
    let written = || fs::OpenOptions::new().create(true).append(true).open(&large).unwrap();
    for (path, length) in [("/open/large.bin", LENGTH), ("/docs/large.bin", LENGTH)] {
        let request = || Request::get(path).bearer(token("ada"));
        written().set_len(length).unwrap();
        let mut client = Connection::open(gateway.http());
        client.send(request().bytes());
        let head = client.read_head().unwrap();
        assert_eq!(head.header("content-length"), Some(&*length.to_string()), "{head:#?}");
        written().write_all(b"and more").unwrap();
        let length = usize::try_from(length).unwrap();
        assert_eq!(client.skip(length), length);
        // The connection is in order: the next answer follows.
        Request::get("/open/index.html").over(&mut client).is(200);

        client.send(request().bytes());
        client.read_head().unwrap();
        written().set_len(1 << 20).unwrap();
        assert!(client.skip(length) < length, "the rest is gone");
        client.is_closed();
    }
    let cut = "the file could not be read to its end: the file became shorter meanwhile";
    gateway.wait_log("the reason", |line| line["detail"] == cut || line["cut"] == cut);
}

#[test]
fn ranges_follow_the_standard() {
    let (_upstream, gateway) = started();
    let get = |range: &str| Request::get("/open/big.txt").header("Range", range);
    for (range, status, length, content) in [
        ("bytes=0-0", 206, 1, "bytes 0-0/10000"),
        ("bytes=9998-20000", 206, 2, "bytes 9998-9999/10000"),
        ("bytes=-3", 206, 3, "bytes 9997-9999/10000"),
        ("bytes=-10000", 206, 10_000, "bytes 0-9999/10000"),
        // The last bytes of a shorter file are the file.
        ("bytes=-10001", 200, 10_000, ""),
        ("bytes=10000-", 416, 0, "bytes */10000"),
        ("bytes=-0", 416, 0, "bytes */10000"),
        ("bytes=5-4", 416, 0, "bytes */10000"),
        ("bytes=x", 416, 0, "bytes */10000"),
        ("bytes=18446744073709551616-", 416, 0, "bytes */10000"),
        ("bytes=18446744073709551615-", 416, 0, "bytes */10000"),
        // Several ranges, and other units, are ignored.
        ("bytes=0-0,2-2", 200, 10_000, ""),
        ("bytes=0-,0-,0-,0-,0-,0-,0-,0-", 200, 10_000, ""),
        ("items=0-1", 200, 10_000, ""),
    ] {
        let answer = get(range).to(gateway.http());
        let found = (answer.status, answer.body.len(), answer.header("content-range").unwrap_or_default());
        assert_eq!(found, (status, length, content), "{range}: {answer:#?}");
        assert_eq!(answer.header("content-length"), Some(&*length.to_string()), "{range}");
    }
    let twice = get("bytes=0-0").header("Range", "bytes=5-6").to(gateway.http());
    assert_eq!((twice.status, twice.body.len()), (200, 10_000));
    let head = Request::new("HEAD", "/open/big.txt").header("Range", "bytes=0-0").to(gateway.http());
    assert_eq!((head.status, head.header("content-length")), (200, Some("10000")), "{head:#?}");
    let tag = head.header("etag").unwrap().to_owned();
    let conditional = |validators: &[&str]| {
        let request = get("bytes=0-0");
        let request = validators.iter().fold(request, |request, value| request.header("If-Range", value));
        request.to(gateway.http()).status
    };
    assert_eq!(conditional(&[&tag]), 206);
    assert_eq!(conditional(&[&tag, "\"other\""]), 200, "two validators");
    assert_eq!(conditional(&[&format!("W/{tag}")]), 200, "a weak validator");
    fs::write(gateway.dir().path().join("site/big.txt"), "another version").unwrap();
    assert_eq!(conditional(&[&tag]), 200, "of another version");
    fs::write(gateway.dir().path().join("site/big.txt"), "").unwrap();
    for range in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
        let answer = get(range).to(gateway.http());
        assert_eq!((answer.status, answer.header("content-range")), (200, None), "{range}: it is ignored");
    }
}

#[test]
fn links_in_a_circle_and_sockets_are_missing_files() {
    let (_upstream, gateway) = started();
    let at = |name: &str| gateway.dir().path().join("site").join(name);
    symlink("one", at("two")).unwrap();
    symlink("two", at("one")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    fs::create_dir(at("odd")).unwrap();
    symlink("../pipe", at("odd/index.html")).unwrap();
    let long = format!("/open/{}", "x".repeat(300));
    for path in ["/open/one", "/open/one/a", "/open/socket", "/open/odd/", "/open/odd", &long] {
        Request::get(path).to(gateway.http()).is_refusal(404, "not_found");
    }
}

#[test]
fn a_folder_with_a_file_that_the_policy_names_is_a_fault() {
    let dir = Dir::new();
    fs::create_dir_all(dir.path().join("site/public")).unwrap();
    dir.write("site/own.secret", "k7Qz1k8Wv3Jq0ZpLmX2v5T9rY4uB6nHc");
    dir.set_mode("site/own.secret", 0o600);
    dir.write("far.secret", "k7Qz1k8Wv3Jq0ZpLmX2v5T9rY4uB6nHc");
    dir.set_mode("far.secret", 0o600);
    symlink("site/own.secret", dir.path().join("link.secret")).unwrap();
    let check = |file: &str, keys: &str| {
        let route = "[[route]]\npath = \"/{*rest}\"\naccess = \"public\"\nfiles = \"site\"\n";
        dir.replace(file, format!("{keys}\n{route}"));
        command(&dir, &["check", "--config", "link.toml"])
    };
    symlink("gateway.toml", dir.path().join("link.toml")).unwrap();
    let secret = |path: &str| {
        format!("[upstream.a]\nservers = [\"http://127.0.0.1:9\"]\nidentity_secret = \"file:{path}\"")
    };
    for (keys, is_fault) in [
        (secret("far.secret"), false),
        (secret("site/own.secret"), true),
        (secret("link.secret"), true),
        ("[state]\ndir = \"site/later/state\"".to_owned(), true),
        ("[state]\ndir = \"sitelater/state\"".to_owned(), false),
        ("[state]\ndir = \"site/../site/public\"".to_owned(), true),
    ] {
        let checked = check("gateway.toml", &keys);
        assert_eq!(checked.text().contains("bad_file"), is_fault, "{keys}: {}", checked.text());
    }
    let inside = check("gateway.toml", "[state]\ndir = \"state\"");
    assert!(!inside.text().contains("bad_file"), "{}", inside.text());
    fs::create_dir_all(dir.path().join("state/site")).unwrap();
    dir.replace("gateway.toml", inside_state());
    let inside = command(&dir, &["check", "--config", "link.toml"]).text();
    assert!(inside.contains("bad_file"), "{inside}");
    // The policy file itself, through a link.
    fs::remove_file(dir.path().join("link.toml")).unwrap();
    symlink("site/gateway.toml", dir.path().join("link.toml")).unwrap();
    let checked = check("site/gateway.toml", "");
    assert!(checked.text().contains("bad_file"), "{}", checked.text());
}

fn inside_state() -> String {
    "[state]\ndir = \"state\"\n[[route]]\npath = \"/{*rest}\"\naccess = \"public\"\nfiles = \"state/site\"\n"
        .to_owned()
}

#[test]
fn a_folder_with_the_policy_or_without_existence_is_a_fault() {
    let dir = Dir::new();
    fs::create_dir(dir.path().join("site")).unwrap();
    for (keys, id) in [
        ("files = \".\"", "bad_file"),
        ("files = \"/\"", "bad_file"),
        ("files = \"none\"", "bad_file"),
        ("files = \"gateway.toml\"", "bad_file"),
        ("files = \"site\"\nupstream = \"app\"", "impossible_rule"),
        ("files = \"site\"\nmethods = [\"POST\"]", "impossible_rule"),
        ("files = \"site\"\nwebsocket = true", "impossible_rule"),
        ("files = \"site\"\ntimeout = \"4s\"", "impossible_rule"),
        ("files = \"site\"\nsilence = \"4s\"", "impossible_rule"),
        ("files = \"site\"\nidentity = \"subject\"", "impossible_rule"),
        ("redirect = \"/to\"\nstreams = \"open\"", "impossible_rule"),
        ("redirect = \"/to\"\nsecurity_headers = \"force\"", "impossible_rule"),
    ] {
        let route = format!(
            "[upstream.app]\nbuiltin = \"echo\"\n[[route]]\npath = \"/{{*rest}}\"\naccess = \"public\"\n{keys}\n"
        );
        dir.replace("gateway.toml", route);
        let checked = command(&dir, &["check"]);
        assert!(checked.code == Some(1) && checked.text().contains(id), "{keys}: {}", checked.text());
    }
}

/// A download takes as long as its client likes, so its token may end first.
#[test]
fn a_download_ends_with_the_token_unless_the_route_keeps_streams_open() {
    const LENGTH: u64 = 64 << 20;
    let dir = Rc::new(Dir::new());
    fs::create_dir(dir.path().join("site")).unwrap();
    fs::File::create(dir.path().join("site/big.bin")).unwrap().set_len(LENGTH).unwrap();
    let route = |name: &str, keys: &str| {
        format!(
            "[[route]]\npath = \"/{name}/{{*rest}}\"\nfiles = \"site\"\nstrip_prefix = \"/{name}\"\n{keys}\n"
        )
    };
    let routes =
        [route("bound", ""), route("unbound", "streams = \"open\""), issuer_without_leeway()].concat();
    let gateway = Portcullis::with(&routes).within(dir).start();
    let short = token("ada").claim("exp", json!(now() + 3)).to_string();
    let begun = |path: &str| {
        let mut connection = Connection::open(gateway.http());
        connection.send(Request::get(path).bearer(&short).bytes());
        assert_eq!(connection.read_head().unwrap().status, 200, "{path}");
        connection
    };
    let (mut bound, mut unbound) = (begun("/bound/big.bin"), begun("/unbound/big.bin"));
    let ended = "portcullis_streams_ended_total{kind=\"answer\",reason=\"token_expired\"}";
    let mut received = 0;
    eventually("the download ends", || {
        received += bound.skip(16 * 1024);
        gateway.metric(ended) == Some(1)
    });
    received += bound.rest().len();
    assert!(received < LENGTH as usize, "the client has the whole file");
    assert_eq!(unbound.take(LENGTH as usize).len() as u64, LENGTH);
    Request::get("/unbound/big.bin").bearer(&short).to(gateway.http()).is_refusal(401, "expired_token");
}
