//! The list and the permissions of `portcullis routes` agree with the gateway's decisions. `check` finds the spellings
//! that bypass a route.

use crate::kit::dir::Dir;
use crate::kit::forge::Token;
use crate::kit::portcullis::{command, write_policy};
use crate::kit::{Answer, Portcullis, Request, Upstream, token};
use crate::{PUBLIC, gateway, policy};
use serde_json::{Value, json};

const ROUTES: &str = r#"
[rate_limit.slow]
by = "subject"
rate = "1000/s"

[[route]]
name = "delete"
path = "/orders/{id}"
methods = ["DELETE"]
upstream = "app"
roles = ["admin"]

[[route]]
name = "orders"
path = "/orders/{id}"
methods = ["GET", "PUT"]
upstream = "app"
roles = ["clerk", "admin"]
scopes = ["orders:read"]
rate_limits = ["slow"]

[[route]]
name = "staff"
host = "staff.example.com"
path = "/{*rest}"
upstream = "app"
roles = ["clerk", "admin"]
all_roles = ["staff"]
fresh = true

[[route]]
name = "tenants"
path = "/tenants/{tenant}/{*rest}"
upstream = "app"
claims = { tenant = "{tenant}", level = 3 }
strip_prefix = "/tenants"

[[route]]
name = "me"
path = "/me"
upstream = "app"

[[route]]
name = "guests"
path = "/guests"
upstream = "app"
access = "optional"

[[route]]
name = "trial"
path = "/trial"
upstream = "app"
roles = ["admin"]
mode = "shadow"
"#;

fn json_of(dir: &Dir, arguments: &[&str]) -> Value {
    let finished = command(dir, &[&["--format", "json"], arguments].concat());
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.text()))
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// Returns the token with the roles, scopes and claims that a table cell requires added.
fn with(mut token: Token, needs: &str) -> Token {
    for need in needs.split(" and ") {
        token = match need.split_once(' ') {
            Some(("role", role)) => token.role(role),
            Some(("scope", scope)) => token.scope(scope),
            Some(("claim", claim)) => match claim.split_once(" = ") {
                Some((path, value)) => token.claim(path, serde_json::from_str(value).unwrap()),
                None => token.claim(claim.strip_suffix(" as in the path").unwrap(), json!("sample")),
            },
            _ => {
                assert_eq!(need, "a fresh login");
                token.claim("fresh", json!(true))
            }
        };
    }
    token
}

/// Sends the row's sample request with this method and token to the gateway.
fn ask(gateway: &Portcullis, row: &Value, method: &str, token: Option<&Token>) -> Answer {
    let request = row["request"].as_str().unwrap();
    let (host, path) = request.split_once("https://").unwrap().1.split_once('/').unwrap();
    let request = Request::new(method, &format!("/{path}")).host(host);
    match token {
        Some(token) => request.bearer(token),
        None => request,
    }
    .to(gateway.http())
}

#[test]
fn each_cell_of_the_table_is_what_the_gateway_does_with_such_a_token() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("{ROUTES}{PUBLIC}"));
    let matrix = json_of(gateway.dir(), &["routes", "--matrix"]);
    let columns = matrix["columns"].as_array().unwrap();
    let roles: Vec<_> = columns.iter().filter_map(|column| column["role"].as_str()).collect();
    assert_eq!(roles, ["admin", "clerk", "staff"]);
    assert_eq!(matrix["left_out"], json!({ "roles": 0, "rows": 0 }));
    let mut met = Vec::new();
    for row in matrix["rows"].as_array().unwrap() {
        let mut methods = texts(&row["methods"]);
        if methods.is_empty() {
            methods = vec!["GET", "POST", "PURGE"];
        }
        for (column, cell) in columns.iter().zip(row["cells"].as_array().unwrap()) {
            let caller = match column["caller"].as_str().unwrap() {
                "nobody" => None,
                "any_caller" => Some(token("u1")),
                "role" => Some(token("u1").role(column["role"].as_str().unwrap())),
                other => panic!("{other}"),
            };
            let verdict = cell["verdict"].as_str().unwrap();
            met.push(verdict.to_owned());
            for method in methods.iter().filter(|method| **method != "HEAD") {
                let answer = ask(&gateway, row, method, caller.as_ref());
                let case = format!("{} {method}, {column}: {cell}", row["covers"]);
                match verdict {
                    "yes" | "shadow" => assert_eq!(answer.status, 200, "{case}"),
                    "no" => assert_eq!(json!(answer.code()), cell["code"], "{case}"),
                    "with" => {
                        assert!(answer.status >= 401, "{case}");
                        for needs in texts(&cell["needs"]) {
                            let token = with(caller.clone().unwrap(), needs);
                            assert_eq!(
                                ask(&gateway, row, method, Some(&token)).status,
                                200,
                                "{case}: {needs}"
                            );
                        }
                    }
                    other => panic!("{other}"),
                }
            }
        }
    }
    for verdict in ["yes", "shadow", "no", "with"] {
        assert!(met.iter().any(|met| met == verdict), "{verdict} is among the cells");
    }
}

