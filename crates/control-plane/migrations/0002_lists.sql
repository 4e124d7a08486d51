-- The file says whose it is: "SORT" in ASCII.
PRAGMA application_id = 0x534f5254;

-- Lists by state or kind go through their own tasks alone; tasks_outcome has done so for outcomes.
CREATE INDEX tasks_state ON tasks (state, seq);
CREATE INDEX tasks_kind ON tasks (kind, seq);
