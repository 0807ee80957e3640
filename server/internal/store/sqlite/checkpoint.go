package sqlite

import (
	"sync"

	"telford.dev/telford/server/internal/store/engine"
)

const (
	pageSize = 4096 // SQLite's default, in bytes
	// restartWait is how long writes stand still for readers to let go of the log: twice
	// what a read transaction may last.
	restartWait = 2 * engine.ReadLimit
)

// checkpoint runs one checkpoint. busy: it could not do all of its work because of
// readers; log is the length of the log in pages.
func (c *conn) checkpoint(mode string) (busy bool, log int64, err error) {
	stmt, err := c.prepare("PRAGMA wal_checkpoint(" + mode + ")")
	if err != nil {
		return false, 0, err
	}
	defer func() { _ = stmt.Reset() }()
	if _, err := stmt.Step(); err != nil {
		return false, 0, c.fail(err)
	}
	return stmt.ColumnInt64(0) != 0, stmt.ColumnInt64(1), nil
}

// logGrew looks at the length of the log after a commit. The checkpointer moves the
// log into the database file, away from the writer, each time it has grown by so much.
// Should it grow all the same, because readers never let go of it all at once, the
// writer stops for as long as it takes to begin it anew.
func (w *writer) logGrew() {
	_, log, err := w.conn.checkpoint("NOOP")
	if err != nil {
		w.db.cfg.Log.Warn("reading the length of the log", "error", err)
		return
	}
	w.db.stats.logBytes.Store(log * pageSize)
	l := w.db.cfg.limits
	switch {
	case log < w.nextCheck-l.checkPages: // it began anew
		w.nextCheck = l.checkPages
	case log >= l.logPages && log >= w.nextCheck:
		w.restart(log)
	case log >= w.nextCheck:
		w.nextCheck = log + l.checkPages
		w.db.check.wake()
	}
}

// restart moves everything and begins the log anew while nothing is written. Readers
// that hold on to it for longer than they should only postpone it.
func (w *writer) restart(log int64) {
	w.db.stats.restarts.Add(1)
	w.nextCheck = log + w.db.cfg.limits.checkPages
	w.db.check.running.Lock() // two checkpoints at once refuse each other
	defer w.db.check.running.Unlock()
	w.conn.db.SetBusyTimeout(restartWait)
	busy, _, err := w.conn.checkpoint("RESTART")
	w.conn.db.SetBusyTimeout(busyTimeout)
	if err != nil || busy {
		w.db.cfg.Log.Warn("the log could not be begun anew", "bytes", log*pageSize, "readers", busy, "error", err)
		return
	}
	w.nextCheck = w.db.cfg.limits.checkPages
}

// checkpointer moves the log on a goroutine and a connection of its own.
type checkpointer struct {
	db    *DB
	work  chan struct{} // capacity 1: a wake during a checkpoint is one more checkpoint
	ended sync.WaitGroup
	conn  *conn
	// running is held during a checkpoint.
	running sync.Mutex
}

func newCheckpointer(db *DB) *checkpointer {
	k := &checkpointer{db: db, work: make(chan struct{}, 1)}
	k.ended.Go(k.loop)
	return k
}

func (k *checkpointer) wake() {
	select {
	case k.work <- struct{}{}:
	default:
	}
}

func (k *checkpointer) loop() {
	for {
		select {
		case <-k.db.closing:
			return
		case <-k.work:
			if err := k.run(); err != nil {
				k.db.cfg.Log.Warn("checkpoint", "path", k.db.cfg.Path, "error", err)
			}
		}
	}
}

func (k *checkpointer) run() error {
	if k.conn != nil && k.conn.spoiled {
		_ = k.conn.close()
		k.conn = nil
	}
	if k.conn == nil {
		c, err := openConn(k.db.cfg.Path, k.db.cfg.Fast)
		if err != nil {
			return err
		}
		k.conn = c
	}
	k.running.Lock()
	defer k.running.Unlock()
	k.db.stats.checkpoints.Add(1)
	_, _, err := k.conn.checkpoint("PASSIVE")
	return err
}

// stop waits for the checkpoint that runs. The database is closing.
func (k *checkpointer) stop() error {
	k.ended.Wait()
	if k.conn == nil {
		return nil
	}
	return k.conn.close()
}
