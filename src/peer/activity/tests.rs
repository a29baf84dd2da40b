use super::*;

const TIMEOUTS: Timeouts = Timeouts {
    head: 10_000,
    idle: 75_000,
    farewell: 1_000,
    park: 2_000,
    pace: Pace { grace: 30_000, bytes_per_second: 500 },
};

fn command_after(activity: &Activity, now: CoarseMillis) -> Option<Command> {
    activity.examine(now, TIMEOUTS);
    activity.command(&Context::from_waker(Waker::noop()))
}

fn served_once(http2: bool, ended: CoarseMillis) -> Activity {
    let activity = Activity::new(0);
    activity.begin_serving(http2, 0);
    activity.begin_head(0);
    activity.end_frame(true, 0);
    activity.begin_request();
    activity.end_request(ended);
    activity
}

#[test]
fn a_client_that_never_finishes_its_head_is_closed() {
    let activity = Activity::new(0);
    assert!(activity.receive(5_000));
    assert_eq!(command_after(&activity, 9_999), None);
    assert_eq!(command_after(&activity, 10_000), Some(Command::Close(Timeout::Head)));
}

#[test]
fn a_client_that_never_sends_a_byte_is_closed() {
    let activity = Activity::new(0);
    assert_eq!(command_after(&activity, 10_000), Some(Command::Close(Timeout::Idle)));
}

#[test]
fn bytes_that_trickle_in_do_not_extend_the_deadline_of_a_head() {
    let activity = served_once(false, 1_000);
    assert!(activity.receive(2_000));
    assert!(!activity.receive(11_999));
    assert_eq!(command_after(&activity, 11_999), None);
    assert_eq!(command_after(&activity, 12_000), Some(Command::Close(Timeout::Head)));
}

#[test]
fn an_idle_connection_has_the_longer_timeout() {
    let activity = served_once(false, 1_000);
    assert_eq!(command_after(&activity, 75_999), Some(Command::Park));
    assert_eq!(command_after(&activity, 76_000), Some(Command::Close(Timeout::Idle)));
}

/// RFC 9113 section 9.1: a server keeps idle connections open as long as possible, and sends GOAWAY before closing.
#[test]
fn an_idle_http_2_connection_sends_goaway_before_it_closes() {
    let activity = served_once(true, 1_000);
    activity.end_frame(false, 30_000);
    assert_eq!(command_after(&activity, 75_999), None, "a PING starts neither a head nor a request");
    assert_eq!(command_after(&activity, 76_000), Some(Command::Drain));
    assert!(activity.is_closing() && activity.is_retired());
    assert_eq!(command_after(&activity, 76_999), Some(Command::Drain));
    assert_eq!(command_after(&activity, 77_000), Some(Command::Close(Timeout::Farewell)));
}

/// A response counts as ended while its last bytes may still be in the HTTP library's buffer.
#[test]
fn a_client_that_has_not_read_the_end_of_its_response_is_not_idle() {
    let activity = served_once(false, 0);
    activity.record_blocked_write(0);
    activity.issue(Command::Drain, 0);
    assert_eq!(
        command_after(&activity, 20_000),
        Some(Command::Drain),
        "the farewell period starts after the end of the response"
    );
    activity.record_write(10, || 20_000);
    assert_eq!(command_after(&activity, 20_999), Some(Command::Drain));
    assert_eq!(command_after(&activity, 21_000), Some(Command::Close(Timeout::Farewell)));

    let activity = served_once(false, 0);
    activity.record_blocked_write(0);
    assert!(activity.receive(5_000));
    assert_eq!(
        command_after(&activity, 29_999),
        None,
        "an error for the incomplete head would land inside the response"
    );
    assert_eq!(command_after(&activity, 30_000), Some(Command::Close(Timeout::Reader)));
}

#[test]
fn an_incomplete_http_2_head_has_a_deadline_while_other_streams_are_active() {
    let activity = served_once(true, 0);
    activity.begin_request();
    activity.begin_head(1_000);
    activity.begin_request();
    activity.end_request(5_000);
    assert_eq!(command_after(&activity, 10_999), None);
    assert_eq!(command_after(&activity, 11_000), Some(Command::Close(Timeout::Head)));
}

#[test]
fn an_http_2_head_that_does_not_become_a_request_leaves_the_connection_idle() {
    let activity = served_once(true, 0);
    activity.begin_head(1_000);
    activity.end_frame(true, 2_000);
    assert_eq!(command_after(&activity, 76_999), None);
    assert_eq!(command_after(&activity, 77_000), Some(Command::Drain));
}

#[test]
fn a_connection_with_a_request_in_progress_is_never_idle() {
    let activity = Activity::new(0);
    activity.begin_request();
    assert_eq!(command_after(&activity, 1_000_000), None);
}

#[test]
fn a_draining_connection_waits_briefly_for_a_request_in_transit() {
    let activity = served_once(false, 0);
    activity.issue(Command::Drain, 50_000);
    assert_eq!(command_after(&activity, 50_999), Some(Command::Drain));
    activity.begin_request();
    assert_eq!(command_after(&activity, 90_000), Some(Command::Drain));
    activity.end_request(90_000);
    assert_eq!(command_after(&activity, 91_000), Some(Command::Close(Timeout::Farewell)));
}

