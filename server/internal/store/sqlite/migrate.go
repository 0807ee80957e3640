package sqlite

import (
	"embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"telford.dev/telford/server/internal/store/engine"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the schema up to date in one transaction. The write lock of SQLite
// keeps a second process out.
func migrate(c *conn, steps []engine.Migration, now time.Time) (err error) {
	if _, err := c.exec("BEGIN IMMEDIATE", nil); err != nil {
		return err
	}
	defer c.rollback()
	if err := c.script(`CREATE TABLE IF NOT EXISTS schema_migrations (
		version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT`); err != nil {
		return err
	}
	var applied []engine.Migration
	dbErr, eachErr := c.query("SELECT version, name FROM schema_migrations ORDER BY version", nil, func(r engine.Row) error {
		var m engine.Migration
		if err := r.Scan(&m.Version, &m.Name); err != nil {
			return err
		}
		applied = append(applied, m)
		return nil
	})
	if err := errors.Join(dbErr, eachErr); err != nil {
		return fmt.Errorf("read the schema version: %w", err)
	}
	pending, err := engine.Pending("database "+c.path, steps, applied)
	if err != nil || len(pending) == 0 {
		return err
	}
	for _, m := range pending {
		if err := c.script(m.SQL); err != nil {
			return fmt.Errorf("migration %04d_%s: %w", m.Version, m.Name, err)
		}
		if _, err := c.exec("INSERT INTO schema_migrations (version, name, applied_at) VALUES ($1, $2, $3)",
			[]any{m.Version, m.Name, engine.Micros(now)}); err != nil {
			return fmt.Errorf("migration %04d_%s: %w", m.Version, m.Name, err)
		}
	}
	_, err = c.exec("COMMIT", nil)
	return err
}

// script runs several statements.
func (c *conn) script(text string) error {
	for {
		text = strings.TrimSpace(text)
		if text == "" {
			return nil
		}
		stmt, rest, err := c.db.PrepareTransient(text)
		if err != nil {
			return c.fail(err)
		}
		if stmt == nil {
			return nil
		}
		for row := true; row && err == nil; {
			row, err = stmt.Step()
		}
		_ = stmt.Finalize()
		if err != nil {
			return c.fail(err)
		}
		text = text[len(text)-rest:]
	}
}
