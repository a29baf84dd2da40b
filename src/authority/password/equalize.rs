//! Makes a failed attempt cost the same for every account. If the account's hash is cheaper, the remaining work is
//! spent on hashes that are discarded.

use super::Busy;
use super::kdf::{Arena, Digest, MEMORY, PASSES, Parameters};
use super::work::{WORK_UNITS, Work, WorkUnit};
use std::collections::BTreeSet;
use std::hint::black_box;

/// Returns the cost of a failed attempt: the cost of the most expensive hash of each kind in `schemes`. Always includes
/// the gateway's own kind, because new accounts have such a hash.
pub(super) fn work_of_schemes(schemes: BTreeSet<&str>) -> Work {
    let ours = Parameters::Argon2id { memory: MEMORY, passes: PASSES, lanes: 1 };
    let theirs = schemes.into_iter().filter_map(Parameters::of_scheme);
    theirs.chain([ours]).fold(Work::default(), |mut dearest, parameters| {
        dearest.raise_to(&parameters.work());
        dearest
    })
}

/// Spends `work` on hashes that are discarded.
pub(super) fn spend(work: &Work, password: &str, arena: &mut Arena) -> Result<(), Busy> {
    for kind in WORK_UNITS {
        for parameters in portions(kind, work.units(kind)) {
            let mut output = [0; 32];
            parameters.derive(password, b"a salt of nobody", &mut output, arena)?;
            black_box(output);
        }
    }
    Ok(())
}

/// Returns hashes of one kind that together cost `units`. The sum is exact for PBKDF2 and for bcrypt, whose costs are
/// multiples of 16. For other kinds, the difference is smaller than the cost of the smallest hash.
fn portions(kind: WorkUnit, units: u64) -> Vec<Parameters> {
    // A hash of bcrypt or scrypt costs a power of two, so each bit of `units` becomes one hash.
    let bits = |from: u32| (from..u64::BITS).filter(move |bit| units >> bit & 1 == 1);
    let iterations = |digest| {
        let iterations = u32::try_from(units).unwrap_or(u32::MAX);
        if iterations == 0 { Vec::new() } else { vec![Parameters::Pbkdf2 { digest, iterations }] }
    };
    match kind {
        WorkUnit::Argon2 => {
            let mut portions = Vec::new();
            let mut left = u32::try_from(units).unwrap_or(u32::MAX);
            if left >= MEMORY {
                let passes = left / MEMORY;
                left -= passes * MEMORY;
                portions.push(Parameters::Argon2id { memory: MEMORY, passes, lanes: 1 });
            }
            if left >= 8 {
                portions.push(Parameters::Argon2id { memory: left, passes: 1, lanes: 1 });
            }
            portions
        }
        WorkUnit::Bcrypt => bits(4).map(|cost| Parameters::Bcrypt { cost }).collect(),
        // These hashes have r = 8, the usual value.
        WorkUnit::Scrypt => {
            bits(4).map(|bit| Parameters::Scrypt { log_n: bit as u8 - 3, r: 8, p: 1 }).collect()
        }
        WorkUnit::Sha1 => iterations(Digest::Sha1),
        WorkUnit::Sha256 => iterations(Digest::Sha256),
        WorkUnit::Sha512 => iterations(Digest::Sha512),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn total(kind: WorkUnit, units: u64) -> u64 {
        let mut sum = Work::default();
        for parameters in portions(kind, units) {
            sum.add(&parameters.work());
        }
        sum.units(kind)
    }

    proptest! {
        #[test]
        fn portions_always_cost_what_was_asked(units in 0_u64..4_000_000) {
            for kind in [WorkUnit::Sha1, WorkUnit::Sha256, WorkUnit::Sha512] {
                prop_assert_eq!(total(kind, units), units);
            }
            prop_assert!(units - total(WorkUnit::Argon2, units) < 8);
            prop_assert_eq!(total(WorkUnit::Bcrypt, units), units / 16 * 16);
            prop_assert_eq!(total(WorkUnit::Scrypt, units), units / 16 * 16);
        }
    }

    #[test]
    fn a_failed_attempt_costs_the_dearest_hash_of_each_kind_and_ours() {
        let work = work_of_schemes(["bcrypt:10", "bcrypt:12", "scrypt", "pbkdf2:sha256:5000", "what"].into());
        let mut wanted = Work::of(WorkUnit::Argon2, 38_912);
        wanted.add(&Work::of(WorkUnit::Bcrypt, 4_096));
        wanted.add(&Work::of(WorkUnit::Scrypt, 262_144));
        wanted.add(&Work::of(WorkUnit::Sha256, 5_000));
        assert_eq!(work, wanted);
    }
}
