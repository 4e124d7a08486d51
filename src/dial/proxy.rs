//! Which proxy a connection goes through.

use std::collections::HashMap;

/// What the standard variables say about proxies.
#[derive(Debug, Clone, Default)]
pub struct ProxyEnvironment {
    variables: HashMap<String, String>,
}

impl ProxyEnvironment {
    /// As this process's environment has them.
    pub fn from_process() -> Self {
        Self::none()
    }

    /// No proxy.
    pub fn none() -> Self {
        Self::default()
    }

    /// From variables by name.
    pub fn from_map(variables: &HashMap<String, String>) -> Self {
        Self { variables: variables.clone() }
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn endpoint(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
