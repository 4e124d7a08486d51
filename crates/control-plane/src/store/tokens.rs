//! API tokens and enrollment tokens.

use sqlx::FromRow;

use super::agents::is_unique_violation;
use super::records::{from_word, to_text, word};
use super::{ApiToken, EnrollmentToken, Millis, NewApiToken, Sqlite, StoreError};

#[derive(FromRow)]
struct TokenRow {
    id: String,
    name: String,
    role: String,
    created_at: Millis,
}

impl TokenRow {
    fn record(self) -> Result<ApiToken, StoreError> {
        let role = from_word("role", self.role)?;
        Ok(ApiToken { id: self.id, name: self.name, role, created_at: self.created_at })
    }
}

impl Sqlite {
    pub(super) async fn add_enrollment_token(
        &self,
        now: Millis,
        token: &EnrollmentToken,
    ) -> Result<(), StoreError> {
        let _turn = self.turn().await?;
        sqlx::query(
            "INSERT INTO enrollment_tokens (hash, tags, max_uses, created_at, expires_at) \
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(&token.hash)
        .bind(to_text("list of tags", &token.tags)?)
        .bind(token.max_uses)
        .bind(now)
        .bind(token.expires_at)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    pub(super) async fn add_api_token(&self, now: Millis, token: &NewApiToken) -> Result<bool, StoreError> {
        let _turn = self.turn().await?;
        let added =
            sqlx::query("INSERT INTO api_tokens (id, name, role, hash, created_at) VALUES (?, ?, ?, ?, ?)")
                .bind(&token.id)
                .bind(&token.name)
                .bind(word(&token.role))
                .bind(&token.hash)
                .bind(now)
                .execute(&self.writer)
                .await;
        match added {
            Ok(_) => Ok(true),
            Err(error) if is_unique_violation(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn api_tokens(&self) -> Result<Vec<ApiToken>, StoreError> {
        let rows: Vec<TokenRow> = sqlx::query_as(
            "SELECT id, name, role, created_at FROM api_tokens WHERE revoked_at IS NULL ORDER BY name",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(TokenRow::record).collect()
    }

    pub(super) async fn api_token(&self, hash: &[u8]) -> Result<Option<ApiToken>, StoreError> {
        let row: Option<TokenRow> = sqlx::query_as(
            "SELECT id, name, role, created_at FROM api_tokens WHERE hash = ? AND revoked_at IS NULL",
        )
        .bind(hash)
        .fetch_optional(&self.readers)
        .await?;
        row.map(TokenRow::record).transpose()
    }

    pub(super) async fn revoke_api_token(&self, now: Millis, name: &str) -> Result<bool, StoreError> {
        let _turn = self.turn().await?;
        let done = sqlx::query("UPDATE api_tokens SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL")
            .bind(now)
            .bind(name)
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
