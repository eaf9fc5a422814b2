-- Times are in microseconds since the epoch.

CREATE TABLE runs (
    id         INTEGER PRIMARY KEY,
    run_id     TEXT NOT NULL UNIQUE,
    started    INTEGER NOT NULL,
    ended      INTEGER,               -- NULL: the run was killed
    suite      TEXT NOT NULL,
    catalogue  TEXT NOT NULL,         -- digest
    candidate  TEXT NOT NULL,         -- name
    version    TEXT,                  -- as the candidate states it
    digest     TEXT,                  -- of its binary or image
    provider   TEXT NOT NULL,
    kernel     TEXT NOT NULL,
    arch       TEXT NOT NULL,
    profile    TEXT NOT NULL,
    conclusion TEXT NOT NULL,
    complete   INTEGER NOT NULL,      -- 1: without problems
    attempts   INTEGER NOT NULL
) STRICT;
CREATE INDEX runs_by_candidate ON runs (candidate, started);

-- The runs that a merged run was made from; a run that was not merged is its own and only source.
CREATE TABLE sources (
    run    INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    run_id TEXT NOT NULL,
    PRIMARY KEY (run, run_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX sources_by_id ON sources (run_id);

CREATE TABLE cases (
    id       INTEGER PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    scenario TEXT NOT NULL,
    title    TEXT NOT NULL,
    area     TEXT NOT NULL,
    level    TEXT NOT NULL
) STRICT;

CREATE TABLE results (
    run          INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    case_id      INTEGER NOT NULL REFERENCES cases,
    verdict      TEXT NOT NULL,
    class        TEXT,                -- as experiments gave it, where there were any
    passed       INTEGER NOT NULL,
    failed       INTEGER NOT NULL,
    infra        INTEGER NOT NULL,
    skipped      INTEGER NOT NULL,
    convergence  INTEGER NOT NULL,    -- how many values; their percentiles in milliseconds follow
    p50          REAL,
    p90          REAL,
    p99          REAL,
    max          REAL,
    PRIMARY KEY (run, case_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX results_by_case ON results (case_id, run);

CREATE TABLE signatures (
    id          INTEGER PRIMARY KEY,
    requirement TEXT NOT NULL,
    verb        TEXT NOT NULL,
    kind        TEXT NOT NULL,        -- 'unrecorded': the attempt failed and said nothing
    cell        TEXT NOT NULL,
    log         TEXT NOT NULL,
    UNIQUE (requirement, verb, kind, cell, log)
) STRICT;

-- Failed attempts of a case in a run, by what went wrong.
CREATE TABLE failures (
    run       INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    case_id   INTEGER NOT NULL REFERENCES cases,
    signature INTEGER NOT NULL REFERENCES signatures,
    attempts  INTEGER NOT NULL,
    example   TEXT NOT NULL,
    PRIMARY KEY (run, case_id, signature)
) STRICT, WITHOUT ROWID;

-- What is left of failures in runs that were pruned, so that an old flake never looks like a new one.
CREATE TABLE pruned (
    candidate     TEXT NOT NULL,
    case_id       INTEGER NOT NULL REFERENCES cases,
    signature     INTEGER NOT NULL REFERENCES signatures,
    attempts      INTEGER NOT NULL,
    first         INTEGER NOT NULL,
    first_version TEXT NOT NULL,
    last          INTEGER NOT NULL,
    last_version  TEXT NOT NULL,
    PRIMARY KEY (candidate, case_id, signature)
) STRICT, WITHOUT ROWID;
