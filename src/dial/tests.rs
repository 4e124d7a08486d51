//! The door against real sockets: every server here listens on a port of its own on this host.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod addresses;
mod http;
mod rig;
mod tls;
mod tunnel;
