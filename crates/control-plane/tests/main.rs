//! The control plane from outside: a real server, a real database, a real WebSocket.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod artifacts;
mod attempts;
mod bad_input;
mod dispatching;
mod enrollment;
mod polling;
mod program;
mod restart;
mod sessions;
mod support;
mod tasks;
