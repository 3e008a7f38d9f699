-- AUTOINCREMENT: a number that was given up is never given again. Who still holds it would write into another's row.
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
-- delivered: a site's events that no range counts (any more); those of its ranges come to them.
CREATE TABLE site (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, delivered INTEGER NOT NULL DEFAULT 0);
-- looked: when all that lay under its names, and their rotated siblings, was last known. Microseconds since 1970.
CREATE TABLE pattern (text TEXT PRIMARY KEY, looked INTEGER) WITHOUT ROWID;
-- ended: 0 followed, 1 read to its end and closed, 2 not to be found any more.
CREATE TABLE log (
    id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB NOT NULL, dev INTEGER NOT NULL, ino INTEGER NOT NULL,
    fingerprint TEXT NOT NULL, format TEXT, last_read INTEGER, ended INTEGER NOT NULL DEFAULT 0
);
-- The first requests of a log, and the last ones before the place to which it was read, as hashes.
CREATE TABLE outline (log INTEGER PRIMARY KEY, first BLOB NOT NULL DEFAULT x'', last BLOB NOT NULL DEFAULT x'');
-- What was read: site 0 is the log's own row. until_offset is NULL where `run` follows: all from from_offset on is its.
-- digest is that of the rules and settings by which a backfill read it; NULL: they don't matter (`run`, the log's own row).
CREATE TABLE range (
    id INTEGER PRIMARY KEY AUTOINCREMENT, site INTEGER NOT NULL, log INTEGER NOT NULL,
    from_offset INTEGER NOT NULL, until_offset INTEGER, watermark INTEGER NOT NULL, settled TEXT NOT NULL DEFAULT '[]', digest INTEGER,
    lines INTEGER NOT NULL DEFAULT 0, too_long INTEGER NOT NULL DEFAULT 0, unparsed INTEGER NOT NULL DEFAULT 0,
    unmatched INTEGER NOT NULL DEFAULT 0, excluded INTEGER NOT NULL DEFAULT 0, bot INTEGER NOT NULL DEFAULT 0,
    repeat INTEGER NOT NULL DEFAULT 0, event INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX range_of ON range (log, site);
CREATE TRIGGER keep_totals BEFORE DELETE ON range BEGIN
    UPDATE site SET delivered = delivered + OLD.delivered WHERE id = OLD.site;
END;
-- Ends of the lines whose events a backfill has settled, delta-coded.
CREATE TABLE sent (range INTEGER NOT NULL, ends BLOB NOT NULL);
CREATE INDEX sent_of ON sent (range);
-- The repeat window as it is after the lines below the watermarks.
CREATE TABLE kept (
    key BLOB PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL,
    site INTEGER NOT NULL, log INTEGER NOT NULL, line_start INTEGER NOT NULL, line_end INTEGER NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
-- What isn't sorted into the window or `sent` yet, in the order of its commits, so that each writes one page for both.
CREATE TABLE recent (touches BLOB NOT NULL, sent BLOB);
CREATE TABLE rejected (
    id INTEGER PRIMARY KEY AUTOINCREMENT, site INTEGER NOT NULL, log INTEGER NOT NULL, line_end INTEGER NOT NULL, at INTEGER NOT NULL,
    status INTEGER, reason TEXT NOT NULL, event TEXT NOT NULL
);
CREATE INDEX rejected_of ON rejected (site);
