//! The spelling attack: whether an odd spelling of a request gets past a route that refuses the plain one.
//!
//! Each route is asked about as the gateway would be, in the plain spelling and in odd ones. What the gateway reads as the
//! same request meets the same route, and what has two readings is refused: so what is found is nearly always a route for
//! all else that is laxer, before an upstream that may be less exact than the gateway.

mod variants;

use variants::SpellingKind;

use super::sample::{self, Caller, Grants, Sample};
use crate::clock::Now;
use crate::denial::Denial;
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::explain::Examiner;
use crate::explain::describe::covers;
use crate::forward::{Delivery, Destination, Target};
use crate::policy::{Handler, Policy, Question, Route};
use crate::route::HostPattern;
use crate::route::lenient;
use http::header::HOST;
use http::{HeaderValue, Method};
use std::collections::{HashMap, HashSet};

/// So many of the callers that another route asks for are tried: one for each of the roles of which any will do.
const CALLERS_MAX: usize = 8;
/// So many findings of a kind are told: who has more has one reason for all.
const TOLD_MAX: usize = 100;

/// A spelling that gets past a route.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bypass {
    /// The route that is got past: a position in [`Policy::routes`].
    route: usize,
    /// By what.
    kind: SpellingKind,
    /// The request that it refuses.
    plain: String,
    /// The spelling that passes.
    odd: String,
    /// By which route: a position in [`Policy::routes`].
    by: usize,
    /// For whom.
    caller: Caller,
}

/// Tries all routes, and tells what was found. `places` are those of the file's routes, which come first among the
/// policy's.
pub(super) fn attack(policy: &Policy, places: &[Place], severity: Severity) -> Vec<Diagnostic> {
    let told = |bypass: &Bypass| Some(finding(policy, places.get(bypass.route)?.clone(), severity, bypass));
    bypass(policy).iter().filter_map(told).collect()
}

/// As many findings of each kind as are read; the last of these says how many more there are.
pub(super) fn bounded(found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut told: Vec<Diagnostic> = Vec::new();
    for kind in SpellingKind::ALL {
        let of_kind = found.iter().filter(|finding| finding.id == kind.id());
        let more = of_kind.clone().count().saturating_sub(TOLD_MAX);
        told.extend(of_kind.take(TOLD_MAX).cloned());
        if let Some(last) = told.last_mut().filter(|_| more > 0) {
            last.found.push_str(&format!("; and so it is with {more} more routes"));
        }
    }
    told.sort_by_key(Diagnostic::order);
    told
}

/// The bypass of a policy: at most one for each route and kind of spelling.
fn bypass(policy: &Policy) -> Vec<Bypass> {
    let mut attack = Attack {
        policy,
        examiner: Examiner::new(policy),
        now: Now::read(),
        callers: HashMap::new(),
        known: HashSet::new(),
        found: Vec::new(),
    };
    let mut asked: HashSet<(usize, String)> = HashSet::new();
    // Endpoints of the authority are served here, and nobody reads them after us.
    let is_sent_on = |route: &Route| matches!(route.handler, Handler::Forward(_));
    let mut samples = sample::requests_to(policy, is_sent_on).peekable();
    while let Some(sample) = samples.next() {
        let mut methods = vec![sample.method.clone()];
        while let Some(same) = samples.next_if(|next| next.route == sample.route && next.url == sample.url) {
            methods.push(same.method);
        }
        let Handler::Forward(delivery) = &policy.routes[sample.route].handler else { continue };
        for url in plain(policy, &sample) {
            if asked.insert((sample.route, url.clone())) {
                attack.try_route(sample.route, delivery, &url, &methods);
            }
        }
    }
    attack.found.sort_by_key(|bypass| (bypass.route, bypass.kind));
    attack.found
}

/// The plain spellings that are tried: the sample's own and, of a route for all below a folder, the folder.
fn plain(policy: &Policy, sample: &Sample) -> Vec<String> {
    let mut urls = vec![sample.url.clone()];
    let pattern = policy.routes[sample.route].matcher.path.to_string();
    let (folder, last) = pattern.rsplit_once('/').unwrap_or_default();
    if last.starts_with("{*") {
        let depth = folder.matches('/').count() + 1;
        let start = sample.url.find("://").map_or(0, |at| at + 3);
        if let Some((slash, _)) = sample.url[start..].match_indices('/').nth(depth - 1) {
            urls.push(sample.url[..=start + slash].to_owned());
        }
    }
    urls
}

