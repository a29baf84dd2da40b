//! Checks the direction of the imports between modules.
//!
//! [`MODULES`] lists every top-level module once, from the program's entry to the leaves. A module may import only
//! modules below it. A missing module or an unused entry fails the test.

#![allow(clippy::unwrap_used, reason = "a test may fail wherever it stands")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every top-level module. Each may import only modules that follow it.
const MODULES: &[&str] = &[
    "main",
    "cli",
    "control",
    "review",
    "explain",
    // From here on, the order follows a request through the gateway.
    "accept",
    "pipeline",
    "worker",
    // The compiled policy, and the counters that its parts own.
    "policy",
    "metrics",
    // The stages of a request, the last one first.
    "signals",
    "authority",
    "forward",
    "decision",
    "limit",
    // The state that gateways share in Redis.
    "shared",
    "authorize",
    "keyring",
    "store",
    "decision_log",
    "respond",
    "api_key_file",
    "authenticate",
    "introspection",
    "key_source",
    "acme",
    "peer",
    "route",
    "outbound",
    // The bytes of HTTP/1.1.
    "http1",
    // The handshakes and frames of WebSockets.
    "websocket",
    // Settings that are fixed at start.
    "worker_settings",
    "tls",
    "config",
    // The leaf modules.
    "health",
    "timestamp",
    "journal",
    "state_dir",
    "request_id",
    "counter",
    "diagnostic",
    "denial",
    "field_list",
    "hex",
    "pem",
    "clock",
    "turns",
    "memory",
    "lib",
];
/// The parts of `src/forward`, from the function that forwards a request to the descriptions that all parts use. Each may
/// import only parts that follow it.
const FORWARD: &[&str] = &[
    "files",
    "echo",
    "mirror",
    "answer",
    "http2",
    "http1",
    "request",
    "delivery",
    "tunnel",
    // The core's connections and deadlines.
    "connection",
    "body",
    "notes",
    "upstream",
    "head",
    "faults",
    "open_streams",
];

/// Imports against the order of [`FORWARD`]: the file, the imported part, and the reason.
const FORWARD_EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "forward/http2/mod.rs",
    "answer",
    "the answer contains the body of HTTP/2, and the exchange makes the answer",
)];

