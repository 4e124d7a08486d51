-- Times are milliseconds since 1970 in UTC. Secrets are kept as SHA-256 alone.

CREATE TABLE api_tokens (
    id          TEXT PRIMARY KEY NOT NULL,
    name        TEXT NOT NULL,
    role        TEXT NOT NULL,
    hash        BLOB NOT NULL UNIQUE,
    created_at  BIGINT NOT NULL,
    revoked_at  BIGINT
);
CREATE UNIQUE INDEX api_tokens_live_name ON api_tokens (name) WHERE revoked_at IS NULL;

CREATE TABLE enrollment_tokens (
    hash        BLOB PRIMARY KEY NOT NULL,
    tags        TEXT NOT NULL,
    max_uses    BIGINT NOT NULL,
    uses        BIGINT NOT NULL DEFAULT 0,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL
);

CREATE TABLE agents (
    id           TEXT PRIMARY KEY NOT NULL,
    name         TEXT NOT NULL,
    public_key   BLOB NOT NULL,
    origin       TEXT NOT NULL,
    tags         TEXT NOT NULL,
    token_tags   TEXT NOT NULL,
    token_hash   BLOB NOT NULL,
    version      TEXT NOT NULL,
    os           TEXT NOT NULL,
    arch         TEXT NOT NULL,
    max_tasks    BIGINT NOT NULL DEFAULT 0,
    mode         TEXT NOT NULL DEFAULT 'active',
    created_at   BIGINT NOT NULL,
    last_seen_at BIGINT,
    revoked_at   BIGINT
);
CREATE UNIQUE INDEX agents_live_name ON agents (name) WHERE revoked_at IS NULL;
CREATE UNIQUE INDEX agents_live_key ON agents (public_key) WHERE revoked_at IS NULL;

CREATE TABLE tasks (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT NOT NULL UNIQUE,
    kind          TEXT NOT NULL,
    spec          TEXT NOT NULL,
    state         TEXT NOT NULL,
    outcome       TEXT,
    reason        TEXT,
    cancel_reason TEXT,
    result        TEXT,
    created_at    BIGINT NOT NULL,
    completed_at  BIGINT
);
CREATE INDEX tasks_live ON tasks (seq) WHERE state <> 'completed';
CREATE INDEX tasks_outcome ON tasks (outcome, seq);

CREATE TABLE task_labels (
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    key     TEXT NOT NULL,
    value   TEXT NOT NULL,
    PRIMARY KEY (task_id, key)
);
CREATE INDEX task_labels_value ON task_labels (key, value);

-- The pair (task_id, number) fences everything; a number is never used twice.
CREATE TABLE attempts (
    task_id     TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    number      BIGINT NOT NULL,
    agent_id    TEXT NOT NULL,
    agent_name  TEXT NOT NULL,
    offered_at  BIGINT NOT NULL,
    started_at  BIGINT,
    ended_at    BIGINT,
    outcome     TEXT,
    diagnosis   TEXT,
    reason      TEXT,
    -- Whether the end came from a result of the agent's: its repetition is a duplicate then.
    by_result   BOOLEAN NOT NULL DEFAULT FALSE,
    -- Whether the attempt counts towards the limit after which a task is dead.
    counted     BOOLEAN NOT NULL DEFAULT FALSE,
    -- The outcome of a result that came when the attempt had already been given up; not counted.
    late_result TEXT,
    PRIMARY KEY (task_id, number)
);

CREATE TABLE idempotency_keys (
    token_id  TEXT NOT NULL,
    key       TEXT NOT NULL,
    body_hash BLOB NOT NULL,
    task_id   TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    PRIMARY KEY (token_id, key)
);
