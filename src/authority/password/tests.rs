//! The imported hashes were generated with the libraries of Flask applications: Werkzeug 3.1.9
//! (`generate_password_hash`), bcrypt 5.0.0 (`hashpw`) and argon2-cffi 25.1.0 (`PasswordHasher`).

use super::*;
use proptest::prelude::*;
use rustix::time::{ClockId, clock_gettime};

const PASSWORD: &str = "correct horse";
const BEYOND_ASCII: &str = "Gr\u{fc}\u{df}e \u{4e16}\u{754c}";

/// Hashes of [`PASSWORD`], most of them at a low cost.
const HASHES: [&str; 10] = [
    "scrypt:1024:8:1$NgWNcg2kRs5yhlov$178ac503048a6d336c89a4b266dbe90d2a8c54236cfdd61d644a36bd7e0f5169bf6207dfcfd0ef26da37da283f40f071b549bf2615aa5ac603a7649b984632fc",
    "scrypt:1024:4:2$AANEsmITWEs0TLCA$165689127d1bd29448ac3aeb68d72162e7478693d28eb0c08523acc7c9c699b52d67146548d45e56e47b8bc21cb8fd9363bda4af4e0f3ee272f8d4753359e674",
    "pbkdf2:sha1:1000$QeyySzfZhVhEOZWv$330d9a969e2adcf7e0e378f92ec45c174cabe1fa",
    "pbkdf2:sha256:1000$hRMXRcSBeXpwaPp5$cfd92726e27b2076b0ee7d2c9eb7025d597cbcbd7c758a2b6b2083a1c5843881",
    "pbkdf2:sha512:1000$63vFHSu0uWp7LMt4$426ad63b3f30187c482e77c11fdb1fc9cfe73cf4235784cda84a02189a82ef95aa6013f9a5c29310854b0da88fddd1273c040535e65af7cbf50adc3e1a6f4856",
    "$2a$05$4cjtcf6FDXdvpGuDIfY9BeEvgWyHCZ2V2BRaIEBxJ4uYxg0Q0dtKK",
    "$2b$05$2rOa3rSbahuIvVVdyMgSwu4YB719RufZPWD8mhPulnNvclEZJBzMa",
    "$2b$04$fSbP.20xigrRdBDMzSbBe.KGBMkpnL0MvDClym1ZyLKTiDfOsBqmm",
    "$argon2id$v=19$m=64,t=1,p=1$P4lNfoz01eGkS37IfctyBA$GVrPhobeTZjuC0nckyrQ+ZsZ7s/uqvSO7UobJ9+AheE",
    "$argon2id$v=19$m=19456,t=2,p=1$2PGA4Qo2CYMz2s0WQGwy1A$KSBcKQ4wOH+bbofOoqn4blcyAoJuu2E+M0r5DUHSyoM",
];

/// Hashes of [`PASSWORD`] with the default parameters of the libraries.
const BY_DEFAULT: [&str; 3] = [
    "scrypt:32768:8:1$frgs4x3kz9A3GLwW$11f13279044472ad38614285494b4f79e675c11e130b59beaf22df63078d2fd66cba70724cab6b1a1cb719c0abd0393ebc9ac2daba0be35f076bb41d22c7ab06",
    "pbkdf2:sha256:1000000$oxJ5DE5w9h41AUWx$adf3325980d3614a14278e99ee2a456a8392378b52f8f9a4c62087cc0ad1429e",
    "$argon2id$v=19$m=65536,t=3,p=4$gI4Kf7E7PmyeXtBSukvXMQ$t/VVlVjq5A6Nu/bd9ICitqialqe1OEzwpI25llQ9zgo",
];

/// Hashes of [`BEYOND_ASCII`].
const HASHES_BEYOND_ASCII: [&str; 3] = [
    "pbkdf2:sha256:1000$TTFTln2kiIfTK1Xf$df22c1c4d05d74c3efd8977fa014f172a468571272d732e29501e0ee971eb583",
    "scrypt:1024:8:1$jggdHiZE3zPy45DZ$0dddf7a05e47ec4533f7102b4306c1fa1fd507181176a14dbc2563e7a421a65ca5ca1842f959f3a0244c10fa5df9e1716c9cf704437229413dc5c8ecf26c29da",
    "$2b$04$x4rsgTs9Q9AagUoXZJPzreieGkmhvvGAbRRh72c2nGOo44oD566wW",
];