struct Attack<'p> {
    policy: &'p Policy,
    examiner: Examiner<'p>,
    now: Now,
    /// Whom a route is asked for, by its position.
    callers: HashMap<usize, Vec<Caller>>,
    known: HashSet<(usize, SpellingKind)>,
    found: Vec<Bypass>,
}

/// A request that its route refuses to somebody.
struct ProtectedRequest<'d> {
    route: usize,
    delivery: &'d Delivery,
    /// In plain spelling, and from nobody.
    plain: Question,
    /// The path that the upstream would get.
    sent: String,
    /// By which other routes a kind of spelling was tried already.
    tried: HashSet<(SpellingKind, usize)>,
}

impl<'p> Attack<'p> {
    fn try_route(&mut self, route: usize, delivery: &Delivery, url: &str, methods: &[Method]) {
        let Some(first) = methods.first() else { return };
        // Every URL of a sample is one.
        let Ok(plain) = Question::new(first.as_str(), url) else { return };
        let plain = plain.at(self.now);
        let verdict = self.examiner.verdict(&plain);
        // Where nobody is kept out nobody gets past, and what another route covers is that one's to guard.
        if verdict.outcome.passes() || verdict.route != Some(route) {
            return;
        }
        let Some(sent) = self.sent(delivery, &plain) else { return };
        let matcher = &self.policy.routes[route].matcher;
        let path = plain.parts.uri.path().to_owned();
        let host = plain.parts.headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        let mut odd = plain.clone();
        let mut guarded = ProtectedRequest { route, delivery, plain, sent, tried: HashSet::new() };
        for (kind, path) in variants::paths(&path) {
            // What is no target of a request cannot be sent.
            let Ok(uri) = path.parse() else { continue };
            odd.parts.uri = uri;
            self.try_methods(&mut guarded, kind, &mut odd, methods);
        }
        odd.parts.uri = guarded.plain.parts.uri.clone();
        // To a route of every host all spellings of a host are hosts.
        for host in
            host.iter().filter(|_| matcher.host != HostPattern::Any).flat_map(|host| variants::hosts(host))
        {
            let Ok(host) = HeaderValue::try_from(host) else { continue };
            odd.parts.headers.insert(HOST, host);
            self.try_methods(&mut guarded, SpellingKind::Host, &mut odd, methods);
        }
        for host in
            host.iter().filter(|_| matcher.host != HostPattern::Any).flat_map(|host| variants::others(host))
        {
            // A route for all hosts of a domain covers some of these itself.
            let Ok(host) = HeaderValue::try_from(host) else { continue };
            odd.parts.headers.insert(HOST, host);
            self.try_methods(&mut guarded, SpellingKind::OtherHost, &mut odd, methods);
        }
        odd.parts.headers = guarded.plain.parts.headers.clone();
        for method in methods.iter().take(if matcher.methods.is_any() { 1 } else { methods.len() }) {
            guarded.plain.parts.method = method.clone();
            for spelling in variants::methods(method.as_str()) {
                let Ok(spelling) = Method::from_bytes(spelling.as_bytes()) else { continue };
                odd.parts.method = spelling;
                self.try_spelling(&mut guarded, SpellingKind::Method, &odd);
            }
        }
    }

    /// Tries one spelling with each method.
    fn try_methods(
        &mut self,
        guarded: &mut ProtectedRequest<'_>,
        kind: SpellingKind,
        odd: &mut Question,
        methods: &[Method],
    ) {
        for method in methods {
            guarded.plain.parts.method = method.clone();
            odd.parts.method = method.clone();
            match self.try_spelling(guarded, kind, odd) {
                TableMatch::Route(by) if !self.policy.routes[by].matcher.methods.is_any() => {}
                TableMatch::OtherMethod => {}
                // With other methods it ends in the same way.
                TableMatch::Route(_) | TableMatch::Nothing => return,
            }
        }
    }

