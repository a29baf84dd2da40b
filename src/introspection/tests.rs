//! Unit tests of the open questions.

use super::*;
use crate::key_source::FetchError;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

fn introspector(rate: u32, concurrent: usize) -> Arc<Introspector> {
    let settings = IntrospectionSettings { rate, concurrent, ..IntrospectionSettings::for_tests() };
    Introspector::after(settings, Arc::new(RootCertStore::empty()), None).unwrap()
}

fn digest(token: u8) -> TokenDigest {
    [token; 32]
}

fn inquiry(introspector: &Arc<Introspector>, token: u8) -> Inquiry {
    introspector.inquiry(digest(token), &format!("token-{token}"))
}

fn failed() -> Result<Verdict, FetchError> {
    Err(FetchError { kind: "status", why: format!("500\n{}", "a".repeat(1000)) })
}

fn in_time(task: impl Future) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), task).await.unwrap() });
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[test]
fn requests_with_one_token_share_one_question() {
    in_time(async {
        let introspector = introspector(100, 8);
        let now = Now::read();
        let waits: Vec<_> = (0..50).map(|_| inquiry(&introspector, 1)).collect();
        let mut waits: Vec<_> = waits.iter().map(|inquiry| Box::pin(inquiry.wait(deadline(), now))).collect();
        let mut context = Context::from_waker(Waker::noop());
        assert!(waits.iter_mut().all(|wait| wait.as_mut().poll(&mut context).is_pending()));
        assert_eq!(introspector.status().open, 1);
        let asked = introspector.next().await;
        assert_eq!(asked.token(), "token-1");
        asked.end(Ok(Verdict::Active(b"{}".to_vec())), Duration::from_millis(1), now);
        for wait in waits {
            assert_eq!(wait.await, Ok(()));
        }
        assert!(matches!(introspector.standing(&digest(1), now), Some(Standing::Active { .. })));
        assert_eq!((introspector.status().open, introspector.state().flights.waiting), (0, 0));
        assert_eq!(inquiry(&introspector, 1).wait(deadline(), now).await, Ok(()), "without a question");
        assert_eq!(introspector.status().open, 0);
    });
}

#[test]
fn requests_with_an_invented_token_leave_room_for_those_with_known_ones() {
    in_time(async {
        let introspector = introspector(100, 8);
        let now = Now::read();
        let known = inquiry(&introspector, 1);
        introspector.answer_for_tests(digest(1), Verdict::Active(b"{}".to_vec()), now);
        let later = now.later(now.steady + Duration::from_secs(61));
        // All of them join one question.
        let invented = inquiry(&introspector, 2);
        let mut context = Context::from_waker(Waker::noop());
        let mut waits: Vec<_> = (0..1024).map(|_| Box::pin(invented.wait(deadline(), later))).collect();
        let polled: Vec<_> = waits.iter_mut().map(|wait| wait.as_mut().poll(&mut context)).collect();
        let refused = polled.iter().filter(|polled| **polled == Poll::Ready(Err(Unanswered::Waiting)));
        assert_eq!((refused.count(), introspector.status().open), (256, 1));
        let mut waits: Vec<_> = (0..256).map(|_| Box::pin(known.wait(deadline(), later))).collect();
        assert!(waits.iter_mut().all(|wait| wait.as_mut().poll(&mut context).is_pending()));
        let mut last = pin!(known.wait(deadline(), later));
        assert_eq!(last.as_mut().poll(&mut context), Poll::Ready(Err(Unanswered::Waiting)));
    });
}

