//! Routes that serve the files of a folder.

use crate::kit::dir::Dir;
use crate::kit::portcullis::command;
use crate::kit::{Portcullis, Request, Upstream, token};
use crate::policy;
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
    ] {
        let route = format!(
            "[upstream.app]\nbuiltin = \"echo\"\n[[route]]\npath = \"/{{*rest}}\"\naccess = \"public\"\n{keys}\n"
        );
        dir.replace("gateway.toml", route);
        let checked = command(&dir, &["check"]);
        assert!(checked.code == Some(1) && checked.text().contains(id), "{keys}: {}", checked.text());
    }
}
