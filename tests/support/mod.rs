//! Rigs for tests, benchmarks and the demonstration: real programs on free loopback ports in private directories.
//!
//! Everything that a rig starts ends with it: when it is dropped, and also when the process that made it dies.
//! Rigs panic with what to do about it, for example which package to install.

// Every binary that includes these modules uses a part of them only, and rigs may panic as tests may.
#![allow(dead_code, unreachable_pub, unused_imports)]
#![allow(clippy::unwrap_used, clippy::expect_used)]
// Rigs are the other side of the wire: what they open does not go through the door.
#![allow(clippy::disallowed_methods)]

pub mod agent;
pub mod asyncssh;
pub mod binary;
pub mod control_plane;
pub mod cutter;
pub mod dulwich;
pub mod forward;
pub mod hole;
pub mod line;
pub mod memory;
pub mod nginx;
pub mod node;
pub mod process;
pub mod proxy;
pub mod python;
pub mod replay;
pub mod repository;
pub mod reverse_proxy;
pub mod s3;
pub mod scene;
pub mod small_disk;
pub mod sshd;