#[test]
fn the_first_route_of_the_list_that_covers_a_request_is_the_one_that_serves_it() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("{ROUTES}{PUBLIC}"));
    let listed = json_of(gateway.dir(), &["routes"]);
    let routes = listed["routes"].as_array().unwrap();
    let names: Vec<_> = routes.iter().map(|route| route["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["staff", "guests", "me", "delete", "orders", "tenants", "trial", "public"]);
    let of = |name: &str| routes.iter().find(|route| route["name"] == name).unwrap();
    assert_eq!(of("orders")["asks"], json!(["any role of clerk, admin", "all scopes of orders:read"]));
    assert_eq!((&of("orders")["limits"], &of("orders")["upstream"]), (&json!(["slow"]), &json!("app")));
    assert_eq!((&of("trial")["mode"], &of("me")["mode"]), (&json!("shadow"), &json!("enforce")));
    assert_eq!((&of("staff")["host"], &of("me")["host"]), (&json!("staff.example.com"), &Value::Null));
    for (host, path, name) in [
        ("staff.example.com", "/me", "staff"),
        ("h.example", "/me", "me"),
        ("h.example", "/orders/7", "orders"),
        ("h.example", "/else", "public"),
    ] {
        let answer = Request::get(path).host(host).to(gateway.http());
        assert_eq!(gateway.access_line(&answer)["route"], name, "{host}{path}");
    }
}

#[test]
fn a_redirect_is_a_route_of_the_file_in_the_list_the_permissions_and_the_counts() {
    let upstream = Upstream::start();
    let redirect = "[[route]]\nname = \"moved\"\nhost = \"old.example.com\"\npath = \"/{*rest}\"\n\
                    redirect = \"https://new.example.com/{*rest}\"\nroles = [\"admin\"]\n";
    let gateway = gateway(&upstream, &format!("{ROUTES}{redirect}"));
    let list = json_of(gateway.dir(), &["routes"]);
    let names: Vec<_> = list["routes"].as_array().unwrap().iter().map(|route| &route["name"]).collect();
    let place = |name: &str| names.iter().position(|known| *known == name).unwrap();
    assert!(place("moved") < place("me"), "a route with a host precedes one without: {names:?}");
    let matrix = json_of(gateway.dir(), &["routes", "--matrix"]);
    let rows = matrix["rows"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["route"] == "moved"), "{matrix}");
    let check = command(gateway.dir(), &["check"]);
    assert!(check.stdout.contains(" 8 routes"), "{}", check.text());
}

#[test]
fn both_tables_are_printed_for_people_spreadsheets_and_documents() {
    let dir = Dir::new();
    let formula =
        "[[route]]\nname = \"=1+1\"\npath = \"/f\"\nupstream = \"app\"\nroles = [\"@SUM(A1)\", \"a|b\"]\n";
    write_policy(&dir, &policy(&Upstream::start(), &format!("{ROUTES}{formula}")));
    let print = |arguments: &[&str]| {
        let finished = command(&dir, arguments);
        assert_eq!(finished.code, Some(0), "{}", finished.text());
        finished.stdout
    };
    let text = print(&["routes", "--matrix"]);
    let line = text.lines().find(|line| line.starts_with("orders")).unwrap();
    assert!(line.contains("GET HEAD PUT") && line.contains("with scope orders:read"), "{text}");
    assert!(print(&["routes"]).contains("any role of clerk, admin; all scopes of orders:read"));
    let csv = print(&["routes", "--matrix", "--format", "csv"]);
    assert!(
        csv.starts_with("route,covers,methods,(no token),(any token),'@SUM(A1),admin,a|b,clerk,staff\n"),
        "{csv}"
    );
    assert!(csv.contains("\n'=1+1,/f,any,no,no,yes,no,yes,no,no\n"), "{csv}");
    for method in ["GET", "HEAD", "PUT"] {
        assert!(csv.contains(&format!("\norders,/orders/{{id}},{method},no,no,")), "one row a method: {csv}");
    }
    let markdown = print(&["routes", "--matrix", "--format", "markdown"]);
    assert!(
        markdown.starts_with(
            "| route | covers | methods | (no token) | (any token) | @SUM(A1) | admin | a\\|b |"
        ),
        "{markdown}"
    );
    let bars = |line: &str| line.replace("\\|", "").matches('|').count();
    assert!(markdown.lines().all(|line| bars(line) == 11), "{markdown}");
    for arguments in [
        &["check", "--format", "csv"][..],
        &["routes", "--format", "junit"],
        &["explain", "https://h/", "--format", "markdown"],
    ] {
        let finished = command(&dir, arguments);
        assert_eq!(finished.code, Some(2), "{arguments:?}: {}", finished.text());
    }
    dir.write("gateway.toml", "nonsense = 1");
    assert_eq!(command(&dir, &["routes"]).code, Some(1));
}

