//! The storm: programs are killed, lines harmed, disks filled and the database locked, at random times.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::Ledger;
use crate::ills::{self, Ill};
use crate::random::Random;
use crate::stage::Stage;

/// The time between two kills, in milliseconds.
const BETWEEN: (u64, u64) = (50, 1200);
/// For how long a killed program stays away, in milliseconds: mostly not at all, sometimes longer.
const SHORT_DOWN: (u64, u64) = (0, 300);
const LONG_DOWN: (u64, u64) = (1000, 5000);
/// After how many kills an ill comes, one time in so many.
const ILL_PERCENT: u64 = 6;
/// How long an ill lasts, in milliseconds. The control plane waits 5 s for a lock.
const ILL_LASTS: (u64, u64) = (500, 8000);
/// How often the programs are looked after.
const TENDING: Duration = Duration::from_millis(20);
/// After how many kills the state is told.
const TELL_EVERY: u32 = 50;

/// Whether whoever started it has had enough.
pub(crate) static STOPPED: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_stopped() -> bool {
    STOPPED.load(Ordering::SeqCst)
}

/// What the storm did.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    /// Kills, by what was killed.
    pub(crate) kills: BTreeMap<&'static str, u32>,
    /// Ills, by what they were.
    pub(crate) ills: BTreeMap<&'static str, u32>,
    /// How long it lasted.
    pub(crate) lasted: Duration,
}

/// Blows until so many kills are done.
pub(crate) fn blow(stage: &mut Stage, kills: u32, ledger: &Ledger, random: &mut Random) -> Damage {
    let begun = Instant::now();
    let mut damage = Damage::default();
    let mut ill: Option<(Instant, Ill)> = None;
    stage.weather.set_stormy(true);
    for number in 1..=kills {
        if is_stopped() {
            break;
        }
        let next = Instant::now() + random.milliseconds(BETWEEN.0, BETWEEN.1);
        while Instant::now() < next {
            stage.all().for_each(super::supervised::Supervised::tend);
            if ill.as_ref().is_some_and(|(until, _)| Instant::now() >= *until) {
                ill = None;
            }
            std::thread::sleep(TENDING);
        }
        *damage.kills.entry(kill(stage, random)).or_default() += 1;
        if ill.is_none() && random.percent(ILL_PERCENT) {
            let (name, begun) = fall_ill(stage, random);
            *damage.ills.entry(name).or_default() += 1;
            ill = Some((Instant::now() + random.milliseconds(ILL_LASTS.0, ILL_LASTS.1), begun));
        }
        if number % TELL_EVERY == 0 {
            let (posted, completed) = ledger.counts();
            println!("  {number} kills, {posted} tasks posted, {completed} completed");
        }
    }
    stage.weather.set_stormy(false);
    damage.lasted = begun.elapsed();
    damage
}

/// Kills something, as `kill -9` does.
fn kill(stage: &mut Stage, random: &mut Random) -> &'static str {
    let agent = usize::try_from(random.below(stage.agents.len() as u64)).unwrap_or_default();
    let mut down = || {
        let (least, most) = if random.percent(85) { SHORT_DOWN } else { LONG_DOWN };
        random.milliseconds(least, most)
    };
    let (first, second) = (down(), down());
    match random.below(100) {
        0..55 => {
            stage.agents[agent].kill(first);
            "agent"
        }
        55..80 => {
            stage.control_plane.kill(first);
            "control plane"
        }
        80..95 => {
            stage.control_plane.kill(first);
            stage.agents[agent].kill(second);
            "both"
        }
        _ => {
            stage.all().for_each(|program| program.kill(first));
            "everything"
        }
    }
}

fn fall_ill(stage: &Stage, random: &mut Random) -> (&'static str, Ill) {
    let [control_plane, agent] = stage.small_directories();
    match random.below(3) {
        0 if ills::may_mount() => ("control plane's disk full", Ill::fill(&control_plane)),
        1 if ills::may_mount() => ("agent's disk full", Ill::fill(&agent)),
        _ => ("database locked", Ill::lock(&stage.database())),
    }
}