#[test]
fn a_question_that_fails_or_is_dropped_wakes_its_requests_and_leaves_no_answer() {
    in_time(async {
        let introspector = introspector(100, 8);
        let now = Now::read();
        for is_dropped in [false, true] {
            let inquiry = inquiry(&introspector, 1);
            let mut wait = pin!(inquiry.wait(deadline(), now));
            assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            let asked = introspector.next().await;
            if !is_dropped {
                asked.end(failed(), Duration::ZERO, now);
            } else {
                drop(asked);
            }
            let why = (!is_dropped).then(|| Arc::from(format!("500\\n{}", "a".repeat(296))));
            assert_eq!(wait.await, Err(Unanswered::Failed(why)));
            assert_eq!(introspector.standing(&digest(1), now), None);
            assert_eq!(introspector.status().open, 0);
        }
        let inquiry = inquiry(&introspector, 2);
        let mut wait = pin!(inquiry.wait(deadline(), now));
        assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        introspector.abandon();
        assert_eq!(wait.await, Err(Unanswered::Failed(None)));
    });
}

#[test]
fn invented_tokens_leave_room_for_known_ones() {
    in_time(async {
        let introspector = introspector(100, 8);
        let now = Now::read();
        // The token 1 was active, and its answer has become too old.
        let known = inquiry(&introspector, 1);
        introspector.answer_for_tests(digest(1), Verdict::Active(b"{}".to_vec()), now);
        let later = now.later(now.steady + Duration::from_secs(61));
        let invented: Vec<_> = (2..20).map(|token| inquiry(&introspector, token)).collect();
        let mut waits = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        for (index, inquiry) in invented.iter().enumerate() {
            let mut wait = Box::pin(inquiry.wait(deadline(), later));
            match wait.as_mut().poll(&mut context) {
                Poll::Pending => waits.push(wait),
                Poll::Ready(outcome) => {
                    assert_eq!((outcome, index >= 6), (Err(Unanswered::Concurrent), true))
                }
            }
        }
        assert_eq!(waits.len(), 6, "two of eight places are reserved");
        let mut wait = pin!(known.wait(deadline(), later));
        assert!(wait.as_mut().poll(&mut context).is_pending(), "the known token has its question");
        assert_eq!(introspector.status().open, 7);
    });
}

#[test]
fn unknown_tokens_are_asked_about_at_the_rate_and_no_faster() {
    in_time(async {
        let introspector = introspector(5, 100);
        let now = Now::read();
        let mut context = Context::from_waker(Waker::noop());
        let mut ask = |token: u8, now: Now| {
            let inquiry = inquiry(&introspector, token);
            let mut wait = pin!(inquiry.wait(deadline(), now));
            let outcome = wait.as_mut().poll(&mut context);
            introspector.abandon();
            outcome
        };
        for token in 0..5 {
            assert!(ask(token, now).is_pending(), "{token}");
        }
        assert_eq!(ask(5, now), Poll::Ready(Err(Unanswered::Rate)));
        let later = now.later(now.steady + Duration::from_millis(200));
        assert!(ask(6, later).is_pending());
        assert_eq!(ask(7, later), Poll::Ready(Err(Unanswered::Rate)));
        assert_eq!(introspector.status().over, [("waiting", 0), ("concurrent", 0), ("rate", 2)]);
    });
}

#[test]
fn nothing_that_is_shown_contains_a_token_or_a_secret() {
    let introspector = introspector(5, 5);
    let inquiry = introspector.inquiry(digest(1), "s3cret-token");
    let mut context = Context::from_waker(Waker::noop());
    let mut wait = Box::pin(inquiry.wait(Instant::now(), Now::read()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    assert!(matches!(wait.as_mut().poll(&mut context), Poll::Pending | Poll::Ready(Err(_))));
    let shown = format!("{introspector:?} {inquiry:?} {:?}", introspector.state());
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn equal_settings_keep_the_answers_of_the_previous_policy() {
    let before = introspector(5, 5);
    let roots = || Arc::new(RootCertStore::empty());
    let same = Introspector::after(before.settings.clone(), roots(), Some(&before)).unwrap();
    assert!(Arc::ptr_eq(&before, &same));
    let changed = IntrospectionSettings { max_age: Duration::from_secs(30), ..before.settings.clone() };
    assert!(!Arc::ptr_eq(&before, &Introspector::after(changed, roots(), Some(&before)).unwrap()));
}
