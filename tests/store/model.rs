//! Compares the rotation with a model: a list of tokens in memory, written from the rules and not from the code.

use crate::bed::{Bed, GRACE, NOW, SESSION, TOKEN, What, on_file};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;

#[derive(Clone, Debug)]
enum Step {
    /// Presents the token that was issued `back` tokens before the newest one.
    Present { back: usize },
    /// Presents a token that was never issued.
    Invent,
    /// Lets this much time pass, in milliseconds.
    Pass(i64),
    /// Logs out.
    End,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Present { back: 0 }),
        4 => Just(Step::Present { back: 1 }),
        1 => (2_usize..5).prop_map(|back| Step::Present { back }),
        1 => Just(Step::Invent),
        3 => (0..=GRACE + 1).prop_map(Step::Pass),
        1 => Just(Step::Pass(GRACE)),
        1 => prop_oneof![Just(TOKEN - 1), Just(TOKEN), Just(SESSION)].prop_map(Step::Pass),
        1 => Just(Step::End),
    ];
    prop::collection::vec(step, 1..14)
}

/// The model of a session: its tokens, oldest first, each with its expiry and the time at which it was spent.
struct Model {
    tokens: Vec<(i64, Option<i64>)>,
    expires: i64,
    is_ended: bool,
    marks: usize,
}

impl Model {
    fn begin(now: i64) -> Self {
        Self { tokens: vec![(now + TOKEN, None)], expires: now + SESSION, is_ended: false, marks: 0 }
    }

    fn present(&mut self, number: usize, now: i64) -> &'static str {
        let Some(&(expires, spent)) = self.tokens.get(number) else { return "unknown" };
        if let Some(at) = spent {
            let is_direct = number + 2 == self.tokens.len();
            if !is_direct || now > at + GRACE {
                self.marks += usize::from(!self.is_ended);
                self.is_ended = true;
                return "reused";
            }
            let (successor_expires, _) = self.tokens[number + 1];
            return self.refusal(successor_expires, now).unwrap_or("repeated");
        }
        if let Some(refusal) = self.refusal(expires, now) {
            return refusal;
        }
        self.tokens[number].1 = Some(now);
        self.tokens.push(((now + TOKEN).min(self.expires), None));
        "rotated"
    }

    fn refusal(&self, expires: i64, now: i64) -> Option<&'static str> {
        match () {
            () if self.is_ended => Some("ended"),
            () if now >= expires.min(self.expires) => Some("expired"),
            () => None,
        }
    }
}

fn name(what: &What) -> &'static str {
    match what {
        What::Rotated(..) => "rotated",
        What::Repeated(..) => "repeated",
        What::Reused => "reused",
        What::Expired => "expired",
        What::Ended => "ended",
        What::Disabled => "disabled",
        What::Unknown => "unknown",
    }
}

async fn agrees(bed: &Bed, sid: &str, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut now = NOW;
    bed.begin("ada", sid, now).await;
    let mut model = Model::begin(now);
    let before = bed.store.marks(0).await.unwrap().last().map_or(0, |last| last.seq);
    let mut nonces = Vec::new();
    for step in steps {
        let number = match step {
            Step::Present { back } => match (model.tokens.len() - 1).checked_sub(*back) {
                Some(number) => number,
                None => continue,
            },
            Step::Invent => model.tokens.len() + 3,
            Step::Pass(time) => {
                now += time;
                continue;
            }
            Step::End => {
                let ended = bed.store.end_session(None, sid, "logout", now).await.unwrap();
                prop_assert_eq!(ended, !model.is_ended);
                model.marks += usize::from(ended);
                model.is_ended = true;
                continue;
            }
        };
        let expected = model.present(number, now);
        let what = bed.rotate(&format!("{sid}/{number}"), now).await;
        prop_assert_eq!(name(&what), expected, "token {} at {}", number, now - NOW);
        match what {
            What::Rotated(nonce, expires) => {
                prop_assert_eq!(expires, model.tokens[number + 1].0);
                prop_assert_eq!(nonces.len(), number, "a second successor");
                nonces.push(nonce);
            }
            What::Repeated(nonce, expires) => {
                prop_assert_eq!((nonce, expires), (nonces[number], model.tokens[number + 1].0));
            }
            What::Reused | What::Expired | What::Ended | What::Disabled | What::Unknown => {}
        }
    }
    prop_assert_eq!(bed.store.marks(before).await.unwrap().len(), model.marks);
    Ok(())
}

#[test]
fn the_rotation_always_does_as_its_model() {
    on_file(async |bed: Bed| {
        bed.account("ada").await;
        // All cases share one store, each with its own session, because opening and flushing a store takes most of the
        // time.
        let (send, cases) = std::sync::mpsc::channel::<(String, Vec<Step>, std::sync::mpsc::Sender<_>)>();
        let runner = std::thread::spawn(move || {
            let count = Cell::new(0);
            let config = Config { cases: 96, failure_persistence: None, ..Config::default() };
            TestRunner::new(config).run(&steps(), |steps| {
                count.set(count.get() + 1);
                let (answer, outcome) = std::sync::mpsc::channel();
                send.send((format!("s{}", count.get()), steps, answer)).unwrap();
                outcome.recv().unwrap()
            })
        });
        while let Ok((sid, steps, answer)) = cases.recv() {
            answer.send(agrees(&bed, &sid, &steps).await).unwrap();
        }
        if let Err(failure) = runner.join().unwrap() {
            panic!("{failure}");
        }
    });
}
