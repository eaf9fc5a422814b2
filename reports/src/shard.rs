//! Parts of a run that are made by different processes or machines.
//!
//! Which part an attempt belongs to follows from the case's id and the attempt's number alone. So the parts of a run never
//! overlap, together they are the whole run, and an attempt has the same seed in its part as it would have in the whole.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use xxhash_rust::xxh3::xxh3_64;

/// Most parts of a run. What a shard holds is found by looking at attempts until there is one, which takes as long as there are parts.
pub const MAX_SHARDS: u32 = 1024;

/// One of `of` parts of a run, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shard {
    /// Which part, from 1 to `of`.
    pub index: u32,
    /// How many parts there are.
    pub of: u32,
}

/// A part that cannot be is refused where it is read.
impl<'de> Deserialize<'de> for Shard {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Parts {
            index: u32,
            of: u32,
        }
        let Parts { index, of } = Parts::deserialize(deserializer)?;
        let shard = Self { index, of };
        if !shard.possible() {
            return Err(D::Error::custom(format!(
                "there is no shard {shard}: at most {MAX_SHARDS} are counted from 1"
            )));
        }
        Ok(shard)
    }
}

impl Shard {
    fn possible(&self) -> bool {
        (1..=self.of).contains(&self.index) && self.of <= MAX_SHARDS
    }

    /// How many of a case's attempts from 1 to `runs` belong to this part, counted up to `most`. Takes time for as many as are counted, and never for
    /// `runs` of them: those of a log may be four thousand million.
    pub fn count(&self, case: &str, runs: u32, most: usize) -> usize {
        // A part holds one of `of` attempts; that it holds none of so many has a probability of e⁻⁶⁴.
        let looks = u32::try_from(most.saturating_add(1)).unwrap_or(u32::MAX);
        let looks = looks.saturating_mul(self.of.saturating_mul(64));
        let held = (1..=runs.min(looks)).filter(|attempt| self.holds(case, *attempt));
        held.take(most).count()
    }

    /// Whether an attempt belongs to this part.
    pub fn holds(&self, case: &str, attempt: u32) -> bool {
        let mut bytes = case.as_bytes().to_vec();
        // No id ends like this, so the number cannot be taken for a part of it.
        bytes.push(0);
        bytes.extend_from_slice(&attempt.to_le_bytes());
        xxh3_64(&bytes) % u64::from(self.of.max(1)) + 1 == u64::from(self.index)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shard = text.split_once('/').and_then(|(index, of)| {
            Some(Self {
                index: index.parse().ok()?,
                of: of.parse().ok()?,
            })
        });
        shard
            .filter(Self::possible)
            .ok_or_else(|| {
                format!("'{text}': a shard is like 2/8, the second of eight, counted from 1; there are at most {MAX_SHARDS}")
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shards_are_read_and_written() {
        assert_eq!("2/8".parse(), Ok(Shard { index: 2, of: 8 }));
        assert_eq!("1/1".parse(), Ok(Shard { index: 1, of: 1 }));
        for bad in ["0/8", "9/8", "1/0", "2", "a/b", "-1/2", "1/2/3", "1/1025"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
        for bad in [(0, 8), (9, 8), (0, 0), (1, 1025)] {
            let (index, of) = bad;
            let json = serde_json::json!({"index": index, "of": of});
            assert!(serde_json::from_value::<Shard>(json).is_err(), "{bad:?}");
        }
        assert_eq!(Shard { index: 2, of: 8 }.to_string(), "2/8");
    }

    #[test]
    fn an_attempt_stays_in_its_shard_in_all_versions() {
        let part = |case: &str, attempt| {
            (1..=8).find(|index| {
                Shard {
                    index: *index,
                    of: 8,
                }
                .holds(case, attempt)
            })
        };
        let table = [
            ("clusterip-basic[ipv4,TCP]", 1),
            ("clusterip-basic[ipv4,TCP]", 2),
            ("clusterip-basic[ipv6,TCP]", 1),
            ("udp-endpoint-replaced[ipv6,nodePort]", 77),
        ];
        let parts: Vec<_> = table.map(|(case, attempt)| part(case, attempt)).into();
        // Shards of one run may be made by harnesses of different builds: this never changes.
        insta::assert_debug_snapshot!(parts.into_iter().flatten().collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn every_attempt_is_in_exactly_one_shard(case in "[a-z-]{1,20}", attempt in 1_u32.., of in 1_u32..40) {
            let holders = (1..=of).filter(|index| Shard { index: *index, of }.holds(&case, attempt));
            prop_assert_eq!(holders.count(), 1);
        }

        #[test]
        fn attempts_are_counted_up_to_a_limit(case in "[a-z-]{1,20}", runs in 0_u32..400, of in 1_u32..40, most in 0_usize..30) {
            let shard = Shard { index: of / 2 + 1, of };
            let all = (1..=runs).filter(|attempt| shard.holds(&case, *attempt)).count();
            prop_assert_eq!(shard.count(&case, runs, most), all.min(most));
        }
    }

    #[test]
    fn shards_are_of_about_the_same_size() {
        let mut sizes = [0_u32; 8];
        for case in 0..100 {
            for attempt in 1..=80 {
                let held = (0..8).find(|at| {
                    let shard = Shard {
                        index: at + 1,
                        of: 8,
                    };
                    shard.holds(&format!("case-{case}"), attempt)
                });
                sizes[held.unwrap() as usize] += 1;
            }
        }
        assert!(
            sizes.iter().all(|size| (850..1150).contains(size)),
            "{sizes:?}"
        );
    }
}
