use super::*;
use crate::forward::upstream::check::Probe;

fn at(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), 80)
}

fn endpoint(text: &str) -> Endpoint {
    Endpoint { address: at(text), weight: None, host: 0 }
}

fn settings(slow_start: Duration) -> MemberSettings {
    let check = CheckSettings {
        probe: Probe::Connect,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
        unhealthy_after: 3,
        healthy_after: 2,
    };
    MemberSettings {
        upstream: Arc::from("u"),
        check: Some(Arc::new(check)),
        nameservers: Nameservers::default(),
        slow_start,
    }
}

fn configured(host: &str, weight: u16) -> Configured {
    let server = Arc::new(Server::new(format!("http://{host}:80").into(), host.into(), 80, None));
    Configured { is_expanded: server.has_name(), server, weight }
}

fn names(group: &Group) -> &Arc<Names> {
    match group {
        Group::Named(names) => names,
        Group::Fixed(_) => panic!("a server has a name"),
    }
}

fn origins(group: &Group) -> Vec<String> {
    let current = group.current();
    assert_eq!(current.checks.len(), current.servers.len());
    assert!(
        current.checks.iter().zip(&current.servers).all(|(check, server)| Arc::ptr_eq(&check.server, server))
    );
    current.servers.iter().map(|server| server.origin.to_string()).collect()
}

fn answer(all: &[&str], seconds: u64) -> Result<Addresses, LookupError> {
    Ok(Addresses {
        all: all.iter().copied().map(endpoint).collect(),
        lifetime: Duration::from_secs(seconds),
        missing: Vec::new(),
    })
}

fn failure() -> Result<Addresses, LookupError> {
    Err(LookupError::NoAddress)
}

#[test]
fn addresses_become_servers_and_stay_when_the_name_cannot_be_resolved() {
    let group = Group::new(
        2,
        settings(Duration::ZERO),
        vec![configured("10.0.0.9", 2), configured("app", 3)],
        None,
        &Arc::new,
    );
    let (names, now) = (names(&group), Instant::now());
    assert_eq!(origins(&group), ["http://10.0.0.9:80", "http://app:80"]);
    assert_eq!(names.wanted().collect::<Vec<_>>(), [(1, "app")]);
    assert!(names.record(1, failure(), now).0.turned);
    assert_eq!(origins(&group), ["http://10.0.0.9:80", "http://app:80"], "each connection resolves the name");
    assert!(
        names.lines().contains("name app: cannot be resolved, so each connection tries it: the name has")
    );

    let (effect, wait) = names.record(1, answer(&["10.0.0.1", "10.0.0.2"], 5), now);
    let added = ["10.0.0.1", "10.0.0.2"].map(at).to_vec();
    assert_eq!(effect, Effect { added, turned: true, ..Effect::default() });
    assert_eq!(wait, Duration::from_secs(5));
    let both = ["http://10.0.0.9:80", "http://app:80 (10.0.0.1)", "http://app:80 (10.0.0.2)"];
    assert_eq!(origins(&group), both);
    let before = group.current().servers[2].clone();
    assert_eq!(before.authority().unwrap(), "app:80");

    let (effect, _) = names.record(1, answer(&["10.0.0.2", "10.0.0.3"], 5), now);
    assert_eq!((effect.added, effect.removed), (vec![at("10.0.0.3")], vec![at("10.0.0.1")]));
    assert!(Arc::ptr_eq(&group.current().servers[1], &before), "an address that stays is the same server");
    assert!(names.record(1, failure(), now).0.turned && !names.record(1, failure(), now).0.turned);
    assert_eq!(origins(&group)[1..], ["http://app:80 (10.0.0.2)", "http://app:80 (10.0.0.3)"]);
    assert!(names.lines().contains("cannot be resolved, so its last 2 addresses stay"));
    assert_eq!(names.lookups(), [("app", [("answered", 2), ("failed", 3)])]);
}