/// The task of a draining HTTP/2 connection looks with each sweep whether the pause is long enough for GOAWAY.
#[test]
fn a_draining_http_2_connection_is_woken_while_it_is_idle() {
    let activity = served_once(true, 1_000);
    activity.record_flush();
    activity.issue(Command::Drain, 1_250);
    assert!(!activity.is_idle_for(500, 1_500) && activity.is_idle_for(500, 1_750), "since the order");
    let is_woken = |now| {
        // `examine` takes the waker when it wakes the task.
        assert_eq!(activity.command(&Context::from_waker(Waker::noop())), Some(Command::Drain));
        activity.examine(now, TIMEOUTS);
        let waker = activity.waker.take();
        let is_woken = waker.is_none();
        activity.waker.set(waker);
        is_woken
    };
    assert!(is_woken(1_500) && is_woken(2_000));
    activity.begin_request();
    assert!(!is_woken(2_500) && !activity.is_idle_for(0, 9_000), "a request is in progress");
    activity.end_request(3_000);
    assert!(!activity.is_idle_for(500, 3_500), "the answer is not written");
    activity.record_flush();
    assert!(!activity.is_idle_for(500, 3_250) && activity.is_idle_for(500, 3_500));
    assert!(is_woken(3_500));
}

/// The sweep issues the farewell, and the task of the connection sees it later.
#[test]
fn a_request_that_arrives_before_the_farewell_is_said_withdraws_it() {
    let activity = served_once(false, 0);
    activity.issue(Command::Drain, 0);
    assert_eq!(command_after(&activity, 1_000), Some(Command::Close(Timeout::Farewell)));
    assert!(activity.receive(1_000));
    assert!(!activity.takes_leave());
    assert_eq!(command_after(&activity, 10_999), Some(Command::Drain), "the head has its own deadline");
    activity.begin_request();
    activity.end_request(20_000);
    assert_eq!(command_after(&activity, 20_999), Some(Command::Drain));
    assert_eq!(command_after(&activity, 21_000), Some(Command::Close(Timeout::Farewell)));
    assert!(activity.takes_leave());
    activity.issue(Command::Close(Timeout::Drain), 22_000);
    assert_eq!(command_after(&activity, 22_000), Some(Command::Close(Timeout::Drain)));
}

#[test]
fn a_client_that_stops_reading_is_closed_unless_it_resumes() {
    let activity = Activity::new(0);
    activity.begin_request();
    activity.record_blocked_write(0);
    activity.record_blocked_write(20_000);
    activity.record_write(1 << 20, || 25_000);
    activity.record_blocked_write(29_000);
    assert_eq!(command_after(&activity, 30_000), None);
    assert_eq!(command_after(&activity, 59_000), Some(Command::Close(Timeout::Reader)));
}

#[test]
fn a_client_that_reads_steadily_but_too_slowly_is_closed() {
    let activity = Activity::new(0);
    activity.begin_request();
    for second in 0..40 {
        activity.record_blocked_write(second * 1_000);
        let command = command_after(&activity, second * 1_000 + 999);
        // The client reads 10 bytes/s, and the minimum is 500 bytes/s. The connection closes when the 30 s of grace
        // are used up.
        let closed = second * 1_000 + 999 >= 30_000 + second * 20;
        assert_eq!(command.is_some(), closed, "second {second}");
        if closed {
            return assert_eq!(command, Some(Command::Close(Timeout::Reader)));
        }
        activity.record_write(10, || (second + 1) * 1_000);
    }
    panic!("the connection was not closed");
}

#[test]
fn only_an_idle_connection_of_http_1_is_parked_and_still_has_its_deadlines() {
    let activity = served_once(false, 1_000);
    activity.record_flush();
    assert_eq!(command_after(&activity, 2_999), None);
    assert_eq!(command_after(&activity, 3_000), Some(Command::Park));
    assert!(activity.is_idle() && !activity.is_closing());
    assert_eq!(command_after(&activity, 76_000), Some(Command::Close(Timeout::Idle)));

    let activity = served_once(false, 1_000);
    assert_eq!(command_after(&activity, 3_000), Some(Command::Park));
    activity.issue(Command::Drain, 3_500);
    assert_eq!(command_after(&activity, 3_500), Some(Command::Drain));
    activity.resume();
    assert_eq!(command_after(&activity, 4_499), Some(Command::Drain), "only Park is withdrawn");

    assert_eq!(command_after(&served_once(true, 1_000), 70_000), None, "HTTP/2");
}

#[test]
fn a_connection_that_is_busy_in_any_way_is_not_idle() {
    type MakeBusy = fn(&Activity);
    let busy: [(&str, MakeBusy); 5] = [
        ("a request", Activity::begin_request),
        ("a body", Activity::hold),
        ("half a head", |it| assert!(it.receive(2_000))),
        ("a blocked write", |it| it.record_blocked_write(2_000)),
        ("a response that was not flushed", |it| {
            it.begin_request();
            it.end_request(2_000);
        }),
    ];
    for (name, make_busy) in busy {
        let activity = served_once(false, 1_000);
        activity.record_flush();
        assert!(activity.is_idle());
        make_busy(&activity);
        assert!(!activity.is_idle(), "{name}");
    }
    assert!(!Activity::new(0).is_idle(), "no request yet");
}

#[test]
fn drain_does_not_replace_close() {
    let activity = Activity::new(0);
    activity.issue(Command::Close(Timeout::Drain), 0);
    activity.issue(Command::Drain, 0);
    assert_eq!(activity.command(&Context::from_waker(Waker::noop())), Some(Command::Close(Timeout::Drain)));
}
