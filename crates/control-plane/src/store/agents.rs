//! Registered agents.

use sqlx::FromRow;

use super::commit::BEGIN;
use super::records::{from_text, from_word, to_text};
use super::{AgentRecord, Millis, Sqlite, StoreError};

/// An agent that wants to be registered. Its signature has been checked.
#[derive(Debug, Clone)]
pub struct NewAgent {
    /// The identifier that it gets, unless its key has one already.
    pub id: String,
    /// The SHA-256 of its enrollment token.
    pub token_hash: Vec<u8>,
    /// Its public key.
    pub public_key: Vec<u8>,
    /// The base URL by which it dialed.
    pub origin: String,
    /// Its name.
    pub name: String,
    /// The tags of its own configuration.
    pub tags: Vec<String>,
    /// The version of its program.
    pub version: String,
    /// Its operating system.
    pub os: String,
    /// Its architecture.
    pub arch: String,
}

/// Why an agent was not registered.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// There is no such token.
    #[error("the enrollment token is not known here")]
    TokenUnknown,
    /// Its time is over.
    #[error("the enrollment token has expired")]
    TokenExpired,
    /// It has enrolled as many agents as it may.
    #[error("the enrollment token has been used")]
    TokenUsed,
    /// Another agent has the name.
    #[error("another agent has this name")]
    NameTaken,
    /// The database's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for EnrollError {
    fn from(error: sqlx::Error) -> Self {
        if is_unique_violation(&error) { Self::NameTaken } else { Self::Store(error.into()) }
    }
}

/// Whether a statement failed because another live row has the same name or key.
pub(super) fn is_unique_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

#[derive(FromRow)]
struct AgentRow {
    id: String,
    name: String,
    public_key: Vec<u8>,
    origin: String,
    tags: String,
    token_tags: String,
    token_hash: Vec<u8>,
    version: String,
    os: String,
    arch: String,
    max_tasks: u32,
    mode: String,
    created_at: Millis,
    last_seen_at: Option<Millis>,
}

#[derive(FromRow)]
struct TokenRow {
    tags: String,
    max_uses: i64,
    uses: i64,
    expires_at: Millis,
}

impl AgentRow {
    fn record(self) -> Result<AgentRecord, StoreError> {
        Ok(AgentRecord {
            tags: from_text("list of tags", &self.tags)?,
            token_tags: from_text("list of tags", &self.token_tags)?,
            mode: from_word("mode", self.mode)?,
            id: self.id,
            name: self.name,
            public_key: self.public_key,
            origin: self.origin,
            version: self.version,
            os: self.os,
            arch: self.arch,
            max_tasks: self.max_tasks,
            created_at: self.created_at,
            last_seen_at: self.last_seen_at,
        })
    }
}

impl Sqlite {
    pub(super) async fn agents(&self) -> Result<Vec<AgentRecord>, StoreError> {
        let rows: Vec<AgentRow> =
            sqlx::query_as("SELECT * FROM agents WHERE revoked_at IS NULL ORDER BY name")
                .fetch_all(&self.readers)
                .await?;
        rows.into_iter().map(AgentRow::record).collect()
    }

    pub(super) async fn agent(&self, id: &str) -> Result<Option<AgentRecord>, StoreError> {
        let row: Option<AgentRow> =
            sqlx::query_as("SELECT * FROM agents WHERE id = ? AND revoked_at IS NULL")
                .bind(id)
                .fetch_optional(&self.readers)
                .await?;
        row.map(AgentRow::record).transpose()
    }

    pub(super) async fn rename_agent(&self, id: &str, name: &str) -> Result<bool, StoreError> {
        let _turn = self.turn().await?;
        let renamed = sqlx::query("UPDATE agents SET name = ? WHERE id = ? AND revoked_at IS NULL")
            .bind(name)
            .bind(id)
            .execute(&self.writer)
            .await;
        match renamed {
            Ok(_) => Ok(true),
            Err(error) if is_unique_violation(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn enroll(&self, now: Millis, agent: &NewAgent) -> Result<AgentRecord, EnrollError> {
        let _turn = self.turn().await?;
        let mut tx = self.writer.begin_with(BEGIN).await?;
        let token: Option<TokenRow> =
            sqlx::query_as("SELECT tags, max_uses, uses, expires_at FROM enrollment_tokens WHERE hash = ?")
                .bind(&agent.token_hash)
                .fetch_optional(&mut *tx)
                .await?;
        let token = token.ok_or(EnrollError::TokenUnknown)?;
        let known: Option<AgentRow> =
            sqlx::query_as("SELECT * FROM agents WHERE public_key = ? AND revoked_at IS NULL")
                .bind(&agent.public_key)
                .fetch_optional(&mut *tx)
                .await?;
        // The same token with the same key is a repetition after a lost answer, and costs no use.
        if let Some(known) = known.as_ref().filter(|it| it.token_hash == agent.token_hash) {
            let id = known.id.clone();
            tx.rollback().await?;
            return self.agent(&id).await?.ok_or(EnrollError::TokenUnknown);
        }
        if token.expires_at <= now {
            return Err(EnrollError::TokenExpired);
        }
        if token.uses >= token.max_uses {
            return Err(EnrollError::TokenUsed);
        }
        // A key that comes with a new token keeps its identifier and takes what the new token gives.
        let id = known.map_or_else(|| agent.id.clone(), |known| known.id);
        sqlx::query(
            "INSERT INTO agents (id, name, public_key, origin, tags, token_tags, token_hash, \
             version, os, arch, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, origin = excluded.origin, \
             tags = excluded.tags, token_tags = excluded.token_tags, token_hash = excluded.token_hash",
        )
        .bind(&id)
        .bind(&agent.name)
        .bind(&agent.public_key)
        .bind(&agent.origin)
        .bind(to_text("list of tags", &agent.tags)?)
        .bind(&token.tags)
        .bind(&agent.token_hash)
        .bind(&agent.version)
        .bind(&agent.os)
        .bind(&agent.arch)
        .bind(now)
        .execute(&mut *tx)
        .await?;
        sqlx::query("UPDATE enrollment_tokens SET uses = uses + 1 WHERE hash = ?")
            .bind(&agent.token_hash)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        self.agent(&id).await?.ok_or(EnrollError::TokenUnknown)
    }
}