    /// Tries one spelling, and says what it meets.
    fn try_spelling(
        &mut self,
        guarded: &mut ProtectedRequest<'_>,
        kind: SpellingKind,
        odd: &Question,
    ) -> TableMatch {
        let policy = self.policy;
        let front = &policy.front;
        let Ok(head) = front.head(&odd.parts) else { return TableMatch::Nothing };
        let by = match policy.table.find(&head) {
            Ok(found) => *found.entry,
            Err(Denial::MethodNotAllowed(_)) => return TableMatch::OtherMethod,
            Err(_) => return TableMatch::Nothing,
        };
        let Handler::Forward(other) = &policy.routes[by].handler else { return TableMatch::Route(by) };
        let is_hopeless = by == guarded.route
            || !same_servers(guarded.delivery, other)
            || self.known.contains(&(guarded.route, kind))
            || !guarded.tried.insert((kind, by))
            || !self.sent(other, odd).is_some_and(|sent| reads_alike(&sent, &guarded.sent));
        if is_hopeless {
            return TableMatch::Route(by);
        }
        let callers = self.callers.entry(by).or_insert_with(|| callers(policy, &policy.routes[by]));
        let ask = |caller: &Caller, question: &Question| {
            self.examiner.verdict(&caller.question(policy, question.clone()))
        };
        // A route in the shadow that lets all pass does so for this spelling too; what this one would refuse in its own
        // shadow is what it is for.
        let weaker = callers
            .iter()
            .find(|caller| ask(caller, odd).reaches() && !ask(caller, &guarded.plain).outcome.passes());
        if let Some(caller) = weaker {
            self.known.insert((guarded.route, kind));
            self.found.push(Bypass {
                route: guarded.route,
                kind,
                plain: request(&guarded.plain),
                odd: request(odd),
                by,
                caller: caller.clone(),
            });
        }
        TableMatch::Route(by)
    }

    /// The path that the upstream would get.
    fn sent(&self, delivery: &Delivery, question: &Question) -> Option<String> {
        let front = &self.policy.front;
        let head = front.head(&question.parts).ok()?;
        let target = Target::of(&head, &question.parts.uri, delivery.strip_prefix.as_deref(), None);
        Some(target.path.path().to_owned())
    }
}

/// What a spelling meets.
enum TableMatch {
    /// A route, by its position.
    Route(usize),
    /// Routes of other methods.
    OtherMethod,
    /// A refusal that has nothing to do with the method.
    Nothing,
}

/// A request for people; where every host will do, without one.
fn request(question: &Question) -> String {
    let host = question.parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let origin = if host == sample::ANY_HOST { String::new() } else { format!("https://{host}") };
    format!("{} {origin}{}", question.parts.method, question.parts.uri)
}

/// Who gets through a route, as far as it can be told: nobody at all, anybody, and who holds just what it asks for.
fn callers(policy: &Policy, route: &Route) -> Vec<Caller> {
    let asked = sample::minimal_grants(policy, route).into_iter().take(CALLERS_MAX);
    let mut callers = vec![Caller::Nobody, Caller::WithToken(Grants::default())];
    callers.extend(asked.map(Caller::WithToken));
    callers.dedup();
    callers
}

/// Whether an upstream may read two paths alike. Without the prefixes that routes strip, odd spellings are none.
fn reads_alike(one: &str, other: &str) -> bool {
    let read = |path: &str| {
        let read = lenient::reading(path)?.to_ascii_lowercase();
        Some(read.trim_end_matches('/').to_owned())
    };
    read(one).is_some() && read(one) == read(other)
}

/// Whether what two routes cover comes to the same servers, as far as their addresses tell.
fn same_servers(one: &Delivery, other: &Delivery) -> bool {
    match (&one.destination, &other.destination) {
        (Destination::Upstream(one), Destination::Upstream(other)) => {
            one.servers.iter().any(|one| other.servers.iter().any(|other| one.address() == other.address()))
        }
        (Destination::Echo, Destination::Echo) => one.audience.name == other.audience.name,
        (Destination::Upstream(_), Destination::Echo) | (Destination::Echo, Destination::Upstream(_)) => {
            false
        }
    }
}