/// A public route for every path below `/admin`, including `/admin/` itself.
fn below() -> String {
    PUBLIC.replace("/{*rest}", "/admin/{*rest}")
}

#[test]
fn a_spelling_that_bypasses_a_route_fails_the_check_and_is_logged_at_start() {
    let upstream = Upstream::start();
    let guarded = "[[route]]\nname = \"admin\"\npath = \"/admin\"\nupstream = \"app\"\nroles = [\"admin\"]\n";
    let gateway = gateway(&upstream, &format!("{guarded}{}", below()));
    let reported = json_of(gateway.dir(), &["check"]);
    let holes: Vec<(&str, &str)> = reported["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|found| found["severity"] == "fault")
        .map(|found| (found["id"].as_str().unwrap(), found["found"].as_str().unwrap()))
        .collect();
    let ids: Vec<_> = holes.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, ["spelling_slash"], "{reported:#}");
    assert_eq!(reported["ok"], json!(false));
    assert_eq!(command(gateway.dir(), &["check"]).code, Some(1));
    // The finding is right: the gateway refuses the plain spelling and forwards the reported one.
    for (id, found) in holes {
        let mut spellings =
            found.split('`').skip(1).step_by(2).map(|request| request.split_once(' ').unwrap().1);
        let (odd, plain) = (spellings.next().unwrap(), spellings.next().unwrap());
        Request::get(odd).to(gateway.http()).is(200);
        assert_eq!(upstream.last_request().target, odd, "{id}");
        Request::get(plain).to(gateway.http()).is_refusal(401, "missing_token");
        gateway.wait_log(id, |line| line["level"] == "warn" && line.to_string().contains(id));
    }
}

#[test]
fn a_spelling_that_is_waived_or_leads_to_another_service_is_no_fault() {
    let guarded = "[[route]]\npath = \"/admin\"\nupstream = \"app\"\nroles = [\"admin\"]\n";
    let waived = "waive = { spelling_slash = \"the application distinguishes them\" }\n";
    for (tables, code) in [
        (format!("{guarded}{waived}{}", below()), 0),
        (format!("{guarded}{}", below()), 1),
        (format!("{guarded}{}", below().replace("access   = \"public\"", "")), 1),
        (format!("{guarded}{}", below().replace("access   = \"public\"", "roles = [\"admin\"]")), 0),
        (
            format!(
                "[upstream.site]\nbuiltin = \"echo\"\n{guarded}{}",
                below().replace("\"app\"", "\"site\"")
            ),
            0,
        ),
    ] {
        let dir = Dir::new();
        write_policy(&dir, &policy(&Upstream::start(), &tables));
        let finished = command(&dir, &["check"]);
        assert_eq!(finished.code, Some(code), "{tables}\n{}", finished.text());
    }
}

#[test]
fn a_path_that_is_another_routes_to_a_lenient_reader_is_refused() {
    let upstream = Upstream::start();
    let guarded = "[[route]]\npath = \"/admin\"\nupstream = \"app\"\nroles = [\"admin\"]\n";
    let gateway = gateway(&upstream, &format!("{guarded}{PUBLIC}"));
    for path in ["/admin;x=1", "/admin;", "/admin%3Bx", "/;x/admin", "/Admin", "/%2561dmin", "/ADMIN%3b"] {
        let answer = Request::get(path).to(gateway.http());
        answer.is_refusal(400, "bad_request");
    }
    upstream.saw_nothing();
    let answer = Request::get("/admin;x").to(gateway.http());
    let line = gateway.access_line(&answer);
    assert!(line["detail"].as_str().unwrap().contains("another route"), "{line}");
    // A path that has the same route with and without its parameters is forwarded unchanged.
    Request::get("/files;v=2/a;b").to(gateway.http()).is(200);
    assert_eq!(upstream.last_request().target, "/files;v=2/a;b");
}
