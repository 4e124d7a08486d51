//! The whole of Sortie under a clock, a network and disks that are simulated: the agents' loop, session, runner and
//! journal, and the control plane's sessions, engine and dispatcher, as they are. Only what touches the world is
//! replaced: what carries messages, what keeps them, and what does the work.
//!
//! A seed decides everything that happens, so that a run can be repeated. Time stands still but for what waits for it,
//! so that an hour takes milliseconds. Either side is killed at every step of the protocol: before and after each
//! message and each write; hosts lose their power, lines stall in one direction or both, stores fail before or after
//! they have written, clocks are set an hour forth and back, agents are copied. The oracle says what must hold all the
//! same.
//!
//! In reading order: [`world`] (what happens in a run), [`chaos`] (what goes wrong, by the seed), [`network`],
//! [`ledger`] and [`disk`] (what the two sides keep), [`work`] (what tasks do), [`oracle`] (what must hold).

// A simulation is a test: what cannot be is a panic with the seed.
#![allow(clippy::expect_used)]

pub mod chaos;
pub mod disk;
pub mod ledger;
pub mod network;
pub mod oracle;
pub mod work;
pub mod world;
