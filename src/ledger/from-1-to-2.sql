-- Early states of layout 1 don't have it.
CREATE TABLE IF NOT EXISTS recent (touches BLOB NOT NULL);
ALTER TABLE recent ADD COLUMN sent BLOB;
ALTER TABLE range ADD COLUMN delivered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE range ADD COLUMN rejected INTEGER NOT NULL DEFAULT 0;
CREATE TRIGGER keep_totals BEFORE DELETE ON range BEGIN
    UPDATE site SET delivered = delivered + OLD.delivered, rejected = rejected + OLD.rejected WHERE id = OLD.site;
END;
