//! Test servers that behave like Azure DevOps Server and GitLab, with real git repositories behind them.
//!
//! A [`World`] says who may do what: users, tokens with their scopes and expiry, projects and repositories. It is
//! read from a small TOML file or built in Rust. [`StandIns::start`] serves it over TLS on loopback and answers with
//! [`Running`], which stops everything when it is dropped. Each [`ServerHandle`] records the requests it saw and can
//! be told to misbehave while it runs ([`Fault`]).
//!
//! In reading order: `world` (what there is), `authority` (certificates), `running` (start and stop), `site` (what
//! both servers share for one request), `azure_devops` and `gitlab` (the two servers), `git_service` (git over HTTP
//! through `git http-backend`), `lfs` (the batch API and objects of Git LFS).

mod authority;
mod azure_devops;
mod contents;
mod credential;
mod fault;
mod git_service;
mod gitlab;
mod lfs;
mod recorder;
mod repository;
mod running;
mod site;
mod world;

pub use authority::{Authority, AuthorityError, CertificateKind, Issued};
pub use fault::Fault;
pub use recorder::RecordedRequest;
pub use running::{Running, ServerHandle, StandIns, StartError};
pub use world::{
    AzureDevOps, BadToken, Gitlab, MissingScope, Project, Provider, Release, Repository, Secret, Token,
    TokenKind, User, World, WorldError,
};