#[test]
fn lifetimes_and_retries_have_bounds() {
    let group = Group::new(2, settings(Duration::ZERO), vec![configured("app", 1)], None, &Arc::new);
    let (names, now) = (names(&group), Instant::now());
    let wait = |result| names.record(0, result, now).1.as_secs();
    assert_eq!([0, 1, 7, 86_400].map(|seconds| wait(answer(&["10.0.0.1"], seconds))), [1, 1, 7, 60]);
    let waits: Vec<_> = (0..7).map(|_| wait(failure())).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    wait(answer(&["10.0.0.1"], 1));
    assert_eq!(wait(failure()), 1, "an answer ends the row of failures");
    let many = |count: u8| Addresses {
        all: (0..count).map(|n| endpoint(&format!("10.0.1.{n}"))).collect(),
        lifetime: Duration::from_secs(1),
        missing: Vec::new(),
    };
    wait(Ok(many(200)));
    assert_eq!(group.current().servers.len(), ADDRESSES_MAX);
    assert!(names.lines().contains("100 addresses, and 100 more that are ignored"), "{}", names.lines());
}

#[test]
fn an_address_that_is_new_among_others_starts_slowly() {
    let slow_start = Duration::from_secs(10);
    let group = Group::new(2, settings(slow_start), vec![configured("app", 1)], None, &Arc::new);
    let (names, now) = (names(&group), Instant::now());
    let shares = |group: &Group| -> Vec<bool> {
        let current = group.current();
        current.servers.iter().map(|server| server.health.share(now, slow_start).is_some()).collect()
    };
    names.record(0, answer(&["10.0.0.1", "10.0.0.2"], 5), now);
    assert_eq!(shares(&group), [false, false], "the first addresses get everything");
    names.record(0, answer(&["10.0.0.1", "10.0.0.3"], 5), now);
    assert_eq!(shares(&group), [false, true]);
}

#[test]
fn a_new_policy_keeps_the_addresses_of_the_old_one() {
    let app = configured("app", 1);
    let group = Group::new(2, settings(Duration::ZERO), vec![app.clone()], None, &Arc::new);
    names(&group).record(0, answer(&["10.0.0.1"], 5), Instant::now());
    let old = group.current().servers[0].clone();
    let known = |server: Server| if server.origin == old.origin { old.clone() } else { Arc::new(server) };
    let same = Group::new(2, settings(Duration::ZERO), vec![app.clone()], Some(&group), &known);
    assert!(Arc::ptr_eq(names(&same), names(&group)), "nothing changed");
    let heavier = Configured { weight: 2, ..app.clone() };
    let other =
        Group::new(2, settings(Duration::ZERO), vec![heavier, configured("b", 1)], Some(&group), &known);
    assert!(!Arc::ptr_eq(names(&other), names(&group)));
    assert_eq!(origins(&other), ["http://app:80 (10.0.0.1)", "http://b:80"]);
    assert!(Arc::ptr_eq(&other.current().servers[0], &old), "it keeps its connections and its health");
    let elsewhere = MemberSettings {
        nameservers: Nameservers(Box::new(["10.0.0.53:53".parse().unwrap()])),
        ..settings(Duration::ZERO)
    };
    let other = Group::new(2, elsewhere, vec![app], Some(&group), &known);
    assert_eq!(origins(&other), ["http://app:80"], "another nameserver may know other addresses");
}

#[test]
fn the_weights_of_records_replace_that_of_the_policy_and_may_change() {
    let server = Server::of_service("srv+http://_x._tcp.app".into(), "_x._tcp.app", "app".into(), None);
    let app = Configured { server: Arc::new(server), weight: 7, is_expanded: true };
    let group = Group::new(2, settings(Duration::ZERO), vec![app], None, &Arc::new);
    let names = names(&group);
    assert_eq!(names.wanted().collect::<Vec<_>>(), [(0, "_x._tcp.app")]);
    let answer = |weights: [u16; 2]| {
        let endpoint = |(port, weight)| Endpoint {
            address: SocketAddr::new([10, 0, 0, 1].into(), port),
            weight: Some(weight),
            host: 1,
        };
        Ok(Addresses {
            all: [81, 82].into_iter().zip(weights).map(endpoint).collect(),
            lifetime: Duration::from_secs(5),
            missing: Vec::new(),
        })
    };
    names.record(0, answer([100, 50]), Instant::now());
    let origin = "srv+http://_x._tcp.app";
    assert_eq!(origins(&group), [format!("{origin} (10.0.0.1:81)"), format!("{origin} (10.0.0.1:82)")]);
    let before = group.current().servers[0].clone();
    assert_eq!(before.authority().unwrap(), "app");
    let weights = |group: &Group| group.current().turns.weights.to_vec();
    assert_eq!(weights(&group), [100, 50]);
    let (effect, _) = names.record(0, answer([1, 2]), Instant::now());
    assert_eq!(effect, Effect::default());
    assert_eq!(weights(&group), [1, 2]);
    assert!(Arc::ptr_eq(&group.current().servers[0], &before));
}

