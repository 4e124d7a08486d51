//! The Sortie agent, as a library for its program, its tests and its benchmarks.
//!
//! A task's way through the code, in reading order: [`agent`] (the loop) takes a frame from [`session`] (the
//! protocol), hands it to [`runner`] (slots and deadlines), which calls [`task`] (what is to be done). That
//! asks [`policy`] (where it may go), loads a [`credential`], and goes out through [`dial`] (the door) with
//! [`provider`] (APIs), [`git`] and [`ssh`]; what is too large for a message goes by [`artifact`]. What was seen on the way becomes a [`report`]. `ARCHITECTURE.md`
//! has the map, and who may import whom.

pub mod agent;
pub mod artifact;
pub mod backoff;
pub mod cli;
pub mod config;
pub mod control_socket;
pub mod credential;
pub mod dial;
pub mod doctor;
pub mod enroll;
pub mod git;
pub mod health;
pub mod host_key;
pub mod identity;
pub mod journal;
pub mod local_socket;
pub mod policy;
pub mod provider;
pub mod pulse;
pub mod remote_url;
pub mod report;
pub mod runner;
pub mod secret;
pub mod session;
pub mod ssh;
pub mod status;
pub mod systemd;
pub mod task;
pub mod telemetry;
pub mod workspace;
