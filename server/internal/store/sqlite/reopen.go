package sqlite

import (
	"errors"
	"fmt"
	"time"

	"telford.dev/telford/server/internal/tx"
)

// reloadTimeout bounds the functions that load in-memory state after a reopening.
const reloadTimeout = 30 * time.Second

// reopen replaces the writer's connection after a failure. It then moves the whole
// log into the database file and starts the log afresh: a commit record that a failed
// sync left behind can neither surface later nor be lost later, because what the new
// connection sees has been written and synced by another way.
func (w *writer) reopen() error {
	if w.conn != nil {
		if err := w.conn.close(); err != nil {
			w.db.cfg.Log.Warn("closing the writer's connection", "error", err)
		}
		w.conn = nil
	}
	w.db.check.running.Lock() // two checkpoints at once refuse each other
	defer w.db.check.running.Unlock()
	c, err := openConn(w.db.cfg.Path, w.db.cfg.Fast)
	if err == nil {
		var busy bool
		if busy, _, err = c.checkpoint("TRUNCATE"); err == nil && busy {
			err = errors.New("readers did not let go of the log")
		}
	}
	if err != nil {
		if c != nil {
			_ = c.close()
		}
		if err = orFull(w.db.cfg.Path, err); errors.Is(err, tx.ErrFull) {
			return err
		}
		return fmt.Errorf("%w: open the database again: %w", tx.ErrUnavailable, err)
	}
	w.conn, w.broken, w.nextCheck = c, false, w.db.cfg.limits.checkPages
	w.db.cfg.Log.Info("the database was opened again", "path", w.db.cfg.Path)
	return nil
}
