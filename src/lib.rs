//! The Sortie agent.
#![allow(missing_docs)]

pub mod agent;
pub mod backoff;
pub mod cli;
pub mod config;
pub mod credential;
pub mod dial;
pub mod enroll;
pub mod git;
pub mod host_key;
pub mod identity;
pub mod journal;
pub mod policy;
pub mod provider;
pub mod remote_url;
pub mod report;
pub mod runner;
pub mod secret;
pub mod session;
pub mod ssh;
pub mod systemd;
pub mod task;
pub mod telemetry;
