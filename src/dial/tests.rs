//! The door against real sockets: every server here listens on a port of its own on this host.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::disallowed_methods, reason = "the tests' own servers and proxies are no part of the daemon")]

mod addresses;
mod http;
mod rig;
mod tls;
mod tunnel;