/// The bcrypt hash of 72 times "x".
const X72: &str = "$2b$04$u7S7TNlMRfclc8ZjPFo4Cu631CYi5yVwUpV9zMt5tP/L3WEA0hHtW";
/// The bcrypt hash of 71 times "x".
const X71: &str = "$2b$04$u7S7TNlMRfclc8ZjPFo4CuMDNPdLiJOVC38Ln4TIJAAIo0on1lSwK";

fn is(stored: &str, password: &str) -> bool {
    StoredHash::parse(stored)
        .unwrap_or_else(|f| panic!("{stored}: {f}"))
        .matches(password, &mut Arena::default())
        .unwrap()
}

fn judged(password: &str, stored: Option<&str>, schemes: &[&str]) -> (PasswordCheck, Work) {
    let schemes: Vec<String> = schemes.iter().map(ToString::to_string).collect();
    let mut work = Work::default();
    let verdict = judge(password, stored, &schemes, &mut Arena::default(), &mut work);
    (verdict.unwrap(), work)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn text(password: &str) -> Zeroizing<String> {
    Zeroizing::new(password.to_owned())
}

#[test]
fn hashes_of_flask_applications_are_verified() {
    for hash in HASHES.iter().chain(&BY_DEFAULT) {
        assert!(is(hash, PASSWORD), "{hash}");
    }
    for hash in HASHES {
        assert!(!is(hash, "correct horsf"), "{hash}");
        assert!(!is(hash, ""), "{hash}");
        assert!(!is(hash, "correct horse "), "{hash}");
    }
    for hash in HASHES_BEYOND_ASCII {
        assert!(is(hash, BEYOND_ASCII), "{hash}");
        assert!(!is(hash, "Gruesse"), "{hash}");
    }
    // PHP writes `$2y$` instead of `$2b$`.
    let php = HASHES[6].replace("$2b$", "$2y$");
    assert!(is(&php, PASSWORD) && !is(&php, "other"));
}

#[test]
fn our_own_hash_is_a_phc_string_of_the_current_cost_with_a_salt_of_its_own() {
    let mut arena = Arena::default();
    let one = stored::hash(PASSWORD, &mut arena).unwrap();
    let other = stored::hash(PASSWORD, &mut arena).unwrap();
    assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
    assert_ne!(one, other);
    assert!(is(&one, PASSWORD) && !is(&one, "other"));
    assert_eq!(scheme(&one).as_deref(), Some("argon2id:19456:2"));
    assert!(!StoredHash::parse(&one).unwrap().needs_upgrade(PASSWORD));
    // The arena contains data of other hashes.
    assert!(StoredHash::parse(&one).unwrap().matches(PASSWORD, &mut arena).unwrap());
}

#[test]
fn a_hash_of_another_kind_or_a_lower_cost_is_upgraded_at_login() {
    for hash in &HASHES[..9] {
        let (verdict, _) = judged(PASSWORD, Some(hash), &[]);
        let PasswordCheck::Correct { upgraded: Some(new) } = verdict else { panic!("{hash}: {verdict:?}") };
        assert!(new.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && is(&new, PASSWORD));
    }
    // A more expensive hash is kept.
    for hash in [HASHES[9], BY_DEFAULT[2]] {
        assert_eq!(judged(PASSWORD, Some(hash), &[]).0, PasswordCheck::Correct { upgraded: None });
    }
}

#[test]
fn bcrypt_knows_72_bytes_and_what_lies_beyond_is_not_taken_for_checked() {
    let x = |count| "x".repeat(count);
    assert!(is(X72, &x(72)) && is(X71, &x(71)));
    assert!(!is(X72, &x(71)) && !is(X71, &x(72)));
    assert!(StoredHash::parse(X72).unwrap().needs_upgrade(&x(72)));
    // Python's bcrypt before version 5 ignored the bytes after the first 72, and so does the check. The hash is not
    // upgraded, because a new hash would include these bytes.
    assert_eq!(judged(&x(80), Some(X72), &[]).0, PasswordCheck::Correct { upgraded: None });
    assert!(!is(X71, "x\0"));
    assert!(!is(HASHES[6], "correct horse\0correct horse"));
}

#[test]
fn a_stored_hash_cannot_be_a_bomb() {
    let hex = "0".repeat(128);
    let phc = |parameters: &str| {
        format!(
            "$argon2id$v=19${parameters}$P4lNfoz01eGkS37IfctyBA$GVrPhobeTZjuC0nckyrQ+ZsZ7s/uqvSO7UobJ9+AheE"
        )
    };
    let bcrypt = |cost: u32| HASHES[6].replace("$05$", &format!("${cost:02}$"));
    for (good, dear) in [
        (phc("m=131072,t=3,p=4"), phc("m=131073,t=1,p=1")),
        (phc("m=65536,t=6,p=1"), phc("m=65536,t=7,p=1")),
        (phc("m=19456,t=2,p=1"), phc("m=19456,t=4294967295,p=1")),
        (phc("m=19456,t=2,p=1"), phc("m=99999999999999999999,t=1,p=1")),
        (phc("m=65536,t=3,p=64"), phc("m=65536,t=3,p=65")),
        (bcrypt(14), bcrypt(15)),
        (bcrypt(14), bcrypt(31)),
        (format!("scrypt:131072:8:2$salt${hex}"), format!("scrypt:131072:8:3$salt${hex}")),
        (format!("scrypt:131072:8:1$salt${hex}"), format!("scrypt:262144:8:1$salt${hex}")),
        (format!("scrypt:2:1:1$salt${hex}"), format!("scrypt:2:4294967295:4294967295$salt${hex}")),
        (format!("pbkdf2:sha512:2000000$salt${hex}"), format!("pbkdf2:sha512:2000001$salt${hex}")),
        (format!("pbkdf2:sha512$salt${hex}"), format!("pbkdf2:sha512:99999999999999$salt${hex}")),
    ] {
        assert_eq!(check_hash(&good), Ok(()), "{good}");
        assert!(matches!(check_hash(&dear), Err(HashFault::TooExpensive(_))), "{dear}");
    }
}

#[test]
fn an_invalid_hash_is_refused() {
    let hex = "0".repeat(64);
    for bad in [
        "",
        "correct horse",
        "$",
        "$2",
        "$2b$",
        "$2x$05$2rOa3rSbahuIvVVdyMgSwu4YB719RufZPWD8mhPulnNvclEZJBzMa",
        "$2b$05$2rOa3rSbahuIvVVdyMgSwu4YB719RufZPWD8mhPulnNvclEZJBzM",
        "$2b$03$2rOa3rSbahuIvVVdyMgSwu4YB719RufZPWD8mhPulnNvclEZJBzMa",
        "$2b$+5$2rOa3rSbahuIvVVdyMgSwu4YB719RufZPWD8mhPulnNvclEZJBzMa",
        "$2b$05$2rOa3rSbahuIvVVdyMgSwu4YB719RufZPWD8mhPulnNvclEZJB\u{fc}a",
        "$argon2i$v=19$m=64,t=1,p=1$P4lNfoz01eGkS37IfctyBA$GVrPhobeTZjuC0nckyrQ+ZsZ7s/uqvSO7UobJ9+AheE",
        "$argon2id$v=16$m=64,t=1,p=1$P4lNfoz01eGkS37IfctyBA$GVrPhobeTZjuC0nckyrQ+ZsZ7s/uqvSO7UobJ9+AheE",
        "$argon2id$v=19$m=64,t=1$P4lNfoz01eGkS37IfctyBA$GVrPhobeTZjuC0nckyrQ+ZsZ7s/uqvSO7UobJ9+AheE",
        "$argon2id$v=19$m=7,t=1,p=1$P4lNfoz01eGkS37IfctyBA$GVrPhobeTZjuC0nckyrQ+ZsZ7s/uqvSO7UobJ9+AheE",
        "$argon2id$v=19$m=64,t=0,p=1$P4lNfoz01eGkS37IfctyBA$GVrPhobeTZjuC0nckyrQ+ZsZ7s/uqvSO7UobJ9+AheE",
        "$argon2id$v=19$m=64,t=1,p=1$P4lNfoz01eGkS37IfctyBA$",
        "$argon2id$v=19$m=64,t=1,p=1$P4lNfoz01eGkS37IfctyBA$GVrPhobeTZjuC0nckyrQ+ZsZ7s/uqvSO7UobJ9+AheE$",
        &format!("pbkdf2:md5:1000$salt${hex}"),
        &format!("pbkdf2:sha256:0$salt${hex}"),
        &format!("pbkdf2:sha256:1000$salt${}", &hex[2..]),
        &format!("pbkdf2:sha256:1000$salt${}g", &hex[1..]),
        &format!("pbkdf2:sha256:1000$${hex}"),
        // Werkzeug makes salts of letters and digits.
        &format!("pbkdf2:sha256:1000$sält${hex}"),
        &format!("pbkdf2:sha256:1000$sa\tt${hex}"),
        &format!("pbkdf2:sha256:1000$sa t${hex}"),
        &format!("pbkdf2:sha256:1000:1$salt${hex}"),
        &format!("scrypt:1000:8:1$salt${hex}{hex}"),
        &format!("scrypt:1024:0:1$salt${hex}{hex}"),
        &format!("scrypt:1024:8$salt${hex}{hex}"),
        &format!("scrypt:1024:8:1$salt${hex}"),
        &format!("sha256$salt${hex}"),
    ] {
        assert!(check_hash(bad).is_err(), "{bad}");
        assert_eq!(scheme(bad), None);
        // An account with an invalid hash has no usable password. The check takes as long as for an unknown account.
        assert_eq!(judged("", Some(bad), &[]), judged("", None, &[]));
    }
}

#[test]
fn a_failed_attempt_costs_the_same_work_whether_and_how_the_account_exists() {
    let schemes: Vec<String> = HASHES.iter().filter_map(|hash| scheme(hash)).collect();
    let schemes: Vec<&str> = schemes.iter().map(String::as_str).collect();
    let (verdict, unknown) = judged("wrong", None, &schemes);
    assert_eq!(verdict, PasswordCheck::Wrong);
    assert_ne!(unknown, Work::default());
    for hash in HASHES {
        let (verdict, work) = judged("wrong", Some(hash), &schemes);
        assert_eq!(verdict, PasswordCheck::Wrong, "{hash}");
        assert_eq!(work, unknown, "{hash}");
    }
    // If all accounts have the gateway's own hash, a failed attempt costs only one such hash.
    assert_eq!(judged("wrong", None, &[]).1, Work::of(work::WorkUnit::Argon2, 38_912));
    // The work does not depend on the number of different costs in an import.
    let many: Vec<String> = (1..=5_000).map(|iterations| format!("pbkdf2:sha256:{iterations}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut wanted = Work::of(work::WorkUnit::Argon2, 38_912);
    wanted.add(&Work::of(work::WorkUnit::Sha256, 5_000));
    assert_eq!(judged("wrong", None, &many).1, wanted);
}

#[test]
fn a_scheme_states_the_cost_of_its_hash() {
    for hash in HASHES.iter().chain(&BY_DEFAULT) {
        let scheme = scheme(hash).unwrap();
        let of_scheme = kdf::Parameters::of_scheme(&scheme).unwrap_or_else(|| panic!("{scheme}"));
        assert_eq!(of_scheme.work(), StoredHash::parse(hash).unwrap().work(), "{scheme}");
    }
}

/// Starts a pool with more patience than a gateway has. The other tests leave its threads, which have the lowest priority,
/// little of the processor.
fn patient(threads: usize, queue: usize) -> Hashers {
    Hashers { patience: Duration::from_secs(300), ..Hashers::start(threads, queue) }
}

#[test]
fn the_pool_verifies_and_hashes() {
    let hashers = patient(2, 8);
    let none: Arc<[String]> = Arc::from([]);
    block_on(async {
        let hash = hashers.hash(text(PASSWORD)).await.unwrap();
        let verify = |password, stored| hashers.verify(text(password), stored, Arc::clone(&none));
        assert_eq!(verify(PASSWORD, Some(hash.clone())).await, Ok(PasswordCheck::Correct { upgraded: None }));
        assert_eq!(verify("wrong", Some(hash)).await, Ok(PasswordCheck::Wrong));
        assert_eq!(verify(PASSWORD, None).await, Ok(PasswordCheck::Wrong));
    });
}

/// Blocks the only thread of a pool until the sender is dropped.
fn held(hashers: &Hashers) -> mpsc::Sender<()> {
    let (release, wait) = mpsc::channel::<()>();
    let (started, begun) = mpsc::channel();
    let hold = move || {
        let _ = started.send(());
        let _ = wait.recv();
    };
    hashers.jobs.send(Job::Run(Box::new(hold))).unwrap();
    begun.recv().unwrap();
    release
}

#[test]
fn a_full_queue_is_busy_at_once_and_serves_again_when_it_is_not() {
    let hashers = patient(1, 2);
    let release = held(&hashers);
    block_on(async {
        let first = hashers.hash(text(PASSWORD));
        let second = hashers.hash(text(PASSWORD));
        tokio::pin!(first, second);
        // After one poll of each future, both passwords wait in the queue.
        assert!(tokio::time::timeout(Duration::ZERO, &mut first).await.is_err());
        assert!(tokio::time::timeout(Duration::ZERO, &mut second).await.is_err());
        assert_eq!(hashers.hash(text(PASSWORD)).await, Err(Busy));
        assert_eq!(hashers.verify(text(PASSWORD), None, Arc::from([])).await, Err(Busy));
        drop(release);
        assert!(first.await.is_ok());
        assert!(second.await.is_ok());
        assert!(hashers.hash(text(PASSWORD)).await.is_ok());
    });
}

#[test]
fn a_password_that_waits_for_too_long_reports_slow_hashing() {
    // Without a limit on the wait, expensive hashes could exceed the time limit of the request, and the error would
    // blame the store.
    let hashers = Hashers { patience: Duration::from_millis(20), ..Hashers::start(1, 8) };
    let release = held(&hashers);
    block_on(async {
        assert_eq!(hashers.verify(text(PASSWORD), None, Arc::from([])).await, Err(Busy));
        assert_eq!(hashers.hash(text(PASSWORD)).await, Err(Busy));
    });
    drop(release);
}

#[test]
fn a_verification_that_nobody_awaits_is_skipped() {
    let hashers = patient(1, 8);
    let release = held(&hashers);
    block_on(async {
        let dear: Arc<[String]> = Arc::from(["bcrypt:14".to_owned()]);
        for _ in 0..7 {
            let given_up = hashers.verify(text(PASSWORD), None, Arc::clone(&dear));
            assert!(tokio::time::timeout(Duration::ZERO, given_up).await.is_err());
        }
        drop(release);
        assert!(hashers.hash(text(PASSWORD)).await.is_ok());
    });
    // Each of the seven checks takes about a second of the processor's time.
    let (send, read) = mpsc::channel();
    let report = move || {
        let _ = send.send(clock_gettime(ClockId::ThreadCPUTime).tv_sec);
    };
    hashers.jobs.send(Job::Run(Box::new(report))).unwrap();
    let seconds = read.recv().unwrap();
    assert!(seconds < 4, "{seconds}");
}

#[test]
fn a_fault_in_one_job_does_not_end_the_pool() {
    let hashers = patient(1, 8);
    hashers.jobs.send(Job::Run(Box::new(|| panic!("a fault in a hash")))).unwrap();
    block_on(async { assert!(hashers.hash(text(PASSWORD)).await.is_ok()) });
}

#[test]
fn the_threads_have_the_lowest_priority_and_the_caller_keeps_its_own() {
    let hashers = patient(1, 8);
    let (send, read) = mpsc::channel();
    let report = move || {
        let _ = send.send(rustix::process::getpriority_process(None));
    };
    hashers.jobs.send(Job::Run(Box::new(report))).unwrap();
    assert_eq!(read.recv().unwrap(), Ok(19));
    assert!(rustix::process::getpriority_process(None).unwrap() < 19);
}

proptest! {
    #[test]
    fn no_text_is_ever_a_hash_that_breaks_the_check(text in "\\PC{0,80}", tail in "[$a-z0-9=,:./+]{0,80}") {
        let _ = check_hash(&text);
        for prefix in ["$2b$", "$argon2id$v=19$", "scrypt:", "pbkdf2:sha256:"] {
            let _ = check_hash(&format!("{prefix}{tail}"));
        }
    }
}
