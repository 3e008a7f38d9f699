-- Early states of layout 1 don't have it.
CREATE TABLE IF NOT EXISTS recent (touches BLOB NOT NULL);
ALTER TABLE recent ADD COLUMN sent BLOB;
ALTER TABLE range ADD COLUMN delivered INTEGER NOT NULL DEFAULT 0;
CREATE TRIGGER keep_totals BEFORE DELETE ON range BEGIN
    UPDATE site SET delivered = delivered + OLD.delivered WHERE id = OLD.site;
END;
-- It counted those that were dropped, too.
ALTER TABLE site DROP COLUMN rejected;
CREATE INDEX rejected_of ON rejected (site);