#[test]
fn a_host_of_a_service_without_an_answer_keeps_its_last_addresses() {
    let server = Server::of_service("srv+http://_x._tcp.app".into(), "_x._tcp.app", "app".into(), None);
    let app = Configured { server: Arc::new(server), weight: 1, is_expanded: true };
    let group = Group::new(2, settings(Duration::ZERO), vec![app], None, &Arc::new);
    let (names, now) = (names(&group), Instant::now());
    let answer = |hosts: &[(u64, &str)], missing: &[(u64, LookupError)]| {
        let endpoint =
            |(host, text): &(u64, &str)| Endpoint { address: at(text), weight: Some(1), host: *host };
        let missing_host = |(hash, error): &(u64, LookupError)| MissingHost {
            name: format!("h{hash}").into(),
            hash: *hash,
            error: error.clone(),
        };
        Ok(Addresses {
            all: hosts.iter().map(endpoint).collect(),
            lifetime: Duration::from_secs(5),
            missing: missing.iter().map(missing_host).collect(),
        })
    };
    let counts = |group: &Group| group.current().servers.len();
    let silent = || LookupError::Failed("silence".to_owned());
    let (one, two) = ((1, "10.0.0.1"), (2, "10.0.0.2"));
    let (effect, _) = names.record(0, answer(&[one], &[(2, silent())]), now);
    assert_eq!((counts(&group), effect.missing.as_deref()), (1, Some("h2 (silence)")));
    assert!(names.lines().contains(": 1 addresses, without those of h2 (silence)"), "{}", names.lines());
    let (effect, _) = names.record(0, answer(&[one], &[(2, silent())]), now);
    assert_eq!(effect, Effect::default(), "it is reported once");
    let (effect, _) = names.record(0, answer(&[one, two], &[]), now);
    assert_eq!((counts(&group), effect.missing.as_deref()), (2, Some("")));
    let (effect, _) = names.record(0, answer(&[two], &[(1, silent())]), now);
    assert_eq!((counts(&group), effect.removed), (2, Vec::new()));
    let (effect, _) = names.record(0, answer(&[two], &[(1, LookupError::NoAddress)]), now);
    assert_eq!((counts(&group), effect.removed), (1, vec![at("10.0.0.1")]), "the nameserver says so");
    names.record(0, answer(&[one, two], &[]), now);
    names.record(0, answer(&[one], &[]), now);
    assert_eq!(counts(&group), 1, "the service has the host no longer");
}

#[test]
fn each_core_has_its_own_reference_count_and_learns_of_new_addresses() {
    let group = Group::new(2, settings(Duration::ZERO), vec![configured("app", 1)], None, &Arc::new);
    let of_core = |core| match group.of_core(core) {
        Current::Named(members) => members,
        Current::Fixed(_) => panic!("a server has a name"),
    };
    let record = |address| names(&group).record(0, answer(&[address], 5), Instant::now());
    for address in ["10.0.0.1", "10.0.0.2"] {
        record(address);
        assert!(Arc::ptr_eq(&of_core(0), &of_core(0)), "a core keeps its copy");
        assert!(!Arc::ptr_eq(&of_core(0), &of_core(1)));
        for core in [0, 1, 2] {
            let members = of_core(core);
            assert_eq!(*members.servers[0].origin, *format!("http://app:80 ({address})"), "core {core}");
        }
    }
}
