//! `sortie-control token create|list|revoke`.

use clap::Subcommand;

use super::{Database, Failure, print};
use crate::engine::wall_clock;
use crate::identity::{Token, new_id, sha256};
use crate::store::{NewApiToken, Role};

/// The longest name of a token, in bytes.
const MAX_NAME_BYTES: usize = 128;

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token, print it, and keep its hash alone. Works with or without a running server.
    #[command(after_help = "\
Example:
  sortie-control token create --name ci --role dispatcher --database sqlite:control.db > ci.token")]
    Create {
        /// The name, one of a kind among tokens that are not revoked.
        #[arg(long)]
        name: String,
        /// What its holder may do.
        #[arg(long, value_enum)]
        role: Role,
        #[command(flatten)]
        database: Database,
    },
    /// Show the names and roles of all tokens.
    List {
        #[command(flatten)]
        database: Database,
    },
    /// Revoke a token by its name.
    Revoke {
        /// The name.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        database: Database,
    },
}

impl TokenCommand {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Create { name, role, database } => create(name, role, &database).await,
            Self::List { database } => list(&database).await,
            Self::Revoke { name, database } => revoke(&name, &database).await,
        }
    }
}

async fn create(name: String, role: Role, database: &Database) -> Result<(), Failure> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        let message = format!("--name has 1 to {MAX_NAME_BYTES} bytes without control characters");
        return Err(Failure::Failed(message));
    }
    let store = database.open().await?;
    let token = Token::generate("sortie_").map_err(Failure::failed)?;
    let id = new_id("token").map_err(Failure::failed)?;
    let kept = NewApiToken { id, name: name.clone(), role, hash: sha256(token.expose().as_bytes()) };
    let added = store.add_api_token(wall_clock(), &kept).await.map_err(Failure::failed)?;
    store.close().await;
    if !added {
        let message =
            format!("there is a token with the name {name}; choose another name, or revoke that one");
        return Err(Failure::Failed(message));
    }
    print(token.expose());
    Ok(())
}

async fn list(database: &Database) -> Result<(), Failure> {
    let store = database.open().await?;
    for token in store.api_tokens().await.map_err(Failure::failed)? {
        print(&format!("{:<12}{}", format!("{:?}", token.role).to_lowercase(), token.name));
    }
    store.close().await;
    Ok(())
}

async fn revoke(name: &str, database: &Database) -> Result<(), Failure> {
    let store = database.open().await?;
    let revoked = store.revoke_api_token(wall_clock(), name).await.map_err(Failure::failed)?;
    store.close().await;
    if revoked { Ok(()) } else { Err(Failure::Failed(format!("there is no token with the name {name}"))) }
}
