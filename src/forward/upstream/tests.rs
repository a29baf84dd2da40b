use super::*;

fn upstream(count: usize) -> Upstream {
    let server = |n: usize| Arc::new(Server::new(Arc::from(format!("http://s{n}:80")), "s".into(), 80, None));
    let timeout = Duration::from_secs(1);
    let counters = Arc::new(UpstreamCounters::new(Arc::from("u"), 1));
    Upstream::new(counters, (0..count).map(server).collect(), timeout, timeout, 10)
}

#[test]
fn pauses_double_up_to_a_bound_and_an_answer_ends_them() {
    let upstream = upstream(1);
    let server = &upstream.servers[0];
    let mut now = Instant::now();
    for (round, pause) in [1, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
        assert_eq!(server.record_failure(now), round == 0, "only the first failure brings it down");
        assert!(!server.record_failure(now), "a failure while set aside counts once");
        now += Duration::from_secs(pause);
        assert!(!server.is_set_aside(now), "after {pause} s");
        assert!(server.is_set_aside(now - Duration::from_millis(1)), "before {pause} s");
    }
    server.record_failure(now);
    assert!(!server.is_up());
    server.record_response();
    assert!(!server.is_set_aside(now) && server.is_up());
}

#[test]
fn a_server_is_up_again_once_it_has_answered_and_not_before() {
    let upstream = upstream(1);
    let (server, now) = (&upstream.servers[0], Instant::now());
    assert!(server.is_up());
    server.record_failure(now);
    let later = now + Duration::from_secs(60);
    assert!(!server.is_set_aside(later), "its pause is over, and it is tried again");
    assert!(!server.is_up(), "but it has not answered yet");
    assert!(server.record_response() && server.is_up());
    assert!(!server.record_response(), "it was up already");
}
