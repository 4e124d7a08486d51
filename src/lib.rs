//! The Sortie agent.
#![allow(missing_docs)]

pub mod config;
pub mod credential;
pub mod dial;
pub mod git;
pub mod host_key;
pub mod policy;
pub mod provider;
pub mod remote_url;
pub mod report;
pub mod secret;
pub mod ssh;
