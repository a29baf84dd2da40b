//! Compares the rotation with a model: a list of tokens in memory that follows the specified rules.

use crate::bed::{Bed, GRACE, NOW, SESSION, TOKEN, What, on_file};
use portcullis::authenticate::Thumbprint;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;

#[derive(Clone, Debug)]
enum Step {
    /// Presents a token with a proof by this party. `back` tokens were issued after it.
    Present { back: usize, by: Party },
    /// Presents a token that was never issued.
    Invent,
    /// Lets this much time pass, in milliseconds.
    Pass(i64),
    /// Logs out.
    End,
}

/// The party whose key a request proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Party {
    Owner,
    Thief,
    Nobody,
}

impl Party {
    fn key(self) -> Option<Thumbprint> {
        match self {
            Self::Owner => Some(Thumbprint([1; 32])),
            Self::Thief => Some(Thumbprint([2; 32])),
            Self::Nobody => None,
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    fn by(back: impl Strategy<Value = usize>) -> impl Strategy<Value = Step> {
        let party = prop_oneof![4 => Just(Party::Owner), 1 => Just(Party::Thief), 1 => Just(Party::Nobody)];
        (back, party).prop_map(|(back, by)| Step::Present { back, by })
    }
    let step = prop_oneof![
        6 => by(Just(0)),
        4 => by(Just(1)),
        1 => by(2_usize..5),
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
    is_bound: bool,
    is_ended: bool,
    marks: usize,
}

impl Model {
    fn begin(is_bound: bool, now: i64) -> Self {
        Self {
            tokens: vec![(now + TOKEN, None)],
            expires: now + SESSION,
            is_bound,
            is_ended: false,
            marks: 0,
        }
    }

    fn present(&mut self, number: usize, by: Party, now: i64) -> &'static str {
        let Some(&(expires, spent)) = self.tokens.get(number) else { return "unknown" };
        if self.is_bound && by != Party::Owner {
            return "unproven";
        }
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
        What::Unproven => "unproven",
        What::Expired => "expired",
        What::Ended => "ended",
        What::Disabled => "disabled",
        What::Unknown => "unknown",
    }
}

async fn agrees(bed: &Bed, sid: &str, is_bound: bool, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut now = NOW;
    bed.begin_bound("ada", sid, Party::Owner.key().filter(|_| is_bound), now).await;
    let mut model = Model::begin(is_bound, now);
    let before = bed.store.marks(0).await.unwrap().last().map_or(0, |last| last.seq);
    let mut nonces = Vec::new();
    for step in steps {
        let (number, by) = match step {
            Step::Present { back, by } => match (model.tokens.len() - 1).checked_sub(*back) {
                Some(number) => (number, *by),
                None => continue,
            },
            Step::Invent => (model.tokens.len() + 3, Party::Owner),
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
        let expected = model.present(number, by, now);
        let what = bed.rotate_by(by.key(), &format!("{sid}/{number}"), now).await;
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
            What::Reused | What::Unproven | What::Expired | What::Ended | What::Disabled | What::Unknown => {}
        }
    }
    prop_assert_eq!(bed.store.marks(before).await.unwrap().len(), model.marks);
    Ok(())
}

#[test]
fn the_rotation_always_does_as_its_model() {
    on_file(async |bed: Bed| {
        bed.account("ada").await;
        // All cases share one store, because opening and flushing a store takes most of the time. Each case has its own
        // session.
        let (send, cases) =
            std::sync::mpsc::channel::<(String, (bool, Vec<Step>), std::sync::mpsc::Sender<_>)>();
        let runner = std::thread::spawn(move || {
            let count = Cell::new(0);
            let config = Config { cases: 96, failure_persistence: None, ..Config::default() };
            TestRunner::new(config).run(&(any::<bool>(), steps()), |steps| {
                count.set(count.get() + 1);
                let (answer, outcome) = std::sync::mpsc::channel();
                send.send((format!("s{}", count.get()), steps, answer)).unwrap();
                outcome.recv().unwrap()
            })
        });
        while let Ok((sid, (is_bound, steps), answer)) = cases.recv() {
            answer.send(agrees(&bed, &sid, is_bound, &steps).await).unwrap();
        }
        if let Err(failure) = runner.join().unwrap() {
            panic!("{failure}");
        }
    });
}
