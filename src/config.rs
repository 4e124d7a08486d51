//! What the configuration says, turned into what is valid. Nothing here opens a socket.

mod server;

pub use server::{HttpProxy, Proxy, ProxyAuthorization, Server};
