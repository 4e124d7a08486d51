-- What agents delivered, and what they are at delivering. The bytes lie in the artifact store, one object for each
-- part, under the artifact's identifier and the part's number. Every object has its row before it is written, so
-- that nothing can lie there of which nobody knows.
CREATE TABLE artifacts (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    task_id      TEXT NOT NULL,
    attempt      BIGINT NOT NULL,
    agent_id     TEXT NOT NULL,
    file_name    TEXT NOT NULL,
    media_type   TEXT NOT NULL,
    -- open, complete, removing (its objects are to go) or removed (a request that is repeated does not revive it).
    state        TEXT NOT NULL,
    part_bytes   BIGINT NOT NULL,
    -- Of all parts together, those included that are being written.
    bytes        BIGINT NOT NULL DEFAULT 0,
    sha256       TEXT,
    created_at   BIGINT NOT NULL,
    touched_at   BIGINT NOT NULL,
    completed_at BIGINT,
    expires_at   BIGINT,
    UNIQUE (task_id, attempt, file_name)
);
CREATE INDEX artifacts_state ON artifacts (state, seq);
CREATE INDEX artifacts_open ON artifacts (agent_id) WHERE state = 'open';

CREATE TABLE artifact_parts (
    artifact_id TEXT NOT NULL REFERENCES artifacts (id) ON DELETE CASCADE,
    number      BIGINT NOT NULL,
    bytes       BIGINT NOT NULL,
    sha256      TEXT NOT NULL,
    -- Whether the object is durable.
    stored      BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (artifact_id, number)
) WITHOUT ROWID;
