//! The kinds of git servers: the grammar of their URLs, the calls to their APIs, what their answers mean.

/// The kind of a git server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Azure DevOps Server or Azure DevOps Services.
    AzureDevops,
    /// GitLab, self-managed or gitlab.com.
    Gitlab,
    /// A git server without an API.
    Git,
}

impl Provider {
    /// The name that a person types.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AzureDevops => "azure-devops",
            Self::Gitlab => "gitlab",
            Self::Git => "git",
        }
    }
}
