-- How long this database has been served, in milliseconds, and what the clock of the wall showed then. One row.
CREATE TABLE clock (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    elapsed BIGINT NOT NULL,
    wall    BIGINT NOT NULL
);

-- What `elapsed` was when the task was posted: the wall's clock may be set, and says nothing about how long it waited.
ALTER TABLE tasks ADD COLUMN posted_elapsed BIGINT NOT NULL DEFAULT 0;

-- The result of an attempt after which its task went on to another agent. It becomes the task's where none is left.
ALTER TABLE attempts ADD COLUMN result TEXT;

-- What goes with a task that is removed is found without reading every key.
CREATE INDEX idempotency_keys_task ON idempotency_keys (task_id);