fn finding(policy: &Policy, place: Place, severity: Severity, bypass: &Bypass) -> Diagnostic {
    let Bypass { route, kind, plain, odd, by, caller } = bypass;
    let key = format!("route[{route}].path");
    let other = &policy.routes[*by];
    let covered = covers(&other.matcher);
    let who = match caller {
        Caller::Nobody => "whoever calls".to_owned(),
        Caller::WithToken(grants) => format!("a caller with {grants}"),
    };
    // The service may check the host itself, so this alone is not a reason to refuse a policy.
    let severity = if *kind == SpellingKind::OtherHost { Severity::Warning } else { severity };
    let found = format!(
        "`{odd}` passes for {who}, by route \"{}\" ({covered}), though `{plain}` is refused: an upstream that reads both \
         alike gives away what is guarded here",
        other.name
    );
    let cure = match kind {
        SpellingKind::Slash => "a route for the path with the slash and one without, that ask the same",
        SpellingKind::Case
        | SpellingKind::Parameter
        | SpellingKind::Encoding
        | SpellingKind::Host
        | SpellingKind::Method => "the same asked by both routes, or other servers behind that one",
        SpellingKind::OtherHost => {
            "the host in that route too, the same asked by both, or other servers behind one of them"
        }
    };
    let hint = format!("{cure}; or waive = {{ {} = \"why the service tells them apart\" }}", kind.id());
    Diagnostic { severity, id: kind.id(), place, key, found, hint, refers_to: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::MissingKey;
    use crate::policy::Compiled;
    use proptest::prelude::*;

    const HEAD: &str = "[[issuer]]\nissuer = \"https://id.example.com/\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]\n\
        secret = \"0123456789abcdef0123456789abcdef\"\n[upstream.app]\nbuiltin = \"echo\"\n[upstream.site]\nbuiltin = \"echo\"\n";

    fn findings(routes: &str) -> Vec<Diagnostic> {
        let text = format!("{HEAD}{routes}");
        let loaded = crate::config::load_text("gateway.toml", text, ".".into(), Vec::new()).unwrap();
        let compiled = crate::policy::compile(&loaded, MissingKey::Ephemeral).unwrap();
        let compiled = Compiled { warnings: Vec::new(), ..compiled };
        let compiled = crate::review::try_spellings(compiled, Severity::Fault);
        compiled.waivers.sift(compiled.warnings).left
    }

    fn route(path: &str, rest: &str) -> String {
        let upstream = if rest.contains("upstream") { "" } else { "upstream = \"app\"\n" };
        format!("[[route]]\npath = \"{path}\"\n{upstream}{rest}\n")
    }

    /// The findings as (route, kind).
    fn found(routes: &[(&str, &str)]) -> Vec<(String, &'static str)> {
        let text: String = routes.iter().map(|(path, rest)| route(path, rest)).collect();
        findings(&text).into_iter().map(|finding| (finding.key, finding.id)).collect()
    }

    const PUBLIC: &str = "access = \"public\"";

    #[test]
    fn what_the_gateway_refuses_itself_is_no_way_around() {
        // The commonest layout there is: a public site, an interface for users, one method of it for some.
        let layout = [
            ("/{*rest}", PUBLIC),
            ("/api/{*rest}", "roles = [\"clerk\"]"),
            ("/api/orders/{id}", "roles = [\"admin\"]\nmethods = [\"DELETE\"]"),
        ];
        assert_eq!(found(&layout), []);
        assert_eq!(found(&[("/admin", "roles = [\"admin\"]"), ("/{*rest}", PUBLIC)]), []);
        assert_eq!(found(&[("/admin/{*rest}", "roles = [\"admin\"]"), ("/{page}", PUBLIC)]), []);
    }

    #[test]
    fn a_laxer_route_for_the_other_spelling_is_a_way_around_the_guard() {
        let text = [
            route("/admin", "roles = [\"admin\"]"),
            route("/admin/{*rest}", "name = \"open\"\naccess = \"public\""),
        ];
        let findings = findings(&text.concat());
        let ids: Vec<_> = findings.iter().map(|finding| finding.id).collect();
        assert_eq!(ids, ["spelling_slash"], "other spellings have two readings, and are refused");
        let line = findings[0].to_string();
        assert!(line.starts_with("gateway.toml:11:1: fault: route[0].path: `GET /admin/` passes for whoever calls, by route \"open\" (/admin/{*rest}), though `GET /admin` is refused"), "{line}");
        assert!(line.contains("waive = { spelling_slash = "), "{line}");
    }

    #[test]
    fn what_asks_the_same_or_leads_elsewhere_or_nowhere_is_no_way_around() {
        for other in [
            &[][..],
            &[("/{*rest}", "roles = [\"admin\"]")],
            &[("/{*rest}", "roles = [\"admin\"]\nscopes = [\"x\"]")],
            &[("/{*rest}", "upstream = \"site\"\naccess = \"public\"")],
            &[("/other/{*rest}", PUBLIC)],
            &[("/{*rest}", "host = \"site.example.com\"\naccess = \"public\"")],
            &[("/", PUBLIC)],
        ] {
            let routes = [&[("/admin", "roles = [\"admin\"]")], other].concat();
            assert_eq!(found(&routes), [], "{other:?}");
        }
    }

    #[test]
    fn a_server_in_another_spelling_is_the_same_server() {
        let upstreams = "[upstream.a]\nservers = [\"http://App.example\"]\n[upstream.b]\nservers = [\"http://app.example:80/\"]\n";
        let layout = [
            route("/admin", "upstream = \"a\"\nroles = [\"admin\"]"),
            route("/admin/{*rest}", "upstream = \"b\"\naccess = \"public\""),
        ];
        let found: Vec<_> =
            findings(&format!("{upstreams}{}", layout.concat())).iter().map(|one| one.id).collect();
        assert_eq!(found, ["spelling_slash"]);
    }

    #[test]
    fn who_holds_what_the_other_route_asks_for_is_tried_too() {
        for rule in [
            "",
            "roles = [\"clerk\"]",
            "scopes = [\"x\"]",
            "claims = { tenant = \"acme\" }",
            "roles = [\"a\", \"admin\"]",
        ] {
            let found = found(&[("/admin", "roles = [\"admin\"]"), ("/admin/{*rest}", rule)]);
            let first = ("route[0].path".to_owned(), "spelling_slash");
            assert!(found.contains(&first), "{rule}: {found:?}");
        }
        assert_eq!(found(&[("/admin", ""), ("/{*rest}", "roles = [\"clerk\"]")]), []);
    }

    #[test]
    fn a_folder_is_tried_without_its_slash_and_a_path_with_one() {
        let slash = |routes: &[(&str, &str)]| {
            let found = found(routes);
            found
                .into_iter()
                .filter(|(_, id)| *id == "spelling_slash")
                .map(|(key, _)| key)
                .collect::<Vec<_>>()
        };
        assert_eq!(slash(&[("/admin/{*rest}", ""), ("/admin", PUBLIC)]), ["route[0].path"]);
        assert_eq!(slash(&[("/admin/{*rest}", ""), ("/{*rest}", PUBLIC)]), [""; 0]);
        assert_eq!(slash(&[("/admin/", ""), ("/admin", PUBLIC)]), ["route[0].path"]);
        assert_eq!(slash(&[("/admin", "roles = [\"admin\"]"), ("/admin/{*rest}", "")]), ["route[0].path"]);
        assert_eq!(slash(&[("/admin/{*rest}", ""), ("/admin", ""), ("/{*rest}", PUBLIC)]), [""; 0]);
    }

    #[test]
    fn what_the_upstream_gets_decides_and_not_what_the_client_sent() {
        let stripped = "strip_prefix = \"/api\"";
        assert_eq!(
            found(&[("/api/{*rest}", stripped), ("/{*rest}", PUBLIC)]),
            [],
            "it gets /Api/x, and guards /x"
        );
        let folder = "access = \"public\"\nstrip_prefix = \"/API\"";
        assert_eq!(
            found(&[("/api/{*rest}", stripped), ("/API/{*rest}", folder)]),
            [("route[0].path".to_owned(), "spelling_case")],
        );
    }

    #[test]
    fn each_method_is_tried_where_routes_differ_by_it() {
        let routes = [
            ("/admin", "roles = [\"admin\"]"),
            ("/admin/{*rest}", "methods = [\"DELETE\"]\naccess = \"public\""),
        ];
        let text: String = routes.iter().map(|(path, rest)| route(path, rest)).collect();
        let findings = findings(&text);
        assert_eq!(findings.len(), 1);
        assert!(findings.iter().all(|finding| finding.found.contains("`DELETE ")), "{findings:?}");
    }

    #[test]
    fn a_route_in_the_shadow_is_weak_and_no_guard_is_weaker_than_its_rule() {
        let shadow = "roles = [\"admin\"]\nmode = \"shadow\"";
        assert_eq!(found(&[("/admin", "roles = [\"admin\"]"), ("/admin/{*rest}", shadow)]).len(), 1);
        assert_eq!(found(&[("/admin", shadow), ("/admin/{*rest}", PUBLIC)]).len(), 1);
    }

    #[test]
    fn a_finding_is_waived_for_its_route_or_for_the_whole_file_and_no_other_is() {
        let waive = "waive = { spelling_slash = \"the service tells them apart\" }";
        let kinds = |text: String| findings(&text).into_iter().map(|finding| finding.id).collect::<Vec<_>>();
        let routes = |rest: &str| route("/admin", rest) + &route("/admin/{*rest}", PUBLIC);
        assert_eq!(kinds(routes(waive)), [""; 0]);
        assert_eq!(kinds(format!("[policy]\n{waive}\n{}", routes(""))), [""; 0]);
        assert_eq!(
            kinds(routes("") + &route("/other", waive)),
            ["spelling_slash"],
            "of another route it says nothing"
        );
        assert_eq!(kinds(routes(&waive.replace("slash", "case"))), ["spelling_slash"]);
    }

    #[test]
    fn the_endpoints_of_the_authority_are_read_by_nobody_else() {
        let text =
            "[authority]\nissuer = \"https://localhost:8443\"\naudience = [\"portcullis\"]\ncookies = true\n";
        assert_eq!(findings(&format!("{text}{}", route("/{*rest}", PUBLIC))), []);
    }

    #[test]
    fn of_many_findings_of_a_kind_a_hundred_are_told_and_the_others_counted() {
        let pair = |nth: usize| {
            route(&format!("/s{nth}/orders"), "roles = [\"r\"]")
                + &route(&format!("/s{nth}/orders/{{*rest}}"), PUBLIC)
        };
        let text: String = (0..300).map(pair).collect();
        let begun = std::time::Instant::now();
        let findings = findings(&text);
        println!("{:?}", begun.elapsed());
        assert_eq!(findings.len(), TOLD_MAX);
        assert!(findings[TOLD_MAX - 1].found.ends_with("with 200 more routes"), "{}", findings[TOLD_MAX - 1]);
    }

    fn guarded() -> impl Strategy<Value = (String, String)> {
        let path = "(/([a-z]{1,6}|\\{[a-z]\\})){1,3}(/|/\\{\\*rest\\})?".prop_filter(
            "parameters have their own names",
            |path| {
                let names: Vec<_> = path.split('/').filter(|segment| segment.starts_with('{')).collect();
                names.iter().collect::<HashSet<_>>().len() == names.len()
            },
        );
        (
            path,
            proptest::sample::select(vec![
                "",
                "roles = [\"admin\"]",
                "scopes = [\"x\"]",
                "methods = [\"GET\", \"PUT\"]",
            ]),
        )
            .prop_map(|(path, rule)| (path, rule.to_owned()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_route_for_all_else_is_no_way_around_any_guarded_route_public_or_not((path, rule) in guarded()) {
            let with = |other: &str| found(&[(&path, &rule), ("/{*rest}", other)]);
            // The one route has no neighbour: it is itself for all else.
            prop_assume!(path.split('/').skip(1).any(|segment| !segment.starts_with('{')));
            let bypass = with(PUBLIC);
            prop_assert_eq!(bypass, vec![], "{}", path);
            let same = rule.replace("methods = [\"GET\", \"PUT\"]", "");
            prop_assert_eq!(with(&same), vec![]);
        }

        #[test]
        fn routes_that_ask_the_same_are_never_a_way_around_each_other(routes in proptest::collection::vec(guarded(), 1..8), merge in any::<bool>()) {
            let mut known = HashSet::new();
            let shape = |path: &str| path.split('/').map(|segment| if segment.starts_with("{*") { "{*}" } else if segment.starts_with('{') { "{}" } else { segment }.to_owned()).collect::<Vec<_>>();
            let text: String = routes.iter().filter(|(path, _)| known.insert(shape(path))).map(|(path, _)| route(path, "roles = [\"r\"]")).collect();
            let server = if merge { "[server]\npaths = \"merge\"\n" } else { "" };
            prop_assert_eq!(findings(&format!("{server}{text}")), vec![]);
        }
    }
}
