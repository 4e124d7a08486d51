//! The control plane of Sortie.
//!
//! Reading order: [`dispatch`] decides, [`store`] keeps, [`engine`] carries out. [`session`] talks to one
//! agent, [`websocket`] and [`polling`] are its transports, [`admission`] and [`enroll`] say who may. [`artifacts`] keeps what agents
//! deliver. [`api`] is for clients, [`server`] listens, [`cli`] is the program. [`settings`] holds every duration and every limit.

pub mod admission;
pub mod api;
pub mod artifacts;
pub mod cli;
pub mod dispatch;
pub mod engine;
pub mod enroll;
pub mod identity;
pub mod polling;
pub mod server;
pub mod session;
pub mod settings;
pub mod store;
pub mod telemetry;
pub mod tls_client;
pub mod websocket;
