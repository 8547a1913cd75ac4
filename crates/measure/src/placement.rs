//! How far apart the two processors are, by the floor, not by what the guest believes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Floors below this many nanoseconds per round trip count as [`Placement::Near`].
///
/// The floor has modes. On two kinds of virtual machines it was 47 or 365 ns (AMD Zen 5), and 35 or 105 to 215 ns (Intel
/// Sapphire Rapids): the lowest for two hardware threads of one core, the others for two cores. Other machines may need
/// another border; see [`Settings::near_below_ns`](crate::Settings::near_below_ns). A report warns if the border divides a
/// mode ([`Collected::border_is_misplaced`](crate::Collected::border_is_misplaced)).
pub const NEAR_BELOW_NS: f64 = 80.0;

/// How far apart the two processes ran during one slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// The floor was below the border: two hardware threads of one core, or cores that share a near cache.
    Near,
    /// The floor was at or above the border.
    Far,
    /// Both processes share one CPU, so every hand-over is a context switch, and the figures say nothing about shared memory.
    OneCpu,
}

impl Placement {
    /// The two placements that a machine with two CPUs can have.
    pub const OF_TWO_CPUS: [Placement; 2] = [Placement::Near, Placement::Far];

    /// The placement for a floor of `floor_ns` per round trip.
    pub fn of(floor_ns: f64, near_below_ns: f64, one_cpu: bool) -> Placement {
        if one_cpu {
            Placement::OneCpu
        } else if floor_ns < near_below_ns {
            Placement::Near
        } else {
            Placement::Far
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Placement::Near => "near",
            Placement::Far => "far",
            Placement::OneCpu => "one cpu",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_tells_near_from_far() {
        assert_eq!(Placement::of(47.0, NEAR_BELOW_NS, false), Placement::Near);
        assert_eq!(Placement::of(79.9, NEAR_BELOW_NS, false), Placement::Near);
        assert_eq!(Placement::of(80.0, NEAR_BELOW_NS, false), Placement::Far);
        assert_eq!(Placement::of(365.0, NEAR_BELOW_NS, false), Placement::Far);
    }

    #[test]
    fn border_can_be_moved() {
        assert_eq!(Placement::of(180.0, 200.0, false), Placement::Near);
    }

    #[test]
    fn one_cpu_is_neither() {
        assert_eq!(Placement::of(47.0, NEAR_BELOW_NS, true), Placement::OneCpu);
    }
}
