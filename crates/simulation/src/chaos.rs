//! What goes wrong and when, by the seed alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio_util::sync::CancellationToken;

/// How likely each thing is, in thousandths, and how long it lasts. Drawn anew for each seed, so that some runs are
/// nearly quiet and others are storms of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// That a process is killed at a step.
    pub kill: u32,
    /// That a kill takes the host's power, and with it what is not on its disk.
    pub power: u32,
    /// That a store fails instead of writing, or after it has written.
    pub store: u32,
    /// That a task panics.
    pub panic: u32,
    /// The longest way of a message, in milliseconds.
    pub latency_ms: u64,
}

/// The source of all chance of a run. Clones share it.
#[derive(Debug, Clone)]
pub struct Chaos(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    random: Rng,
    weather: Weather,
    is_calm: bool,
    kills: u64,
}

impl Chaos {
    /// The chance of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut one_of = |choices: &[u32]| random.choice(choices).copied().unwrap_or(0);
        let weather = Weather {
            kill: one_of(&[0, 1, 3, 10, 30]),
            power: one_of(&[0, 300, 1000]),
            store: one_of(&[0, 0, 5, 30]),
            panic: one_of(&[0, 20]),
            latency_ms: u64::from(one_of(&[1, 20, 300, 3000])),
        };
        Self(Arc::new(Mutex::new(State { random, weather, is_calm: false, kills: 0 })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this run is like.
    pub fn weather(&self) -> Weather {
        self.state().weather
    }

    /// From now on nothing goes wrong any more.
    pub fn calm_down(&self) {
        self.state().is_calm = true;
    }

    /// Whether that is so.
    pub fn is_calm(&self) -> bool {
        self.state().is_calm
    }

    /// How many processes were killed.
    pub fn kills(&self) -> u64 {
        self.state().kills
    }

    /// A number below a limit.
    pub fn below(&self, limit: u64) -> u64 {
        self.state().random.u64(0..limit.max(1))
    }

    /// A number from 0 up to 1.
    pub fn fraction(&self) -> f64 {
        self.state().random.f64()
    }

    /// Whether something happens that is this likely, in thousandths, while things go wrong.
    pub fn strikes(&self, thousandths: u32) -> bool {
        let mut state = self.state();
        // The number is drawn in any case, so that a calm world goes on with the same numbers.
        let drawn = state.random.u32(0..1000);
        !state.is_calm && drawn < thousandths
    }

    /// A duration up to a limit, most of them short.
    pub fn duration(&self, limit: Duration) -> Duration {
        let drawn = self.fraction();
        limit.mul_f64(drawn * drawn * drawn)
    }

    /// How long a message is on its way.
    pub fn latency(&self) -> Duration {
        let limit = self.weather().latency_ms;
        Duration::from_millis(self.below(limit) + 1).min(self.duration(Duration::from_millis(limit)))
    }

    fn killed(&self) {
        self.state().kills += 1;
    }
}

/// One life of a program, which may be cut short at any step. Clones share it.
#[derive(Debug, Clone)]
pub struct Process {
    chaos: Chaos,
    end: CancellationToken,
    /// Whether the host went down with it: nobody says goodbye for it, and what was not on the disk is gone.
    power: CancellationToken,
}

impl Process {
    /// A process that has just started.
    pub fn new(chaos: &Chaos) -> Self {
        Self { chaos: chaos.clone(), end: CancellationToken::new(), power: CancellationToken::new() }
    }

    /// A point at which it may be killed: nothing behind it happens then.
    pub async fn step(&self) {
        if self.chaos.strikes(self.chaos.weather().kill) {
            self.kill();
            std::future::pending::<()>().await;
        }
    }

    /// Ends it, whatever it is doing.
    pub fn kill(&self) {
        self.chaos.killed();
        if self.chaos.strikes(self.chaos.weather().power) {
            self.power.cancel();
        }
        self.end.cancel();
    }

    /// Waits for its end.
    pub async fn killed(&self) {
        self.end.cancelled().await;
    }

    /// Whether its host lost power.
    pub fn lost_power(&self) -> bool {
        self.power.is_cancelled()
    }
}
