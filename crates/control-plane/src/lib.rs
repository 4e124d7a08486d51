//! The control plane of Sortie, in reading order.
pub mod settings;
pub mod dispatch;
pub mod identity;
pub mod store;