/// Files that import against the order: the file, the imported module, and the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// One file's module, and the modules of the crate that it imports.
struct File {
    path: PathBuf,
    module: String,
    imports: BTreeSet<String>,
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns a file's code without comments, and without the test module at its end.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let lines = text[..end].lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the first segments of all paths that begin with `crate::`, including those in groups.
fn imports(code: &str) -> BTreeSet<String> {
    segments_after("crate::", code)
}

/// Returns the segments that follow `prefix`, including those in groups.
fn segments_after(prefix: &str, code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => {
                found.extend(first_segment(rest));
            }
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (at, byte) in group.bytes().enumerate() {
                    match byte {
                        b'{' => depth += 1,
                        b'}' if depth == 0 => break,
                        b'}' => depth -= 1,
                        b',' if depth == 0 => start = true,
                        byte if start && (byte.is_ascii_alphabetic() || byte == b'_') => {
                            found.extend(first_segment(&group[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

fn first_segment(path: &str) -> Option<String> {
    let end = path.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(path.len());
    (end > 0).then(|| path[..end].to_owned())
}

fn source() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(&root).unwrap().to_path_buf();
            let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
            let module = first.trim_end_matches(".rs").to_owned();
            let imports = imports(&code(&fs::read_to_string(&path).unwrap()));
            File { path: relative, module, imports }
        })
        .collect()
}

/// Returns the place of a module in the order, or `None` if it is not listed.
fn place(module: &str) -> Option<usize> {
    MODULES.iter().position(|known| *known == module)
}

/// Returns one sentence for each import against the order, and for each module that is not in the order.
fn faults(source: &[File], exceptions: &[(&str, &str, &str)]) -> Vec<String> {
    let mut faults = Vec::new();
    for file in source {
        let path = file.path.display();
        let Some(own) = place(&file.module) else {
            faults.push(format!("{path}: the list has no module {}", file.module));
            continue;
        };
        for import in file.imports.iter().filter(|import| **import != file.module) {
            let is_excepted =
                exceptions.iter().any(|(from, to, _)| file.path == Path::new(from) && import == to);
            match place(import) {
                None => faults.push(format!("{path}: the list has no module {import}")),
                Some(other) if other < own && !is_excepted => {
                    faults.push(format!("{path}: {import} stands above {}, which imports it", file.module));
                }
                Some(_) => {}
            }
        }
    }
    faults
}

#[test]
fn imports_run_downwards() {
    let faults = faults(&source(), EXCEPTIONS);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Returns one sentence for each import of a file of `src/forward` against the order of its parts. A part is imported by
/// its path, because a name that `forward/mod.rs` hands on would hide the part.
fn forward_faults(path: &str, code: &str) -> Vec<String> {
    let mut segments = path.trim_end_matches(".rs").split('/').skip(1);
    let part = segments.next().unwrap_or_default().to_owned();
    if part == "mod" {
        return Vec::new();
    }
    let order = |part: &str| FORWARD.iter().position(|known| *known == part);
    let Some(own) = order(&part) else { return vec![format!("{path}: the list has no part {part}")] };
    let mut imports = segments_after("crate::forward::", code);
    if segments.next().is_none() {
        imports.extend(segments_after("super::", code));
    }
    let is_excepted =
        |import: &str| FORWARD_EXCEPTIONS.iter().any(|(from, to, _)| *from == path && *to == import);
    let fault = |import: &String| match order(import) {
        None => Some(format!("{path}: the list has no part {import}")),
        Some(other) if other < own && !is_excepted(import) => {
            Some(format!("{path}: {import} stands above {part}, which imports it"))
        }
        Some(_) => None,
    };
    imports.iter().filter_map(fault).collect()
}

#[test]
fn the_parts_of_forward_import_downwards() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let forward: Vec<_> = source().into_iter().filter(|file| file.module == "forward").collect();
    let is_tests = |path: &Path| path.ends_with("tests.rs");
    let mut faults = Vec::new();
    let mut parts = BTreeSet::new();
    for file in forward.iter().filter(|file| !is_tests(&file.path)) {
        let code = code(&fs::read_to_string(root.join(&file.path)).unwrap());
        let path = file.path.to_str().unwrap();
        parts.extend(path.trim_end_matches(".rs").split('/').nth(1).map(str::to_owned));
        faults.extend(forward_faults(path, &code));
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    for part in FORWARD {
        assert!(parts.contains(*part), "there is no part {part}");
    }
    for (from, to, _) in FORWARD_EXCEPTIONS {
        let code = code(&fs::read_to_string(root.join(from)).unwrap());
        assert!(segments_after("crate::forward::", &code).contains(*to), "{from} no longer imports {to}");
    }
}

#[test]
fn an_import_upwards_within_forward_is_a_fault() {
    for (path, code, fault) in [
        (
            "forward/upstream/server.rs",
            "use crate::forward::connection::pool::Pools;",
            "connection stands above",
        ),
        ("forward/body/inflow.rs", "use crate::forward::Pools;", "no part Pools"),
        ("forward/notes.rs", "use super::answer::Answer;", "answer stands above"),
        ("forward/stranger.rs", "", "no part stranger"),
    ] {
        let found = forward_faults(path, code);
        assert_eq!(found.len(), 1, "{path}: {found:?}");
        assert!(found[0].contains(fault), "{path}: {found:?}");
    }
    for (path, code) in [
        ("forward/connection/pool.rs", "use super::http2::Links;\nuse crate::forward::upstream::Upstream;"),
        ("forward/http2/mod.rs", "use crate::forward::answer::Answer;"),
        ("forward/mod.rs", "use crate::forward::answer::Answer;"),
    ] {
        assert_eq!(forward_faults(path, code), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn the_list_and_its_exceptions_match_the_source() {
    let source = source();
    for &module in MODULES {
        assert!(source.iter().any(|file| file.module == module), "there is no module {module}");
        assert_eq!(MODULES.iter().filter(|other| **other == module).count(), 1, "{module} stands twice");
    }
    for &(from, to, _) in EXCEPTIONS {
        let is_used = source.iter().any(|file| file.path == Path::new(from) && file.imports.contains(to));
        assert!(is_used, "{from} no longer imports {to}");
    }
}

/// The map is the first page that a newcomer reads.
#[test]
fn the_map_of_the_crate_names_every_module() {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let text = fs::read_to_string(lib).unwrap();
    let map: Vec<&str> = text.lines().filter(|line| line.starts_with("//!")).collect();
    let map = map.join("\n");
    for module in MODULES.iter().filter(|module| !["main", "lib"].contains(module)) {
        let is_named = [format!("`{module}`"), format!("`{module}::"), format!("`{module}/")];
        assert!(is_named.iter().any(|name| map.contains(name)), "the map lacks {module}");
    }
}

/// A permit requires either a rule that was checked or the shadow mode of a route. Only the compiler of a policy may
/// create rules and shadow modes.
#[test]
fn only_the_compiler_of_a_policy_makes_rules_and_shadow_modes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    paths.retain(|path| !path.ends_with("tests.rs"));
    for (maker, home) in [
        ("Rule::new(", "policy/compile"),
        ("Rule::default(", "policy/compile"),
        ("ShadowMode::new(", "policy/compile"),
    ] {
        for path in &paths {
            let code = code(&fs::read_to_string(path).unwrap());
            let path = path.strip_prefix(&root).unwrap();
            assert!(path.starts_with(home) || !code.contains(maker), "{}: {maker}", path.display());
        }
    }
}

/// The caller of a decision passes the time, so that all decisions about a request use the same time. clippy.toml bans
/// the wall clock everywhere.
#[test]
fn the_stages_that_decide_read_no_clock() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in source() {
        if ["route", "authenticate", "authorize", "decision", "limit"].contains(&&*file.module) {
            let code = code(&fs::read_to_string(root.join(&file.path)).unwrap());
            for clock in ["Instant::now", "Now::read"] {
                assert!(!code.contains(clock), "{}: {clock}", file.path.display());
            }
        }
    }
}

#[test]
fn an_import_against_the_order_is_a_fault() {
    for (module, text, fault) in [
        ("route", "use crate::authorize::Rule;", "authorize stands above route"),
        ("authenticate", "fn f() { crate::forward::f() }", "forward stands above"),
        ("limit", "use crate::{denial::Denial, policy::{live::A, B}, clock};", "policy stands above"),
        ("respond", "use crate::worker::Worker;", "worker stands above"),
        ("config", "use crate::policy::Policy;", "policy stands above"),
        ("clock", "use crate::route::Head;", "route stands above"),
        ("clock", "use crate::stranger::Head;", "no module stranger"),
        ("stranger", "use crate::clock::Now;", "no module stranger"),
    ] {
        let file = File { path: module.into(), module: module.into(), imports: imports(&code(text)) };
        let found = faults(&[file], &[]);
        assert_eq!(found.len(), 1, "{module}: {found:?}");
        assert!(found[0].contains(fault), "{module}: {found:?}");
    }
}

#[test]
fn an_import_downwards_and_an_exception_are_no_fault() {
    for (module, text) in [
        ("authorize", "use crate::authenticate::Principal;\nuse crate::denial::Denial;"),
        ("route", "// see crate::policy\nuse crate::route::Head;"),
        ("pipeline", "use crate::{policy::Policy, forward, respond};"),
        ("forward", "fn f() {}\n#[cfg(test)]\nmod tests { use crate::policy::Policy; }"),
        ("peer", "use crate::worker::Worker;"),
    ] {
        let file = File { path: module.into(), module: module.into(), imports: imports(&code(text)) };
        assert_eq!(faults(&[file], &[("peer", "worker", "")]), Vec::<String>::new(), "{module}");
    }
}

#[test]
fn the_dockerfile_copies_every_folder_that_the_build_needs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = fs::read_to_string(root.join("Dockerfile")).unwrap();
    let copied: BTreeSet<&str> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .flat_map(|line| line.split(' ').rev().skip(1))
        .collect();
    let mut paths = Vec::new();
    files(&root.join("src"), &mut paths);
    // Files that contain only tests are not part of the image.
    paths.retain(|path| !path.ends_with("tests.rs") && !path.ends_with("config/reference.rs"));
    let mut included = 0;
    for path in paths {
        let code = code(&fs::read_to_string(&path).unwrap());
        for rest in code.split("include_str!(\"").skip(1) {
            let name = rest.split('"').next().unwrap();
            let file = path.parent().unwrap().join(name).canonicalize().unwrap();
            let file = file.strip_prefix(root.canonicalize().unwrap()).unwrap().to_str().unwrap().to_owned();
            included += 1;
            let is_copied =
                copied.iter().any(|copied| file == *copied || file.starts_with(&format!("{copied}/")));
            assert!(is_copied, "{}: {file} is not copied by the Dockerfile", path.display());
        }
    }
    assert!(included > 1, "the page of the login and the reference at least");
}

#[test]
fn the_readme_links_to_files_that_exist_and_to_each_of_them_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
    let pictures =
        readme.split("src=\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(link, _)| link);
    let mut seen = BTreeSet::new();
    for link in links.chain(pictures) {
        assert!(seen.insert(link), "{link} is linked twice");
        assert!(link.starts_with("https://") || root.join(link).exists(), "{link} does not exist");
    }
    let documents = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    for document in documents.filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(".md"))
    {
        assert!(seen.contains(&*format!("docs/{document}")), "docs/{document} is in no table of the README");
    }
}
